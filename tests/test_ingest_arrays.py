"""Imports of arrays: .npy and .npz that NumPy wrote, and every way in which they can be broken."""

import zipfile

import numpy as np
import pytest
from ingest_factory import VIEWS, N, column, rows_by_id

from pipeline.errors import PipelineError
from pipeline.ingest import ingest


def test_npz_of_sequences_is_pooled_over_each_clips_own_steps(tmp_path):
    steps = np.zeros((2, 3, 2), np.float32)
    steps[0, :2] = [[1, 2], [3, 6]]
    steps[1] = [[1, 1], [2, 2], [6, 0]]
    path = tmp_path / "features.npz"
    np.savez(path, vision=steps, audio=steps, audio_lengths=np.array([1, 2]), id=np.array(["a", "b"]), y=[[3], [1]])
    record = ingest(path, None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert found["a"]["visual"].tolist() == [2, 4]
    assert found["b"]["visual"].tolist() == [3, 1]
    assert found["a"]["audio"].tolist() == [1, 2]
    assert found["b"]["audio"].tolist() == [1.5, 1.5]
    assert column(tmp_path / "out" / "labels.csv") == {"a": "3", "b": "1"}
    assert "vision: sequences of up to 3 steps, by their mean" in record["notes"]


def test_what_is_known_of_the_clips_comes_from_the_npz_too(tmp_path):
    known = {
        "ids": np.array([b"a", "é".encode()]),
        "raw_text": ["x", "y"],
        "split": ["dev", "?"],
        "label": ["2.5", "-1"],
    }
    np.savez(tmp_path / "x.npz", text=np.ones((2, 2)), **known)
    record = ingest(tmp_path / "x.npz", None, tmp_path / "out")
    assert column(tmp_path / "out" / "transcripts.csv") == {"a": "x", "é": "y"}
    assert column(tmp_path / "out" / "splits.csv") == {"a": "valid"}
    assert column(tmp_path / "out" / "labels.csv") == {"a": "2", "é": "-1"}  # half to even, as round7 says
    assert any("rule round7" in note for note in record["notes"])


def test_one_npy_is_one_view_with_row_numbers(tmp_path, capsys):
    np.save(tmp_path / "text.npy", VIEWS["text"].astype(np.float64))
    np.save(tmp_path / "audio.npy", VIEWS["audio"])
    ingest(tmp_path / "text.npy", None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert list(found) == [str(i) for i in range(N)]
    assert list(found["0"]) == ["text"]
    np.testing.assert_array_equal(found["3"]["text"], VIEWS["text"][3])
    assert "no ids of the clips, so they are their row numbers" in capsys.readouterr().out


def test_values_that_are_no_numbers_become_their_features_mean_and_are_counted(tmp_path):
    text = np.array([[1, -np.inf], [3, 4], [np.nan, 8], [np.nan, np.nan], [1e300, 0]])
    np.savez(tmp_path / "x.npz", text=text, other=np.ones((5, 1)), clip_ids=list("abcde"))
    record = ingest(tmp_path / "x.npz", None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert [found[i]["text"].tolist() for i in "abce"] == [[1, 4], [3, 4], [2, 8], [2, 0]]
    assert np.isnan(found["d"]["text"]).all()
    assert "text: 3 values were NaN or Inf and are the mean of their feature now" in record["notes"]
    assert record["missing"] == {"other": 0, "text": 1}


def test_clips_and_views_with_nothing_are_left_out_and_told(tmp_path):
    text = np.array([[1.0], [np.nan], [2.0]])
    np.savez(tmp_path / "x.npz", text=text, audio=np.full((3, 2), np.nan), odd=np.ones(7), clip_ids=list("abc"))
    record = ingest(tmp_path / "x.npz", None, tmp_path / "out")
    assert list(rows_by_id(tmp_path / "out")) == ["a", "c"]
    assert record["notes"] == [
        "odd: shape (7,), no (clips, features); left out",
        "audio: no clip has it; left out",
        "1 clips have no features at all and are left out",
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"text": np.ones((3, 2)), "audio": np.ones((4, 2))}, r"lengths differ \(audio 4, text 3, ids 4\)"),
        ({"text": np.ones((3, 2)), "ids": ["a", "a", "b"]}, "clip id 'a' is there twice; every clip needs an id"),
        ({"text": np.ones((2, 2)), "ids": ["a", ""]}, "clip id '' is empty"),
        ({"text": np.ones((2, 2)), "ids": [1.5, 2.5]}, r"ids: expected text, got '1.5' \(float64\)"),
        (
            {"text": np.ones((2, 2)), "labels": ["a", "b", "c"]},
            r"labels: expected 2 labels, one a clip, got shape \(3,\)",
        ),
        ({"text": np.ones((2, 2)), "transcripts": ["a"]}, "transcripts: expected 2 entries, one a clip, got 1"),
        ({"text": np.array([["a"], ["b"]])}, "text: expected numbers, got text"),
        ({"text": np.ones((2, 2), complex)}, "text: expected numbers, got dtype complex128"),
        ({"text": np.ones((2, 2), object)}, r"cannot read .*x.npz \(Object arrays cannot be loaded.*numpy.savez"),
        ({"labels": np.ones(3)}, "no features in it; expected arrays of numbers, one row a clip"),
        ({"text": np.empty((0, 3))}, "no features in it"),
        (
            {"text": np.ones((2, 3, 2)), "text_lengths": [1, -1]},
            r"text: expected 2 lengths, whole numbers, got \[ 1 -1\]",
        ),
        ({"text": np.ones((2, 3, 2)), "text_lengths": [1.5, 1]}, "text: expected 2 lengths, whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_told(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(PipelineError, match=message):
        ingest(tmp_path / "x.npz", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def huge_header(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\x93NUMPY\x01\x00",
        huge_header("(10**15, 4)"),
        huge_header("(1000000000000000, 4)"),
        huge_header("(-1, 4)"),
        b"",
    ],
    ids=["cut", "an expression", "huge", "negative", "empty"],
)
def test_torn_and_absurd_npy_files_are_told(tmp_path, data):
    (tmp_path / "text.npy").write_bytes(data)
    with pytest.raises(PipelineError, match=r"cannot read .*text.npy \(.*\); save it again with numpy.save"):
        ingest(tmp_path / "text.npy", "npy", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("text.npy", data)
    with pytest.raises(PipelineError, match=r"cannot read .*x.npz|x.npz does not fit in memory|no features in it"):
        ingest(tmp_path / "x.npz", None, tmp_path / "out")


def test_a_file_that_is_no_zip_is_told(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(PipelineError, match=r"cannot read .*x.npz \(File is not a zip file\)"):
        ingest(tmp_path / "x.npz", None, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "a JSON list of the clips' ids"), ('{"a": 1}', "got dict"), ("[null]", "expected text, got 'None'")],
)
def test_broken_ids_beside_the_arrays_are_told(tmp_path, text, message):
    np.save(tmp_path / "text.npy", np.ones((1, 2)))
    (tmp_path / "clip_ids.json").write_text(text)
    with pytest.raises(PipelineError, match=message):
        ingest(tmp_path, "npy", tmp_path / "out")
