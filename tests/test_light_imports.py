"""A run that has nothing to do goes without the libraries that it would embed and cluster with: they take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.extract_again import second_run, seconds_of_a_run, write_finished
from pipeline.config import load_settings

N_CLIPS = 20  # two parts of each modality
HEAVY = ("av", "cv2", "pandas", "pyarrow.dataset", "scipy", "sklearn", "torch", "torchaudio", "transformers")
PROGRAM = """
import sys
from pipeline.cli import main
try:
    main()
finally:
    print("imported:", *(name for name in {heavy} if name in sys.modules))
"""


def run(*words: str) -> tuple[str, list[str]]:
    """What a command says, and which of the heavy libraries it imported."""
    program = PROGRAM.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    said, _, imported = done.stdout.rpartition("imported:")
    return said, imported.split()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a corpus that is embedded already, its audio encoder trained."""
    return write_finished(tmp_path_factory.mktemp("finished"), N_CLIPS)


def test_extract_with_nothing_to_do_imports_no_encoder(finished):
    assert load_settings(finished).uses_own_audio, "weights: self, which are looked for too"
    said, imported = run("extract", "--config", str(finished))
    assert f"nothing to do: {N_CLIPS} clips accounted for in visual, text, audio" in said
    assert not imported


def test_status_imports_no_encoder_though_a_clip_is_pending(tmp_path):
    config = write_finished(tmp_path, N_CLIPS)
    (tmp_path / "clips" / "clip_0007.mp4").write_bytes(b"another film")
    said, imported = run("status", "--config", str(config))
    assert "embed visual 1, audio 1" in " ".join(said.split())
    assert not imported


def test_what_is_imported_is_seen():
    program = "import av; " + PROGRAM.format(heavy=HEAVY).replace("main()", "pass")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["imported:", "av"]


def test_the_benchmark_times_a_run_that_has_nothing_to_do(finished):
    found = second_run(N_CLIPS, runs=1)
    assert found["clips"] == N_CLIPS
    assert 0 < found["seconds"] < 60
    with pytest.raises(RuntimeError, match=f"expected nothing to do for {N_CLIPS + 1} clips, got: .*{N_CLIPS} clips"):
        seconds_of_a_run(finished, N_CLIPS + 1)


def test_the_processes_that_read_share_what_reading_needs_and_none_of_the_rest():
    program = "import sys, pipeline.reader_server; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"av", "numpy", "PIL.Image", "extractors.frame_preparer", "extractors.log_mel_preparer"} <= loaded
    assert not {"torch", "torchvision", "scipy", "pydantic", "transformers"} & loaded
