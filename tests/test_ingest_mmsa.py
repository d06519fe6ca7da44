"""Imports of pickles: as MMSA has them, pooled over their true lengths, and nothing run that is in them."""

import builtins
import pickle
from pathlib import Path

import numpy as np
import pytest
from ingest_factory import column, rows_by_id

from pipeline.errors import PipelineError
from pipeline.ingest import ingest


def mmsa_part(n: int, start: int = 0, **changes) -> dict:
    """As MMSA's own unaligned pickles: padded to a common length, BERT's output behind its mask too."""
    rng = np.random.default_rng(n)
    part = {
        "id": [f"v$_${start + i}" for i in range(n)],
        "raw_text": np.array([f"words {start + i}" for i in range(n)]),
        "text": rng.normal(size=(n, 4, 2)).astype(np.float32),
        "text_bert": np.stack([np.array([[1] * 4, [1, 1, 0, 0], [0] * 4])] * n),
        "vision": rng.normal(size=(n, 3, 2)),
        "audio": rng.normal(size=(n, 5, 3)),
        "vision_lengths": [2] * n,
        "audio_lengths": [7] * n,  # more than the padding left: MMSA-FET cuts
        "regression_labels": np.array([2.4, -0.6, 0.0, 1.0, 3.0][:n], np.float32),
        "annotations": ["Positive", "Negative", "Neutral", "Positive", "Positive"][:n],
        "classification_labels": np.array([2, 0, 1, 2, 2][:n]),
    }
    return part | changes


def dump(path: Path, content, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_mmsa_is_pooled_over_true_lengths(tmp_path, protocol):
    parts = {"train": mmsa_part(5), "valid": mmsa_part(2, 5), "test": mmsa_part(1, 7)}
    record = ingest(dump(tmp_path / "unaligned_50.pkl", parts, protocol), None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    for part in parts.values():
        for row, clip_id in enumerate(part["id"]):
            views = found[clip_id]
            np.testing.assert_allclose(views["text"], part["text"][row][:2].mean(axis=0), rtol=1e-6)
            np.testing.assert_allclose(views["visual"], part["vision"][row][:2].mean(axis=0), rtol=1e-6)
            np.testing.assert_allclose(views["audio"], part["audio"][row].mean(axis=0), rtol=1e-6)
    assert list(column(tmp_path / "out" / "labels.csv").values())[:5] == ["2", "-1", "0", "1", "3"]
    assert column(tmp_path / "out" / "splits.csv")["v$_$7"] == "test"
    assert column(tmp_path / "out" / "transcripts.csv")["v$_$0"] == "words 0"
    assert "labels: real numbers, made classes by the rule round7; for another give --labels FILE" in record["notes"]


def test_aligned_pickles_are_pooled_over_what_is_not_padding(tmp_path):
    """As MulT's: zeros on either side, ids of several parts, labels (N, 1, 1), -inf of COVAREP."""
    audio = np.zeros((2, 4, 2))
    audio[0, 2:] = [[1, -np.inf], [3, 5]]
    audio[1, :1] = [[7, 8]]
    ids = np.array([["vid", "0.5", "1.5"], ["vid", "2.0", "3.0"]])
    part = {"audio": audio, "vision": np.zeros((2, 4, 1)), "text": np.ones((2, 4, 1)), "id": ids}
    part["labels"] = np.array([[[0.4]], [[-1.0]]])
    record = ingest(dump(tmp_path / "mosi.pkl", {"train": part}), None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert found["vid_0.5_1.5"]["audio"].tolist() == [2, 5]
    assert found["vid_2.0_3.0"]["audio"].tolist() == [7, 8]
    assert "visual: no clip has it; left out" in record["notes"]
    assert column(tmp_path / "out" / "labels.csv") == {"vid_0.5_1.5": "positive", "vid_2.0_3.0": "negative"}


def test_lists_of_arrays_and_parts_without_ids_or_usable_labels(tmp_path):
    audio = [np.ones((2, 3)), np.arange(9.0).reshape(3, 3)]
    ingest(dump(tmp_path / "x.pkl", {"audio": audio}), None, tmp_path / "out")
    ingest(dump(tmp_path / "x.pkl", {"audio": audio, "labels": np.zeros((2, 4, 2))}), None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert found["clip_1"]["audio"].tolist() == [3, 4, 5]
    assert not (tmp_path / "out" / "labels.csv").exists()
    assert not (tmp_path / "out" / "splits.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dict of train, valid and test, got list"),
        ({"a": 1, 7: 2}, "expected train, valid and test, each with text, audio and vision; it holds a, 7"),
        ({}, "it holds nothing"),
        ({"train": {"x": 1}}, "train: expected text, audio or vision, got x"),
        ({"train": mmsa_part(2, id=["a"])}, r"train: lengths differ \(id 1, text 2"),
        ({"train": mmsa_part(2, id=["a", "a"])}, "clip id 'a' is there twice"),
        ({"train": mmsa_part(2), "test": mmsa_part(2)}, r"clip id 'v\$_\$0' is there twice"),
        ({"train": mmsa_part(2, id=[1.5, None])}, r"train: id: expected text, got '1.5' \(float\)"),
        ({"train": mmsa_part(2, id=7)}, "train: id: expected a list of text, got int"),
        ({"train": mmsa_part(2, raw_text=["a"])}, "lengths differ .*raw_text 1"),
        ({"train": mmsa_part(2, regression_labels=np.zeros(3))}, "lengths differ .*labels 3"),
        ({"train": mmsa_part(2, vision=np.zeros(2))}, r"vision: expected \(clips, features\) or \(clips, steps, feat"),
        ({"train": mmsa_part(2, vision=np.array([["a"], ["b"]]))}, "vision: expected numbers, got text"),
        ({"train": mmsa_part(2, vision_lengths=[1])}, "vision: expected 2 lengths, whole numbers"),
        ({"train": mmsa_part(2, audio=[np.ones((2, 3)), np.ones((2, 4))])}, r"audio: expected arrays of \(steps, feat"),
        (
            {"train": mmsa_part(2), "test": mmsa_part(1, 5, audio=np.ones((1, 5, 9)))},
            r"audio is not alike in all parts \(train 3-d, test 9-d\)",
        ),
    ],
)
def test_pickles_that_do_not_fit_are_told(tmp_path, content, message):
    with pytest.raises(PipelineError, match=message):
        ingest(dump(tmp_path / "x.pkl", content), None, tmp_path / "out")


def test_a_hostile_pickle_is_refused_where_it_comes_in(tmp_path):
    class Evil:
        def __reduce__(self):
            return builtins.exec, (f"open({str(tmp_path / 'pwned')!r}, 'w')",)

    part = mmsa_part(2) | {"annotations": [Evil(), Evil()]}
    with pytest.raises(PipelineError, match=r"x.pkl holds builtins.exec; of a pickle only NumPy arrays"):
        ingest(dump(tmp_path / "x.pkl", {"train": part}), None, tmp_path / "out")
    assert not (tmp_path / "pwned").exists()
