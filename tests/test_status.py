"""What status says of a workdir: it adds up, and it is what the stages then do."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from terminal import call_main

from extractors.base import Embedding
from pipeline.cluster import MODEL_FORMAT, train
from pipeline.config import Settings, load_settings
from pipeline.encoders import request_of
from pipeline.errors import PipelineError
from pipeline.evaluate import evaluate, labels_of
from pipeline.failures import Failure
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of
from pipeline.sources import source_of
from pipeline.status import DONE, TO_DO, UNUSED, WAITS, Modality, status
from pipeline.store import EmbeddingStore
from tib.persistence import FORMAT_VERSION

ROOT = Path(__file__).resolve().parents[1]
N = 12
STAGES = ("prepare", "extract", "reduce", "train", "evaluate", "report")


@pytest.fixture
def settings(tmp_path):
    """A corpus of N clips that only text and audio are asked of; nothing is done yet."""
    root = tmp_path / "clips"
    root.mkdir()
    for n in range(N):
        (root / f"{n:02d}.mp4").write_bytes(bytes([n]))
        (root / f"{n:02d}.txt").write_text(f"words {n}")
    overrides = ("extract.visual=null", "extract.audio.weights=random", "extract.text.weights=random")
    run = ("train.n_clusters=2", "train.epochs=4", "train.restarts=2", "reduce.dim=3")
    return load_settings(None, [*overrides, *run], corpus__root=root, workdir=tmp_path / "work", name="x")


def states(settings: Settings) -> dict[str, str]:
    """Of the stages that these settings have a use for."""
    return {one.stage: one.state for one in status(settings).stages if one.state != UNUSED}


def would(settings: Settings, stage: str) -> str:
    return next(one.would for one in status(settings).stages if one.stage == stage)


def store_embeddings(settings: Settings, modality: str, clips: range, failed: range = range(0)) -> EmbeddingStore:
    """What extract leaves, without its encoders: vectors by the number of the clip, and failures."""
    section = getattr(settings.extract, modality)
    recipe = {"extractor": section.backbone, "weights": {"trained": False}, "dim": 6}
    store = EmbeddingStore.create(settings.work / "features", modality, recipe, request_of(modality, section))
    manifest, root = manifest_of(settings)
    sources = {row.clip_id: source_of(to_clip(row, root), modality) for row in manifest}
    rng = np.random.default_rng(len(modality))
    vectors = rng.normal(size=(N, 6)).astype(np.float32) + 5 * (np.arange(N)[:, None] % 2)
    ids = [row.clip_id for row in manifest]
    if clips:
        store.write_part([Embedding(ids[n], vectors[n].astype(np.float32), 1) for n in clips], sources)
    store.failed.write(Failure(ids[n], "read", "undecodable", "broken", sources[ids[n]]) for n in failed)
    return store


def test_nothing_done_yet(settings):
    found = status(settings)
    assert states(settings) == {"prepare": TO_DO, **dict.fromkeys(STAGES[1:], WAITS)}
    assert found.next == "prepare"
    assert found.modalities == []
    assert not settings.work.exists()


def test_without_a_corpus_it_says_what_is_missing(settings, tmp_path):
    assert would(Settings(workdir=tmp_path), "prepare") == "corpus.root is not set (CLIPS=DIR, or --clips DIR)"
    gone = load_settings(None, [], corpus__root=tmp_path / "gone", workdir=tmp_path / "w")
    assert would(gone, "prepare") == f"there is no folder {tmp_path / 'gone'}"
    prepare(settings)
    without = settings.model_copy(update={"corpus": Settings().corpus})
    assert (states(without)["prepare"], would(without, "prepare")) == (DONE, "nothing: no corpus.root")


def test_another_corpus_is_to_be_prepared(settings, tmp_path):
    prepare(settings)
    assert states(settings)["prepare"] == DONE
    (tmp_path / "others").mkdir()
    other = settings.model_copy(update={"corpus": settings.corpus.model_copy(update={"root": tmp_path / "others"})})
    assert states(other)["prepare"] == TO_DO
    assert would(other, "prepare") == f"read {tmp_path / 'others'}, in place of {tmp_path / 'clips'}"


def test_the_accounts_add_up(settings, tmp_path):
    prepare(settings)
    for one in status(settings).modalities:
        assert (one.done, one.failed, one.pending, one.fingerprint) == (0, 0, N, None)
    text = store_embeddings(settings, "text", range(7), failed=range(7, 9))
    audio = store_embeddings(settings, "audio", range(N))
    (tmp_path / "clips/03.mp4").write_bytes(b"another file")  # to be embedded again
    found = status(settings)
    assert found.modalities == [
        Modality("text", N, 7, 2, 3, text.fingerprint, "text/bert", False, {"undecodable": 2}),
        Modality("audio", N, N - 1, 0, 1, audio.fingerprint, "audio/davenet", False, {}),
    ]
    for one in found.modalities:
        assert one.clips == one.done + one.failed + one.pending
    assert would(settings, "extract") == "embed text 3, audio 1"
    assert found.next == "extract"


def test_each_stage_is_done_once_it_has_run_and_to_do_when_something_changes(settings, one_thread):
    prepare(settings)
    store_embeddings(settings, "text", range(N))
    store_embeddings(settings, "audio", range(N))
    assert states(settings) == {**dict.fromkeys(STAGES[:2], DONE), "reduce": TO_DO, **dict.fromkeys(STAGES[3:], WAITS)}
    reduce(settings)
    assert states(settings)["reduce"] == DONE
    assert (states(settings)["train"], would(settings, "train")) == (TO_DO, "cluster the views")
    views = views_of(settings)
    labels = labels_of(settings, views)
    assert train(settings, views, labels)
    assert (states(settings)["train"], states(settings)["evaluate"]) == (DONE, TO_DO)
    evaluate(settings, views, labels)
    assert (states(settings)["evaluate"], states(settings)["report"]) == (DONE, TO_DO)
    (settings.results / "report.html").write_text("the page")
    assert states(settings) == dict.fromkeys(STAGES, DONE)
    assert status(settings).next is None
    assert not train(settings, views, labels)  # as was said: nothing to do
    model = settings.results / "model.json"
    written = model.read_text()
    model.write_text(written.replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 2'))
    assert states(settings)["train"] == TO_DO  # `report` and `predict` cannot read what an older version wrote
    model.write_text(written)

    other = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": 7})})
    assert would(other, "train") == "cluster again: views or settings changed"
    no_k = settings.model_copy(update={"train": settings.train.model_copy(update={"n_clusters": None})})
    assert (states(no_k)["train"], would(no_k, "train")) == (WAITS, "train.n_clusters is not set")
    narrow = settings.model_copy(update={"reduce": settings.reduce.model_copy(update={"dim": 2})})
    assert (states(narrow)["reduce"], states(narrow)["train"]) == (TO_DO, WAITS)
    (settings.work / "labels.csv").write_text("clip_id,label\n" + "".join(f"{n:02d},{n % 2}\n" for n in range(N)))
    assert (states(settings)["evaluate"], states(settings)["report"]) == (TO_DO, WAITS)
    (settings.work / "labels.csv").write_text("clip_id,label\nnobody,1\n")
    assert "none of the 12 clips has a label" in would(settings, "train")


def test_cached_features_need_the_run_alone(tmp_path):
    for name in ("text", "video"):
        np.save(tmp_path / f"{name}.npy", np.eye(8))
    settings = load_settings(None, ["train.n_clusters=2"], views=tmp_path, out=tmp_path / "run")
    assert states(settings) == {"train": TO_DO, "evaluate": WAITS, "report": WAITS}
    unused = [one.stage for one in status(settings).stages if one.state == UNUSED]
    assert unused == ["prepare", "pretrain-audio", "extract", "reduce"]
    gone = load_settings(None, ["train.n_clusters=2"], views=tmp_path / "gone", out=tmp_path / "run")
    assert "no such folder" in would(gone, "train")


def test_nothing_is_written_and_the_stages_say_nothing(settings, capsys):
    prepare(settings)
    store_embeddings(settings, "text", range(4))
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in settings.work.rglob("*")}
    status(settings)
    assert {path: path.stat().st_mtime_ns for path in settings.work.rglob("*")} == before
    assert capsys.readouterr().out == ""


def test_a_workdir_that_cannot_be_read_is_told(settings):
    prepare(settings)
    (settings.work / "manifest.jsonl").write_text("{broken\n")
    with pytest.raises(PipelineError, match="manifest.jsonl:1: not a clip"):
        status(settings)


def test_the_command_loads_no_pytorch_and_says_what_comes_next(settings, tmp_path):
    prepare(settings)
    store_embeddings(settings, "text", range(4))
    code = (
        "import sys; sys.argv = ['pipeline/__main__.py', 'status', *sys.argv[1:]]\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'sklearn', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    overrides = ("extract.visual=null", "extract.audio.weights=random", "extract.text.weights=random")
    words = [word for o in (*overrides, f"workdir={settings.work}") for word in ("--set", o)]
    done = subprocess.run(
        [sys.executable, "-c", code, "--clips", tmp_path / "clips", *words],
        **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60, "check": True},
    )
    assert done.stderr == "set()\n"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert ["text/bert", "4", "0", "8", "12"] in [row[:5] for row in rows]
    assert ["audio/davenet", "0", "0", "12", "12", "-"] in rows
    assert "text: its encoder has RANDOM weights (untrained)" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("next: ")
    assert " -m pipeline extract --set extract.visual=null" in last
    assert last.endswith(f"--set corpus.root={tmp_path / 'clips'}")


def test_the_json_is_what_the_table_says(settings, capsys, monkeypatch):
    prepare(settings)
    said = call_main(monkeypatch, capsys, "status", "--json", "--set", f"workdir={settings.work}")
    found = json.loads(said.out)
    assert [one["stage"] for one in found["stages"]] == ["prepare", "pretrain-audio", *STAGES[1:]]
    assert [one["pending"] for one in found["modalities"]] == [N, N, N]
    quiet = call_main(monkeypatch, capsys, "status", "-q", "--set", f"workdir={settings.work}").out
    assert "next: pretrain-audio" in quiet  # the default is an audio encoder of the corpus' own


def test_an_audio_encoder_of_its_own_is_to_be_trained_once(settings):
    own = load_settings(
        None, ["extract.visual=null", "extract.text.weights=random"],
        corpus__root=settings.corpus.root, workdir=settings.work, name="x",
    )  # fmt: skip
    assert (states(own)["pretrain-audio"], would(own, "pretrain-audio")) == (WAITS, "prepare first")
    prepare(own)
    assert (states(own)["pretrain-audio"], would(own, "pretrain-audio")) == (TO_DO, "train")
    own.own_audio.parent.mkdir(parents=True)
    (own.own_audio.parent / "checkpoint.pt").touch()
    assert would(own, "pretrain-audio") == "go on training"
    best = {"audio_to_image": {"recall@10": 0.5}, "chance": {"recall@10": 0.25}}
    own.own_audio.with_suffix(".json").write_text(json.dumps({"extractor": "audio/davenet", "best": best}))
    assert states(own)["pretrain-audio"] == TO_DO  # a record whose weights have gone
    own.own_audio.touch()
    done = next(one for one in status(own).stages if one.stage == "pretrain-audio")
    assert (done.state, done.has) == (DONE, "audio/davenet: recall@10 0.50, chance 0.25")
    assert would(settings, "pretrain-audio") == "audio/davenet, weights random"


def test_status_and_tib_mean_the_same_model():
    assert MODEL_FORMAT == FORMAT_VERSION
