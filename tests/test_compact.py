"""Compaction: the same rows in fewer parts; killed at any write, rename or deletion it loses none and doubles none."""

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from terminal import call_main

from extractors.base import Embedding
from pipeline import files
from pipeline.compact import Compacted, compact
from pipeline.errors import PipelineError
from pipeline.failures import Failure
from pipeline.storage import location
from pipeline.store import EmbeddingStore

RECIPE = {"extractor": "visual/x", "dim": 3, "settings": {}, "weights": {"trained": True}}


@pytest.fixture(params=["folder", "memory"])
def features(request, tmp_path):
    """A folder of this machine, and one of an object store."""
    return tmp_path / "features" if request.param == "folder" else location(f"memory://{tmp_path.name}/features")


def filled(features: Path, recipe=RECIPE) -> EmbeddingStore:
    """Seven parts of four clips, two clips of which were embedded again, one from another file."""
    store = EmbeddingStore.create(features, "visual", recipe, "request-1")
    rng = np.random.default_rng(0)
    for chunk in np.arange(24).reshape(6, 4):
        store.write_rows([f"c{n}" for n in chunk], ["s"] * 4, rng.normal(size=(4, 3)).astype(np.float32), [2] * 4)
    again = np.array([[7, 7, 7], [8, 8, 8]], np.float32)
    store.write_rows(["c5", "c20"], ["s", "newer"], again, [1, 1])
    return store


def content(store: EmbeddingStore) -> dict[str, tuple[str, list[float]]]:
    """clip_id -> source and vector of the newest row."""
    sources = dict(store.done())
    return {clip_id: (sources[clip_id], vector.tolist()) for clip_id, vector in store.read().items()}


def test_it_is_one_part_with_the_newest_row_of_each_clip(features):
    store = filled(features)
    before = content(store)
    assert before["c20"] == ("newer", [8, 8, 8])
    assert compact(store) == Compacted(parts_before=7, parts_after=1, n_rows=24, n_dropped=2)
    assert content(store) == before
    assert len(store.done()) == 24
    with store.parts()[0].open("rb") as file:
        units = dict(zip(*(pq.read_table(file).to_pydict()[name] for name in ("clip_id", "n_units")), strict=True))
    assert (units["c5"], units["c6"]) == (1, 2)


def test_what_is_large_enough_is_left_alone(features):
    store = filled(features)
    sizes = [path.stat().st_size for path in store.parts()]
    compact(store, part_bytes=sum(sizes[:3]))
    parts = store.parts()
    assert 2 <= len(parts) <= 4
    names = [path.name for path in parts]
    assert compact(store, part_bytes=max(path.stat().st_size for path in parts)).parts_after == len(parts)
    assert [path.name for path in store.parts()] == names
    assert compact(store).parts_after == 1


def test_what_is_embedded_afterwards_is_newer(features):
    store = filled(features)
    compact(store)
    store.write_part([Embedding("c0", np.full(3, 9, np.float32), 1)], {"c0": "s"})
    assert content(store)["c0"] == ("s", [9, 9, 9])
    assert compact(store).n_dropped == 1
    assert content(store)["c0"] == ("s", [9, 9, 9])


def test_sequences_of_either_precision_stay_as_they_are(tmp_path):
    store = EmbeddingStore.create(tmp_path, "visual", RECIPE | {"keep_sequence": True}, "r")
    for n, largest in enumerate([1.0, 2.0, 1e6, 2e6, 1.0]):
        steps = np.full((n + 1, 3), largest, np.float32)
        store.write_part([Embedding(f"c{n}", steps.mean(axis=0), 1, steps)], {f"c{n}": "s"})
    before = store.read_sequences()
    assert compact(store).parts_after == 3  # float16, float32, float16
    after = store.read_sequences()
    assert {i: rows.dtype for i, rows in after.items()} == {i: rows.dtype for i, rows in before.items()}
    for clip_id, rows in before.items():
        np.testing.assert_array_equal(after[clip_id], rows)


def test_a_store_without_parts_stays_so(features):
    store = EmbeddingStore.create(features, "visual", RECIPE, "r")
    assert compact(store) == Compacted(parts_before=0, parts_after=0, n_rows=0, n_dropped=0)


class Killed(BaseException):
    """As SIGKILL: nothing that follows is done but what Python does when it leaves a block."""


def killed_at(monkeypatch, nth: int, *, after: bool) -> None:
    """Renames and deletions are counted; at the nth the process dies, before it is done or after."""
    n_calls = 0
    replace, unlink = os.replace, Path.unlink

    def step(call):
        nonlocal n_calls
        n_calls += 1
        if n_calls < nth or (n_calls == nth and after):
            call()
        if n_calls >= nth:
            raise Killed

    def counted_unlink(path, missing_ok=False):
        if not path.name.startswith(files.TEMPORARY_PREFIX):
            step(lambda: unlink(path, missing_ok=missing_ok))

    monkeypatch.setattr(os, "replace", lambda *paths: step(lambda: replace(*paths)))
    monkeypatch.setattr(Path, "unlink", counted_unlink)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_nothing_is_lost_and_nothing_doubled(tmp_path, monkeypatch, after):
    undisturbed = filled(tmp_path / "undisturbed")
    expected, rows = content(undisturbed), Counter(undisturbed.done())
    nth = 0
    while True:
        nth += 1
        store = filled(tmp_path / f"killed-{nth}")
        part_bytes = 3 * store.parts()[0].stat().st_size
        with monkeypatch.context() as patched:
            killed_at(patched, nth, after=after)
            try:
                compact(store, part_bytes)
            except Killed:
                ended = False
            else:
                ended = True
        if ended:
            break
        assert content(store) == expected, nth
        assert Counter(store.done()) <= rows, "no row is there more often than before"
        again = EmbeddingStore.create(tmp_path / f"killed-{nth}", "visual", RECIPE, "request-1")
        assert not (again.folder / "compaction.json").exists()
        assert {path.name for path in again.folder.glob("part-*")} == {path.name for path in again.parts()}
        assert content(again) == expected
        compact(again)
        assert content(again) == expected
        assert len(again.done()) == 24
    assert nth > 15, "it was killed at each rename and each deletion"


def test_a_part_that_cannot_be_read_is_named_and_nothing_is_lost(tmp_path):
    store = filled(tmp_path)
    path = store.parts()[3]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=rf"cannot read .*{path.name}"):
        compact(store)
    path.write_bytes(whole)
    assert len(content(store)) == 24


@pytest.mark.parametrize(
    "text", ["{", '{"parts": ["../../x"], "replaces": [], "committed": true}', '{"parts": [], "replaces": []}']
)
def test_a_broken_compaction_is_refused_by_name(tmp_path, text):
    store = filled(tmp_path)
    (store.folder / "compaction.json").write_text(text)
    with pytest.raises(PipelineError, match="cannot read .*compaction.json .*; bring it back, or delete"):
        store.parts()


def test_no_compaction_deletes_a_file_outside_its_folder(tmp_path):
    store = filled(tmp_path)
    bystander = store.folder.parent / "part-aa.parquet"
    bystander.write_text("")
    record = {"parts": [], "replaces": ["../part-aa.parquet"], "committed": True}
    (store.folder / "compaction.json").write_text(json.dumps(record))
    with pytest.raises(PipelineError, match=r"replaces.0: string should match"):
        compact(store)
    assert bystander.exists()


def test_added_failures_become_one_part_with_the_last_of_each_clip(features):
    store = filled(features)
    for clip_id, message in (("x", "first"), ("y", "only"), ("x", "last")):
        store.failed.add([Failure(clip_id, "read", "undecodable", message, "s")])
    before = store.failed.read()
    compact(store)
    assert len(list(store.folder.glob("failed-*"))) == 1
    assert store.failed.read() == before
    assert before["x"].message == "last"


def test_the_command_says_what_became_of_each_modality(tmp_path, capsys, monkeypatch):
    words = [word for setting in (*SMALL_ENCODERS, f"workdir={tmp_path / 'w'}") for word in ("--set", setting)]
    command = partial(call_main, monkeypatch, capsys)
    assert command("compact", *words)[0] == 2  # nothing there yet
    clips = str(write_folder_corpus(tmp_path / "clips", 4))
    assert command("extract", "--clips", clips, "--only", "text", *words)[0] == 0
    code, out, _ = command("compact", *words, "--json")
    done = json.loads(out)["text"]
    assert (code, done["n_rows"], done["parts_after"]) == (0, 4, 1)
    assert "nothing to do" in command("extract", "--only", "text", *words)[1]
