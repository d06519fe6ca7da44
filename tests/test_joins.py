"""Joins of clips and stores by DuckDB against the same by dicts, and what must not be held in memory."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from extractors.base import Embedding
from extractors.clip import Clip
from pipeline import arrow, duck
from pipeline.align import Aligned
from pipeline.arrow import integers
from pipeline.errors import PipelineError
from pipeline.failures import Failure
from pipeline.joins import ANY_STAMP, ClipTable, all_clip_ids
from pipeline.ledger import Ledger, stamped
from pipeline.sources import source_of, sources_of
from pipeline.store import EmbeddingStore

MODALITIES = ("text", "visual")
RECIPE = {"extractor": "x", "dim": 2, "settings": {}, "weights": {"trained": True}}


@pytest.fixture(params=range(3))
def corpus(request, tmp_path):
    """Clips, some of whose files are gone or words changed since; stores with old, new and missing rows; failures."""
    rng = np.random.default_rng(request.param)
    clips = []
    for row in range(40):
        path = tmp_path / f"{row}.mp4"
        path.write_text("x" * row)
        clips.append(Clip(f"clip '{row}' ü", str(path), transcript=f"words {row}"))
    rng.shuffle(clips)
    stores = {m: EmbeddingStore.create(tmp_path / "features", m, RECIPE, "r") for m in MODALITIES}
    for modality, store in stores.items():
        for _ in range(12):
            chunk = rng.choice(len(clips), 5, replace=False)
            stamps = {clips[n].clip_id: rng.choice([source_of(clips[n], modality), "old"]) for n in chunk}
            store.write_part([Embedding(i, rng.normal(size=2).astype(np.float32), 1) for i in stamps], stamps)
        for n in rng.choice(len(clips), 8, replace=False):
            source = rng.choice([source_of(clips[n], modality), "old"])
            store.failed.add([Failure(clips[n].clip_id, "read", "undecodable", "no", str(source))])
    for clip in rng.choice(np.array(clips, dtype=object), 6, replace=False):
        (tmp_path / clip.media_path).unlink()
    return clips, stores


def pending(clips, stores, **options):
    """(clip, modality -> stamp) of what the ledger says is to be embedded."""
    with Ledger(lambda: clips, tuple(stores)) as ledger:
        counts = {m: ledger.account(m, store, **options) for m, store in stores.items()}
        found = [(clip, stamps) for _, clip, stamps in ledger.pending(list(stores))]
    assert {m: sum(m in stamps for _, stamps in found) for m in stores} == {m: n for m, (n, _) in counts.items()}
    return found


def by_dicts(clips, store, modality, retry_failed):
    """(clip_id, stamp) of what is pending, worked out in memory."""
    done, failed = store.done(), store.failed.read()
    wanted = sources_of(clips, modality, done)
    return {
        clip_id: stamp
        for clip_id, stamp in wanted.items()
        if (clip_id, stamp) not in set(done)
        and (retry_failed or clip_id not in failed or failed[clip_id].source != stamp)
    }


@pytest.mark.parametrize("retry_failed", [False, True])
def test_what_is_pending_is_what_dicts_say_in_the_corpus_order(corpus, retry_failed):
    clips, stores = corpus
    found = pending(clips, stores, retry_failed=retry_failed)
    expected = {m: by_dicts(clips, store, m, retry_failed) for m, store in stores.items()}
    assert {m: {clip.clip_id: w[m] for clip, w in found if m in w} for m in MODALITIES} == expected
    order = [clip.clip_id for clip, _ in found]
    assert order == [clip.clip_id for clip in clips if clip.clip_id in order]
    assert 0 < len(order) < len(clips)


def test_failures_are_told_where_the_clip_is_as_it_was_and_not_embedded_since(corpus):
    clips, stores = corpus
    with Ledger(lambda: clips, MODALITIES) as ledger:
        for modality, store in stores.items():
            undone = dict(by_dicts(clips, store, modality, retry_failed=True).items())
            expected = {i: f for i, f in store.failed.read().items() if undone.get(i) == f.source}
            _, n_failed = ledger.account(modality, store)
            assert {f.clip_id: f for f in ledger.failures(modality)} == expected
            assert n_failed == len(expected) > 0
            assert ledger.account(modality, store, retry_failed=True) == (len(undone), 0)
            assert list(ledger.failures(modality)) == []


def test_everything_is_pending_where_nothing_was_begun(corpus):
    clips, stores = corpus
    found = list(pending(clips, {"text": None, "visual": stores["visual"]}))
    assert [clip for clip, wanted in found if "text" in wanted] == clips


def test_what_was_embedded_is_pending_no_more(corpus):
    clips, stores = corpus
    for clip, wanted in pending(clips, stores, retry_failed=True):
        for modality, stamp in wanted.items():
            embedding = Embedding(clip.clip_id, np.zeros(2, np.float32), 1)
            stores[modality].write_part([embedding], {clip.clip_id: stamp})
    assert list(pending(clips, stores, retry_failed=True)) == []


def test_rows_are_those_that_reading_all_gives(corpus):
    clips, stores = corpus
    with ClipTable(stamped(clips, MODALITIES), MODALITIES) as table:
        aligned = Aligned(table, {m: table.locate(m, store) for m, store in stores.items()})
        ids = [clip_id for batch in aligned.clip_ids() for clip_id in batch]
        arrays = {m: aligned.array(m) for m in MODALITIES}
    expected = {m: store.read(sources_of(clips, m, store.done())) for m, store in stores.items()}
    assert ids == [clip.clip_id for clip in clips if any(clip.clip_id in vectors for vectors in expected.values())]
    for modality, vectors in expected.items():
        for clip_id, row in zip(ids, arrays[modality], strict=True):
            np.testing.assert_array_equal(row, vectors.get(clip_id, [np.nan, np.nan]))


def test_rows_come_as_they_lie_in_small_batches_too(corpus, monkeypatch):
    clips, stores = corpus
    tables = {}
    for batch in (arrow.BATCH, 3):
        monkeypatch.setattr(arrow, "BATCH", batch)
        with ClipTable(stamped(clips, MODALITIES), MODALITIES) as table:
            located = table.locate("text", stores["text"])
            tables[batch] = [(rows.tolist(), block.tolist()) for rows, block in located.vectors()], table.digest()
    assert tables[3] == tables[arrow.BATCH] == next(iter(tables.values()))


def test_the_digest_tells_the_order_of_the_clips_and_which_rows_are_used(corpus):
    clips, stores = corpus

    def digests(clips):
        with ClipTable(stamped(clips, ["text"]), ["text"]) as table:
            return table.digest(), table.locate("text", stores["text"]).digest()

    before = digests(clips)
    assert digests(list(clips)) == before
    assert digests(clips[::-1])[0] != before[0]
    assert digests(clips[:-1])[0] != before[0]
    stores["text"].write_part([Embedding("stranger", np.zeros(2, np.float32), 1)], {"stranger": "s"})
    assert digests(clips) == before
    clip = next(clip for clip, _ in pending(clips, {"text": stores["text"]}, retry_failed=True))
    stores["text"].write_part(
        [Embedding(clip.clip_id, np.zeros(2, np.float32), 1)], {clip.clip_id: source_of(clip, "text")}
    )
    assert digests(clips)[0] == before[0]
    assert digests(clips)[1] != before[1]


def test_every_id_is_told_once_in_order(corpus):
    _, stores = corpus
    expected = sorted({clip_id for store in stores.values() for clip_id, _ in store.done()})
    assert list(all_clip_ids(stores.values())) == expected


def test_a_torn_part_is_refused_by_its_name_from_within_a_join(corpus):
    clips, stores = corpus
    path = stores["visual"].parts()[5]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(PipelineError, match=rf"cannot read .*{path.name} .*; delete this file and extract again"):
        list(pending(clips, stores))


def test_two_clips_with_one_id_are_refused():
    with pytest.raises(PipelineError, match="two clips with the id 'a'; ids must be unique: run prepare again"):
        ClipTable([("a", [ANY_STAMP]), ("b", [ANY_STAMP]), ("a", [ANY_STAMP])], ["text"])


def test_a_disk_that_is_too_small_for_a_join_is_said(monkeypatch):
    monkeypatch.setattr(duck, "MEMORY", "1MB")
    clips = ((f"a clip with a rather long name {row}", [str(row)]) for row in range(200_000))
    with pytest.raises(PipelineError, match="cannot join clips by DuckDB: .*; free some space, or set TMPDIR"):
        ClipTable(clips, ["text"])


def test_a_stop_in_the_midst_of_a_join_is_a_stop():
    program = """
import os, signal, sys, threading, time
from pipeline.cli import stop
from pipeline.duck import Engine
try:
    with stop.stoppable(print), Engine() as engine:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        engine.run("CREATE TABLE t AS SELECT count(*) FROM range(100_000_000_000) AS a(n) WHERE n % 7 = 3")
except stop.Stopped as stopped:
    sys.exit(stop.exit_code(stopped.signum))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 143, done.stderr


def test_a_stream_that_was_not_read_to_its_end_hides_no_later_error():
    schema = pa.schema([("n", pa.int64())])
    batch = pa.RecordBatch.from_arrays([integers(np.arange(10))], schema=schema)
    with duck.Engine() as engine:
        engine.run("CREATE TABLE first AS SELECT n FROM given LIMIT 1", given=(schema, (batch for _ in range(100_000))))
        with pytest.raises(PipelineError, match="cannot join clips by DuckDB"):
            engine.run("SELECT nothing FROM nowhere")
        with pytest.raises(PipelineError, match="cannot join clips by DuckDB"):
            engine.one("SELECT nothing FROM nowhere")


def test_many_cores_do_not_need_more_memory(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr(duck, "MEMORY", "192MB")
    clips = ((f"a clip with a rather long name {row}", [str(row)]) for row in range(300_000))
    with ClipTable(clips, ["text"]) as table:
        assert table.account("text", None) == (300_000, 0)


@pytest.mark.parametrize("later", [[], ["b", "a"]])
def test_a_manifest_that_changes_while_it_is_worked_on_is_refused(later):
    reads = iter([["a", "b"], later])
    with Ledger(lambda: [Clip(i, "x.mp4", transcript="words") for i in next(reads)], ["text"]) as ledger:
        assert ledger.account("text", None) == (2, 0)
        with pytest.raises(PipelineError, match="the manifest has changed since it was read: expected clip 'a'; run"):
            list(ledger.pending(["text"]))
