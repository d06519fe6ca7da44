"""Extraction on Ray, for `make test-ray`: a head and two workers, processes of their own on loopback, really killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
from corpus_factory import write_folder_corpus
from ray_clips import CRASHES, HANGS, SMALL, DeadlyTokens, Faulty, write_mixed_corpus

from extractors.audio_logmel_stats import LogMelStats
from pipeline.config import load_settings
from pipeline.engines import on_ray
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.failures import Failure
from pipeline.features import exact_store
from pipeline.prepare import manifest_of, prepare

pytestmark = pytest.mark.cluster
WORKER_CPUS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """A head that works on nothing, and two workers."""
    here = Path(__file__).parent
    os.environ.update(on_ray.ENVIRONMENT | on_ray.ON_LOOPBACK)  # before Ray is imported
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (here.parent, here)))  # for the workers
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=WORKER_CPUS)
    yield started
    started.shutdown()


def settings_of(root: Path, work: Path, *overrides: str):
    settings = load_settings(None, [*SMALL, *overrides], corpus__root=root, workdir=work)
    prepare(settings)
    return settings


def on(cluster) -> tuple[str, str]:
    return "engine.kind=ray", f"engine.address={cluster.address}"


def run(settings, **options) -> int:
    return extract(settings, *manifest_of(settings), **options)


def found(settings) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, Failure]], set[str]]:
    """Vectors and failures by modality and clip, and the names of the parts."""
    stores = {modality: exact_store(settings, modality) for modality in settings.extract.modalities()}
    names = {path.name for path in settings.work.glob("features/*/*/part-*")}
    return {m: s.read() for m, s in stores.items()}, {m: s.failed.read() for m, s in stores.items()}, names


def same(ours, theirs) -> None:
    """The same clips with the same vectors, failures and parts."""
    (vectors, failures, parts), (others, other_failures, other_parts) = ours, theirs
    assert failures == other_failures
    assert parts == other_parts
    for modality, expected in others.items():
        assert vectors[modality].keys() == expected.keys()
        for clip_id, vector in expected.items():
            other = vectors[modality][clip_id].astype(np.float64)
            cosine = other @ vector / np.linalg.norm(other) / np.linalg.norm(vector)
            assert cosine >= 0.99999, (modality, clip_id)


def test_two_machines_give_what_one_process_gives(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LogMelStats, "preparer", Faulty())
    root = write_mixed_corpus(tmp_path / "clips", 12)
    options = ("extract.chunk_size=3", "extract.clip_time_limit_s=20")
    here = settings_of(root, tmp_path / "here", *options)
    there = settings_of(root, tmp_path / "there", *options, *on(cluster))
    n_failed = run(here)
    capsys.readouterr()
    assert run(there) == n_failed
    assert "on Ray, 2 machines: 2 readers, 2 encoders a modality" in capsys.readouterr().out
    same(found(there), found(here))
    causes = {(f.clip_id, m): f.cause for m, failed in found(there)[1].items() for f in failed.values()}
    assert causes[HANGS, "audio"] == causes[HANGS, "visual"] == "timeout"
    assert causes[CRASHES, "audio"] == causes[CRASHES, "visual"] == "crashed"
    assert causes["silent", "audio"] == "no_audio_stream"
    assert causes["clip_02", "text"] == "missing_transcript"
    assert ("clip_03", "text") not in causes
    assert run(there) == n_failed
    assert "extract: nothing to do" in capsys.readouterr().out


def processes(of: int) -> dict[int, str]:
    """The processes under this one, with what they call themselves."""
    told: dict[int, str] = {}
    for task in Path(f"/proc/{of}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            try:
                told[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                told |= processes(child)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return told


def parts_in(work: Path) -> int:
    return len(list(work.glob("features/visual/*/part-*")))


def once(begun: Callable[[], object], strike: Callable[[], None]) -> threading.Thread:
    """Strikes as soon as the work has begun."""

    def wait() -> None:
        deadline = time.monotonic() + 250
        while not begun() and time.monotonic() < deadline:
            time.sleep(0.02)
        strike()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


MANY = ("extract.chunk_size=2", "extract.text=null")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """48 clips, one of them empty, and what they come to without Ray."""
    root = write_folder_corpus(tmp_path_factory.mktemp("many") / "clips", 48)
    (root / "clip_07.mp4").write_bytes(b"")
    settings = settings_of(root, tmp_path_factory.mktemp("whole"), *MANY)
    assert run(settings) == 2
    return root, found(settings)


def actors(cluster, stage: str) -> list[int]:
    """Processes of a stage's actors; of those that read, the ones whose own processes do."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    workers = {pid: name for raylet in raylets for pid, name in processes(raylet).items()}
    found = [pid for pid, name in workers.items() if name.startswith("ray::") and f"({stage})" in name]
    return [pid for pid in found if stage != "Read" or len(processes(pid)) > 2]


@pytest.mark.parametrize("stage", ["Encode", "Read"])
def test_a_worker_process_that_is_killed_loses_nothing(cluster, many, tmp_path, stage):
    root, whole = many
    settings = settings_of(root, tmp_path / "work", *MANY, *on(cluster))
    killed: list[int] = []

    def strike() -> None:
        killed.extend(actors(cluster, stage)[:1])
        os.kill(killed[0], signal.SIGKILL)

    striker = once(lambda: parts_in(settings.work) > 2 if stage == "Encode" else actors(cluster, stage), strike)
    assert run(settings) == 2
    striker.join()
    assert killed, "the run was over before anything could be killed"
    same(found(settings), whole)


def test_a_machine_that_is_killed_loses_nothing(cluster, many, tmp_path):
    root, whole = many
    lost = cluster.add_node(num_cpus=WORKER_CPUS)
    settings = settings_of(root, tmp_path / "work", *MANY, *on(cluster))
    left: list[int] = []

    def strike() -> None:
        cluster.remove_node(lost, allow_graceful=False)
        left.append(len(whole[2]) - parts_in(settings.work))

    striker = once(lambda: parts_in(settings.work) > 2, strike)
    assert run(settings) == 2
    striker.join()
    assert left[0] > 0, "the kill came too late to show anything"
    same(found(settings), whole)


def command(root: Path, work: Path, *overrides: str) -> list[str]:
    given = [*SMALL, *MANY, *overrides, f"workdir={work}"]
    words = [word for override in given for word in ("--set", override)]
    return [sys.executable, "-m", "pipeline", "extract", "--clips", str(root), *words]


def test_a_run_that_is_killed_is_completed_by_the_next(cluster, many, tmp_path):
    root, whole = many
    work = tmp_path / "work"
    with subprocess.Popen(command(root, work, *on(cluster)), stdout=subprocess.DEVNULL) as process:
        once(lambda: parts_in(work) > 2, process.kill).join()
    assert 0 < len(list(work.glob("features/*/*/part-*"))) < len(whole[2])
    settings = settings_of(root, work, *MANY, *on(cluster))
    assert run(settings) == 2
    same(found(settings), whole)


def test_too_many_failures_stop_the_run(cluster, tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 8)
    for i in range(4):
        (root / f"clip_{i:02d}.mp4").write_bytes(b"not a video")
    settings = settings_of(root, tmp_path / "work", *MANY, *on(cluster))
    with pytest.raises(PipelineError, match="stopped, as more than 1 clips have failed"):
        run(settings, max_failures=1)
    assert run(settings) == 8


def test_a_machine_that_does_not_see_the_files_is_told(cluster, tmp_path, monkeypatch):
    root = write_folder_corpus(tmp_path / "clips", 2)
    settings = settings_of(root, tmp_path / "work", *MANY, *on(cluster))
    check = on_ray._checked

    def without_store(machines, jobs, clips):
        rmtree(settings.work / "features")
        return check(machines, jobs, clips)

    monkeypatch.setattr(on_ray, "_checked", without_store)
    with pytest.raises(PipelineError, match="the Ray worker .* does not see .*features.* at the same paths"):
        run(settings)


def test_a_worker_that_would_embed_otherwise_is_told(cluster, tmp_path, monkeypatch):
    root = write_folder_corpus(tmp_path / "clips", 2)
    settings = settings_of(root, tmp_path / "work", "extract.visual=null", "extract.text=null", *on(cluster))
    monkeypatch.setattr("pipeline.encoders.versions", lambda packages: dict.fromkeys(packages, "0"))
    with pytest.raises(PipelineError, match=r"a Ray worker would embed otherwise .* \(versions\); install the same"):
        run(settings)


def test_a_chunk_that_always_kills_its_process_ends_the_run(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "MAX_RESTARTS", 1)
    monkeypatch.setattr("extractors.text_bert.TokenPreparer", DeadlyTokens)
    root = write_folder_corpus(tmp_path / "clips", 2)
    settings = settings_of(root, tmp_path / "work", "extract.visual=null", "extract.audio=null", *on(cluster))
    with pytest.raises(PipelineError, match="Ray gave up: .*; what was done is kept"):
        run(settings)


def test_no_cluster_is_told(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 1)
    done = subprocess.run(
        command(root, tmp_path / "work", "engine.kind=ray", "engine.address=127.0.0.1:1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot join a Ray cluster at engine.address=127.0.0.1:1" in done.stderr
    assert "ray start --head" in done.stderr


def listening(pids: set[int]) -> set[str]:
    """Addresses, in the kernel's hex, that these processes take TCP connections on."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_what_is_started_here_listens_on_loopback_alone_and_ends_with_the_run(many, tmp_path):
    root, whole = many
    work = tmp_path / "work"
    words = command(root, work, "engine.kind=ray", "engine.address=local")
    heard: set[str] = set()
    under: dict[int, str] = {}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:

        def look() -> None:
            under.update(processes(process.pid))
            heard.update(listening({process.pid, *under}))

        once(lambda: parts_in(work) > 2, look).join()
        assert process.wait(timeout=250) == 1
    assert heard == {"0100007F", "0000000000000000FFFF00000100007F"}
    assert any("raylet" in name for name in under.values())
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in under) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [name for pid, name in under.items() if Path(f"/proc/{pid}").exists()]
    settings = load_settings(None, [*SMALL, *MANY], corpus__root=root, workdir=work)
    same(found(settings), whole)
