"""Views: rows aligned by clip, read from each layout, and refused with a reason."""

import hashlib
import json

import numpy as np
import pytest

from extractors.base import Embedding
from pipeline import view_files
from pipeline import views as module
from pipeline.align import read_stores
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.store import EmbeddingStore
from pipeline.view_files import iter_clip_ids, read_views
from pipeline.views import Views
from tib import scratch


def vector(*values):
    return np.array(values, dtype=np.float32)


def stores_of(folder, **vectors):
    """Stores with clip_id -> vector in each; their rows' stamp is "s"."""
    found = {}
    for modality, by_clip in vectors.items():
        dim = len(next(iter(by_clip.values()), [0]))
        recipe = {"extractor": modality, "weights": {}, "dim": dim}
        found[modality] = EmbeddingStore.create(folder, modality, recipe, "r")
        if by_clip:
            embeddings = [Embedding(clip_id, row, 1) for clip_id, row in by_clip.items()]
            found[modality].write_part(embeddings, dict.fromkeys(by_clip, "s"))
    return found


def stamped(*clip_ids):
    return [(clip_id, ["s", "s"]) for clip_id in clip_ids]


def test_rows_follow_the_manifest_and_a_missing_modality_is_a_row_of_nan(tmp_path):
    stores = stores_of(tmp_path, text={"a": vector(1, 2), "b": vector(3, 4)}, audio={"c": vector(5)})
    views = read_stores(stores, stamped("b", "a", "c", "d"))
    assert list(views.clip_ids) == ["b", "a", "c"]  # d has nothing
    np.testing.assert_array_equal(views.arrays["text"], [[3, 4], [1, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(views.arrays["audio"], [[np.nan], [np.nan], [5]])
    assert views.complete().tolist() == [False, False, False]


def test_complete_clips_can_be_taken(tmp_path):
    stores = stores_of(tmp_path, text={"a": vector(1), "b": vector(2)}, audio={"b": vector(3)})
    views = read_stores(stores, stamped("a", "b"))
    whole = views.take(views.complete())
    assert whole.clip_ids == ["b"]
    assert whole.arrays["text"].tolist() == [[2.0]]


def test_a_modality_without_embeddings_is_said(tmp_path):
    with pytest.raises(PipelineError, match="no clip has any audio embedding"):
        read_stores(stores_of(tmp_path, text={"a": vector(1)}, audio={}), stamped("a"))


def test_views_that_no_disk_has_room_for_are_said(tmp_path, monkeypatch):
    stores = stores_of(tmp_path, text={"a": vector(1)}, audio={"a": vector(1)})
    monkeypatch.setattr(scratch, "IN_MEMORY", 1)
    expected = read_stores(stores, stamped("a")).arrays["audio"].tolist()
    assert expected == [[1.0]]  # in a mapped file
    monkeypatch.setattr("os.posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(PipelineError, match=r"text: no room for 0\.0 GB in .* \(No space left on device\); free some"):
        read_stores(stores, stamped("a"))


def test_the_published_layout_is_read(tmp_path):
    for name in ("text", "video", "audio"):
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 2)))
    np.save(tmp_path / "labels.npy", np.array([-3, 0, 1, 2]))
    views = read_views(tmp_path)
    assert list(views.arrays) == ["text", "visual", "audio"]
    assert list(views.clip_ids) == ["0", "1", "2", "3"]
    assert all(array.dtype == np.float32 for array in views.arrays.values())


def test_clip_ids_beside_the_arrays_are_used(tmp_path):
    np.save(tmp_path / "text.npy", np.zeros((2, 2)))
    (tmp_path / "clip_ids.json").write_text(json.dumps(["x", "y"]))
    assert list(read_views(tmp_path).clip_ids) == ["x", "y"]
    (tmp_path / "clip_ids.json").write_text(json.dumps(["x"]))
    with pytest.raises(PipelineError, match="expected a list of 2 ids"):
        read_views(tmp_path)


def test_the_store_is_read(tmp_path):
    for modality, ids in (("text", ["a", "b"]), ("audio", ["b"])):
        store = EmbeddingStore.create(
            tmp_path / "features", modality, {"extractor": modality, "weights": {}, "dim": 1}, "r"
        )
        store.write_part([Embedding(i, vector(7), 1) for i in ids], dict.fromkeys(ids, "s"))
    for folder in (tmp_path, tmp_path / "features"):
        views = read_views(folder)
        assert list(views.clip_ids) == ["a", "b"]
        assert np.isnan(views.arrays["audio"][0]).all()


def test_two_sets_of_embeddings_are_not_mixed(tmp_path):
    for dim in (1, 2):
        EmbeddingStore.create(tmp_path, "text", {"extractor": "text", "weights": {}, "dim": dim}, "r")
    with pytest.raises(PipelineError, match="expected one set of embeddings, found: .*, .*; use --config"):
        read_views(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected text.npy, video.npy"),
        ({"labels": np.zeros(3)}, "no views here"),
        ({"text": np.zeros((3, 2)), "label": np.zeros((3, 1))}, "looks like labels, which no view may hold"),
        ({"text": np.zeros((3, 2)), "audio": np.zeros((2, 2))}, r"different lengths \(audio 2, text 3\)"),
        ({"text": np.zeros(3)}, r"expected a 2-D array \(clips, features\), got shape \(3,\)"),
        ({"text": np.array([["a"]])}, "as an array of numbers"),
        ({"text": np.array([[{}]], dtype=object)}, "as an array of numbers"),
        ({"text": np.array([[1.0], [np.inf]])}, "row 1 holds Inf"),
        ({"video": np.zeros((1, 1)), "visual": np.zeros((1, 1))}, "two files for 'visual'"),
    ],
)
def test_what_is_no_view_is_refused(tmp_path, arrays, message):
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(PipelineError, match=message):
        read_views(tmp_path)


def test_a_torn_array_and_a_missing_folder_are_refused(tmp_path):
    (tmp_path / "text.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(PipelineError, match="cannot read .*text.npy as an array"):
        read_views(tmp_path)
    with pytest.raises(PipelineError, match="no such folder"):
        read_views(tmp_path / "nowhere")


def test_arrays_of_a_folder_are_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "text.npy", np.ones((4, 2), np.float32))
    np.save(tmp_path / "audio.npy", np.ones((4, 2)))  # of another type: converted, so in memory
    arrays = read_views(tmp_path).arrays
    assert isinstance(arrays["text"], np.memmap)
    assert not arrays["text"].flags.writeable
    assert arrays["audio"].dtype == np.float32
    np.save(tmp_path / "text.npy", np.ones((0, 2), np.float32))
    (tmp_path / "audio.npy").unlink()
    assert read_views(tmp_path).arrays["text"].shape == (0, 2)


def test_what_goes_block_by_block_is_the_same_as_at_once(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    array[[3, 20]] = np.nan
    np.save(tmp_path / "text.npy", array)
    ids = [f'clip "{n}" ü\n' for n in range(25)]
    (tmp_path / "clip_ids.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(module, "ROWS", 7)
    views = read_views(tmp_path)
    digest = hashlib.sha256(json.dumps([ids, ["text"]]).encode() + array.tobytes()).hexdigest()
    assert views.digest() == Views(ids, {"text": array}).digest() == digest
    assert np.flatnonzero(~views.complete()).tolist() == [3, 20]
    assert list(iter_clip_ids(tmp_path)) == ids
    assert Views([], {}).digest() == hashlib.sha256(b"[[], []]").hexdigest()


def test_an_infinite_value_is_named_by_its_row_whatever_the_width(tmp_path, monkeypatch):
    array = np.ones((25, 3), np.float32)
    array[20, 1] = np.inf
    np.save(tmp_path / "text.npy", array)
    monkeypatch.setattr(module, "NUMBERS", 6)  # two rows at a time
    with pytest.raises(PipelineError, match="row 20 holds Inf"):
        read_views(tmp_path)


def test_all_clips_are_taken_without_a_copy():
    views = Views(["a"], {"text": np.ones((1, 2), np.float32)})
    assert views.take(np.array([True])) is views


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], "clip id 'a' is there twice; ids must be unique"),
        ([1, "1", 2], "clip id '1' is there twice"),
        ([1, None, 2], "expected text or a number for an id, got None"),
        ([True, "a", "b"], "expected text or a number for an id, got True"),
        ([["a"], "b", "c"], r"expected text or a number for an id, got \['a'\]"),
    ],
)
def test_ids_that_name_no_clip_or_two_are_refused(tmp_path, ids, message):
    np.save(tmp_path / "text.npy", np.ones((3, 2), np.float32))
    (tmp_path / "clip_ids.json").write_text(json.dumps(ids))
    with pytest.raises(PipelineError, match=message):
        read_views(tmp_path)


def test_ids_with_the_same_hash_are_no_twins(tmp_path, monkeypatch):
    np.save(tmp_path / "text.npy", np.ones((3, 2), np.float32))
    (tmp_path / "clip_ids.json").write_text('["a", "b", "c"]')
    monkeypatch.setattr(view_files, "hash", lambda text: 7, raising=False)
    assert list(read_views(tmp_path).clip_ids) == ["a", "b", "c"]


def test_views_keep_their_ids_though_another_file_take_its_place(tmp_path):
    np.save(tmp_path / "text.npy", np.ones((2, 2), np.float32))
    (tmp_path / "clip_ids.json").write_text('["ä", "b"]', encoding="utf-8")
    views = read_views(tmp_path)
    before = views.digest()
    write_atomic(tmp_path / "clip_ids.json", '["y", "z"]')
    assert list(views.clip_ids) == ["ä", "b"]
    assert views.digest() == before


@pytest.mark.parametrize(
    "text",
    [
        *("", '["a", "b', '{"a": "b"}', '["a", 3]', "[3]", '[null, "a", "b"]', '["a" "b"]', '"a", "b"]', '["a",]'),
        *('["a"], "b"]', '[["a", "b"]', "[,]"),
    ],
)
def test_ids_that_are_no_list_of_strings_are_refused(tmp_path, text):
    (tmp_path / "clip_ids.json").write_text(text)
    with pytest.raises(PipelineError, match=r"cannot read .*clip_ids.json: expected a list of strings"):
        list(iter_clip_ids(tmp_path))
