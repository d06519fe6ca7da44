"""The store: what is written is read back, nothing torn is taken for whole, a changed clip counts as not done."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extractors.base import Embedding
from extractors.clip import Clip
from pipeline.errors import PipelineError
from pipeline.failures import Failure
from pipeline.sources import source_of, sources_of
from pipeline.store import EmbeddingStore, as_float16

RECIPE = {"extractor": "visual/x", "dim": 3, "settings": {}, "weights": {"trained": True}}


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore.create(tmp_path / "features", "visual", RECIPE, "request-1")


def embedding(clip_id, value=1.0):
    return Embedding(clip_id, np.full(3, value, dtype=np.float32), 2)


def test_what_is_written_is_read_back(store):
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    ids = ["a", "b/c", "ü", "d"]
    store.write_part([Embedding(i, v, 1) for i, v in zip(ids, vectors, strict=True)], dict.fromkeys(ids, "s"))
    assert store.done() == [(i, "s") for i in ids]
    read = store.read()
    assert list(read) == ids
    np.testing.assert_array_equal(np.stack(list(read.values())), vectors)


def with_sequence(clip_id, n_steps, largest=1.0):
    steps = np.random.default_rng(n_steps).normal(size=(n_steps, 3)).astype(np.float32)
    steps[0, 0] = largest
    return Embedding(clip_id, steps.mean(axis=0), n_steps, steps)


@pytest.fixture
def sequences(tmp_path):
    return EmbeddingStore.create(tmp_path / "features", "visual", RECIPE | {"keep_sequence": True}, "request-2")


def test_sequences_are_read_back_by_us_and_by_pyarrow(sequences):
    clips = [with_sequence("a", 4), with_sequence("b", 1), with_sequence("c", 7)]
    path = sequences.write_part(clips[:2], {"a": "s", "b": "s"})
    sequences.write_part(clips[2:], {"c": "old"})
    read = sequences.read_sequences()
    assert set(read) == {"a", "b", "c"}
    for clip in clips:
        assert read[clip.clip_id].dtype == np.float16
        np.testing.assert_array_equal(read[clip.clip_id], clip.sequence.astype(np.float16))
        np.testing.assert_array_equal(sequences.read()[clip.clip_id], clip.vector)
    assert set(sequences.read_sequences({"a": "s", "b": "other", "c": "old"})) == {"a", "c"}
    column = pq.read_table(path)["sequence"]
    assert column.type == pa.list_(pa.list_(pa.float16(), 3))
    assert column.to_pylist() == [clip.sequence.astype(np.float16).tolist() for clip in clips[:2]]


@pytest.mark.parametrize("largest", [65_504, -65_504])
def test_float16_keeps_the_largest_it_holds(largest):
    rows = as_float16(np.array([[largest, 1.0]], np.float32))
    assert rows.dtype == np.float16
    assert rows.tolist() == [[largest, 1.0]]


@pytest.mark.parametrize("largest", [65_505, -65_505, 1e30, -1e30])
def test_a_part_with_a_value_too_large_for_float16_is_float32_whole(sequences, largest):
    clips = [with_sequence("a", 4), with_sequence("b", 2, largest)]
    sequences.write_part(clips, {"a": "s", "b": "s"})
    sequences.write_part([with_sequence("c", 7)], {"c": "s"})
    read = sequences.read_sequences()
    for clip in clips:
        assert read[clip.clip_id].dtype == np.float32
        np.testing.assert_array_equal(read[clip.clip_id], clip.sequence)
        np.testing.assert_array_equal(sequences.read()[clip.clip_id], clip.vector)
    assert read["c"].dtype == np.float16


def test_parts_from_when_sequences_were_float32_are_read_beside_newer_ones(sequences):
    clip = with_sequence("a", 4)
    path = sequences.write_part([clip], {"a": "s"})
    steps = pa.array([clip.sequence.tolist()], pa.list_(pa.list_(pa.float32(), 3)))
    table = pq.read_table(path).drop_columns("sequence").append_column("sequence", steps)
    pq.write_table(table, path, compression="zstd")
    sequences.write_part([with_sequence("b", 2)], {"b": "s"})
    read = sequences.read_sequences()
    np.testing.assert_array_equal(read["a"], clip.sequence)
    assert [(i, rows.dtype) for i, rows in read.items()] == [("a", np.float32), ("b", np.float16)]


def test_a_store_without_sequences_says_how_to_get_them(store, sequences):
    store.write_part([with_sequence("a", 4)], {"a": "s"})
    assert "sequence" not in pq.read_schema(next(store.folder.glob("part-*"))).names
    with pytest.raises(PipelineError, match="holds no sequences; extract with extract.keep_sequence=true"):
        store.read_sequences()
    with pytest.raises(ValueError, match="clip 'a': expected a sequence, as the recipe keeps them; got none"):
        sequences.write_part([embedding("a")], {"a": "s"})


def test_rows_of_another_source_are_not_read(store):
    store.write_part([embedding("a", 1.0)], {"a": "old"})
    store.write_part([embedding("a", 2.0)], {"a": "new"})
    assert store.read({"a": "old"})["a"][0] == 1.0
    assert store.read({"a": "new"})["a"][0] == 2.0
    assert store.read({"a": "other"}) == {}


def test_a_chunk_written_twice_is_one_part(store):
    for _ in range(2):
        store.write_part([embedding("a"), embedding("b")], {"a": "1", "b": "2"})
    assert len(list(store.folder.glob("part-*.parquet"))) == 1


def test_another_recipe_is_another_folder(tmp_path, store):
    other = EmbeddingStore.create(tmp_path / "features", "visual", RECIPE | {"settings": {"fps": 2}}, "request-2")
    assert other.folder != store.folder
    assert other.done() == []


def test_a_request_leads_to_its_store(tmp_path, store):
    features = tmp_path / "features"
    EmbeddingStore.create(features, "visual", RECIPE, "request-3")  # other words for the same recipe
    for request in ("request-1", "request-3"):
        found = EmbeddingStore.find(features, "visual", request)
        assert found is not None
        assert found.folder == store.folder
    assert EmbeddingStore.find(features, "visual", "request-9") is None


def test_a_request_that_leads_elsewhere_now_is_taken_from_its_old_store(tmp_path, store):
    other = EmbeddingStore.create(
        tmp_path / "features", "visual", RECIPE | {"weights": {"sha256": "newer"}}, "request-1"
    )
    found = EmbeddingStore.find(tmp_path / "features", "visual", "request-1")
    assert found is not None
    assert found.folder == other.folder != store.folder


def test_failures_are_rows(store):
    failure = Failure("a", "read", "undecodable", 'a "quoted", two\nline message', "12:3")
    store.failed.write([failure])
    assert store.failed.read() == {"a": failure}
    store.failed.write([])
    assert store.failed.read() == {}


def test_added_failures_are_read_beside_the_file_and_folded_into_it(store):
    first, second, later = (Failure(i, "read", "undecodable", m, "1") for i, m in (("a", "x"), ("b", "y"), ("a", "z")))
    store.failed.write([first])
    for _ in range(2):
        store.failed.add([second])
    store.failed.add([later])
    store.failed.add([])
    assert len(list(store.folder.glob("failed-*.parquet"))) == 2
    assert store.failed.read() == {"a": later, "b": second}
    store.failed.write(store.failed.read().values())
    assert not list(store.folder.glob("failed-*.parquet"))
    assert store.failed.read() == {"a": later, "b": second}


def test_torn_added_failures_are_refused_by_name(store):
    store.failed.add([Failure("a", "read", "undecodable", "x", "1")])
    path = next(store.folder.glob("failed-*"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(PipelineError, match=rf"cannot read .*{path.name} .*; delete this file and extract again"):
        store.failed.read()


def test_rows_come_with_their_places_a_row_group_at_a_time(store):
    path = store.write_part([embedding(str(n), n) for n in range(10)], {str(n): "s" for n in range(10)})
    pq.write_table(pq.read_table(path), path, row_group_size=4)
    store.write_part([embedding("9", 90)], {"9": "newer"})
    blocks = list(store.vectors())
    assert [(place, len(block)) for place, block in blocks] == [(0, 4), (4, 4), (8, 2), (10, 1)]
    assert np.concatenate([block[:, 0] for _, block in blocks]).tolist() == [*range(10), 90]
    keys = [row for batch in store.iter_done() for row in batch.to_pylist()]
    assert [row["place"] for row in keys] == list(range(11))
    assert keys[-1] == {"place": 10, "clip_id": "9", "source": "newer"}
    assert store.read()["9"][0] == 90


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_torn_part_is_refused_by_name(store, keep):
    path = store.write_part([embedding("a")], {"a": "1"})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PipelineError, match=rf"cannot read .*{path.name}.*; delete this file and extract again"):
        store.done()


def test_a_part_without_a_column_is_refused_by_name(store):
    path = store.write_part([embedding("a")], {"a": "1"})
    pq.write_table(pq.read_table(path).drop_columns("source"), path)
    with pytest.raises(PipelineError, match=rf"cannot read .*{path.name} \(.*source.*\); delete this file and extract"):
        store.done()


def test_a_broken_recipe_is_refused_by_name(tmp_path, store):
    (store.folder / "recipe.json").write_text("{")
    with pytest.raises(PipelineError, match="cannot read .*recipe.json"):
        EmbeddingStore.all(tmp_path / "features", "visual")


def test_failures_of_another_layout_are_refused(store):
    (store.folder / "failures.csv").write_text("clip,why\na,b\n")
    with pytest.raises(PipelineError, match="expected clip_id, stage"):
        store.failed.read()


def test_vectors_of_another_dim_are_refused(store):
    with pytest.raises(ValueError, match="expected 3-d embeddings, got 5-d"):
        store.write_part([Embedding("a", np.zeros(5, dtype=np.float32), 1)], {"a": "1"})


def test_the_recipe_is_kept_with_its_fingerprint(store):
    record = json.loads((store.folder / "recipe.json").read_text())
    assert record["recipe"] == RECIPE
    assert record["fingerprint"] == store.folder.name


@pytest.mark.parametrize(
    ("vector", "n_units", "message"),
    [
        (np.zeros((2, 2), np.float32), 1, r"a \(D,\) float32 vector"),
        (np.zeros(2), 1, "float32 vector, got .* float64"),
        (np.array([np.nan], np.float32), 1, "holds NaN or Inf"),
        (np.zeros(2, np.float32), 0, "n_units must be >= 1"),
    ],
)
def test_an_embedding_checks_itself(vector, n_units, message):
    with pytest.raises(ValueError, match=message):
        Embedding("a", vector, n_units)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (np.zeros(2, np.float32), r"a \(T, 2\) float32 array, got \(2,\)"),
        (np.zeros((3, 4), np.float32), r"the sequence of a 2-d embedding is a \(T, 2\) .* got \(3, 4\)"),
        (np.zeros((0, 2), np.float32), r"got \(0, 2\)"),
        (np.zeros((1, 2)), "got .* float64"),
        (np.array([[0, np.inf]], np.float32), "the sequence holds NaN or Inf"),
    ],
)
def test_a_sequence_is_checked_too(sequence, message):
    with pytest.raises(ValueError, match=message):
        Embedding("a", np.zeros(2, np.float32), 1, sequence)


def test_a_stamp_follows_the_file_the_span_and_the_words(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    clip = Clip("a", str(path), transcript="hello")
    before = source_of(clip, "visual")
    assert before == source_of(clip, "audio")
    assert source_of(Clip("a", str(path), end_s=1.0), "visual") != before
    path.write_bytes(b"other")
    assert source_of(clip, "visual") != before
    assert source_of(clip, "text") != source_of(Clip("a", str(path), transcript="hullo"), "text")
    assert source_of(Clip("a", str(path)), "text") == "none"


def test_a_file_that_is_gone_keeps_the_stamp_of_its_embedding(tmp_path):
    clip = Clip("a", str(tmp_path / "gone.mp4"))
    assert sources_of([clip], "visual", [("a", "3:4")]) == {"a": "3:4"}
    assert sources_of([clip], "visual", [])["a"].startswith("unreadable")


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("clip_id", pa.array([["a"]]), "its column clip_id is not as it was written: list<"),
        ("source", pa.array([None], pa.string()), "its column source is not as it was written: string"),
        (
            "embedding",
            pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
            "its column embedding is not as it was written",
        ),
        ("embedding", pa.array([[1.0, None, 0.0]], pa.list_(pa.float32(), 3)), "its column embedding is not"),
        ("embedding", pa.array([[np.inf, 1.0, 0.0]], pa.list_(pa.float32(), 3)), "its column embedding is not"),
    ],
)
def test_a_part_that_holds_something_else_is_refused_by_name(store, name, column, message):
    path = store.write_part([embedding("a")], {"a": "1"})
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)
    with pytest.raises(PipelineError, match=f"cannot read .*part-.*{message}"):
        store.read()


def test_a_part_without_rows_holds_nothing(store):
    path = store.write_part([embedding("a")], {"a": "1"})
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert store.read() == {}


@pytest.mark.parametrize("recipe", [[], {"extractor": "x", "dim": "3", "weights": {}}, {**RECIPE, "weights": None}])
def test_a_recipe_of_another_form_is_refused_by_name(store, recipe):
    (store.folder / "recipe.json").write_text(json.dumps({"recipe": recipe, "requests": []}))
    with pytest.raises(PipelineError, match="cannot read .*recipe.json .recipe.*extract again"):
        EmbeddingStore.all(store.folder.parents[1], "visual")
