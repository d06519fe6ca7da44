"""Places: a path is a path, a URL is an object store, and a store is the same in either."""

import numpy as np
import pytest

from extractors.base import Embedding
from pipeline.errors import PipelineError
from pipeline.failures import Failure
from pipeline.files import whole_file, write_atomic
from pipeline.storage import is_local, listed, location
from pipeline.store import EmbeddingStore

RECIPE = {"extractor": "visual/x", "dim": 3, "settings": {}, "weights": {"trained": True}}


@pytest.fixture(params=["folder", "file", "memory"])
def place(request, tmp_path):
    urls = {"folder": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}
    return location(urls[request.param])


def test_a_path_and_a_file_url_are_the_same_folder(tmp_path):
    assert location(str(tmp_path)) == location(f"file://{tmp_path}") == location(tmp_path) == tmp_path
    assert is_local(location(f"file://{tmp_path}"))
    assert not is_local(location("memory://x"))


@pytest.mark.parametrize(
    ("url", "message"), [("nowhere://x/y", "no access to nowhere://"), ("dropbox://x", "no access to dropbox://")]
)
def test_a_place_that_nothing_here_can_reach_is_said(url, message):
    with pytest.raises(PipelineError, match=f"{message} .*; install what is missing"):
        location(url)


def test_a_store_is_written_found_and_read(place):
    store = EmbeddingStore.create(place / "features", "visual", RECIPE, "request-1")
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    store.write_part([Embedding(f"c{n}", v, 1) for n, v in enumerate(vectors)], {f"c{n}": "s" for n in range(4)})
    store.write_part([Embedding("c0", vectors[3], 1)], {"c0": "newer"})
    failure = Failure("c9", "read", "undecodable", 'a "quoted", two\nline message', "s")
    store.failed.write([failure])
    store.add_made_with({"threads": 2})
    found = EmbeddingStore.find(place / "features", "visual", "request-1")
    assert found is not None
    assert found.recipe == RECIPE
    assert len(found.done()) == 5
    np.testing.assert_array_equal(found.read({"c0": "newer", "c1": "s"})["c0"], vectors[3])
    assert found.failed.read() == {"c9": failure}
    assert found.made_with() == [{"threads": 2}]
    found.failed.write([])
    assert found.failed.read() == {}


def test_a_torn_part_is_refused_by_name(place):
    store = EmbeddingStore.create(place, "visual", RECIPE, "r")
    path = store.write_part([Embedding("a", np.ones(3, np.float32), 1)], {"a": "s"})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PipelineError, match=f"cannot read .*{path.name}.*; delete this file and extract again"):
        store.read()


def test_an_unchanged_file_is_not_written_again(place):
    assert write_atomic(place / "a" / "x.json", "{}")
    assert not write_atomic(place / "a" / "x.json", "{}")
    assert write_atomic(place / "a" / "x.json", "[]")
    assert (place / "a" / "x.json").read_text() == "[]"


def test_a_file_is_whole_or_not_there(place):
    with whole_file(place / "a" / "x") as file:
        file.write(b"..cd")
        file.seek(0)
        file.write(b"ab")
        assert not (place / "a" / "x").exists()
    assert (place / "a" / "x").read_bytes() == b"abcd"
    with pytest.raises(ZeroDivisionError), whole_file(place / "a" / "x") as file:
        file.write(bytes(1 // 0))
    assert (place / "a" / "x").read_bytes() == b"abcd"
    assert [path.name for path in listed(place / "a", "*")] == ["x"]


def test_what_cannot_be_written_is_said(place, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.files._replace" if is_local(place) else "pipeline.files.put_bytes", full)
    with pytest.raises(PipelineError, match="cannot write .*x: No space left on device; free some space"):
        write_atomic(place / "x", "{}")


def test_files_are_listed_with_the_newest_last(place):
    for name in ("part-c", "part-a", "part-b", "other"):
        write_atomic(place / "listed" / name, name)
    assert [path.name for path in listed(place / "listed", "part-*")] == ["part-c", "part-a", "part-b"]
    assert listed(place / "nowhere", "part-*") == []
