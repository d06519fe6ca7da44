"""Imports of CMU-MultimodalSDK files, written here with h5py as the SDK lays them out."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from ingest_factory import column, rows_by_id

from pipeline.errors import PipelineError
from pipeline.ingest import ingest


def write_csd(path: Path, name: str, entries: dict[str, tuple[object, object]]) -> Path:
    """As the SDK's write_CSD lays it out."""
    with h5py.File(path, "w") as file:
        root = file.create_group(name)
        data = root.create_group("data")
        for key, (features, intervals) in entries.items():
            group = data.create_group(key)
            group.create_dataset("features", data=features)
            group.create_dataset("intervals", data=intervals)
        metadata = root.create_group("metadata")
        metadata.create_dataset("root name", data=[json.dumps(name)], dtype=h5py.special_dtype(vlen=str))
    return path


def spans(n: int, step: float = 1.0) -> np.ndarray:
    return np.stack([np.arange(n), np.arange(1, n + 1)], axis=1) * step


@pytest.fixture
def mosi(tmp_path) -> Path:
    """Two videos: COVAREP every 0.5 s with -inf, FACET every second, words, and three labelled segments."""
    folder = tmp_path / "mosi"
    folder.mkdir()
    covarep = np.arange(16, dtype=np.float64).reshape(8, 2)
    covarep[1, 0] = -np.inf
    facet = np.arange(8, dtype=np.float32).reshape(4, 2) + 100
    write_csd(
        folder / "CMU_MOSI_COVAREP.csd", "COVAREP", {"vidA": (covarep, spans(8, 0.5)), "vidB": (covarep, spans(8, 0.5))}
    )
    write_csd(folder / "CMU_MOSI_Visual_Facet_42.csd", "FACET_4.2", {"vidA": (facet, spans(4))})
    words = np.array([[b"so"], [b"sp"], [b"it"], [b"goes"]])
    write_csd(folder / "CMU_MOSI_TimestampedWords.csd", "words", {"vidA": (words, spans(4)), "vidB": (words, spans(4))})
    phones = np.array([[b"S"], [b"OW"]])
    write_csd(folder / "CMU_MOSI_TimestampedPhones.csd", "phones", {"vidA": (phones, spans(2))})
    write_csd(
        folder / "CMU_MOSI_Opinion_Labels.csd",
        "Opinion Segment Labels",
        {
            "vidA": (np.array([[2.4], [-0.6]]), np.array([[0.0, 2.0], [2.0, 4.0]])),
            "vidB": (np.array([[0.0], [1.0]]), np.array([[1.0, 3.0], [3.0, 3.0]])),  # the second has no length
        },
    )
    return folder


def test_a_folder_of_csd_is_cut_at_the_labels_intervals(mosi, tmp_path, capsys):
    record = ingest(mosi, None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert list(found) == ["vidA[0]", "vidA[1]", "vidB[0]"]
    assert found["vidA[0]"]["audio"].tolist() == [
        np.float32(10 / 3),
        4,
    ]  # rows 0..3, -inf left out of the first feature
    assert found["vidA[1]"]["audio"].tolist() == [11, 12]  # rows 4..7
    assert found["vidB[0]"]["audio"].tolist() == [7, 8]  # rows 2..5
    assert found["vidA[1]"]["visual"].tolist() == [105, 106]
    assert np.isnan(found["vidB[0]"]["visual"]).all()
    assert column(tmp_path / "out" / "labels.csv") == {"vidA[0]": "2", "vidA[1]": "-1", "vidB[0]": "0"}
    assert column(tmp_path / "out" / "transcripts.csv") == {"vidA[0]": "so", "vidA[1]": "it goes", "vidB[0]": "it"}
    assert record["missing"] == {"audio": 0, "visual": 1}
    said = capsys.readouterr().out
    assert "import: CMU_MOSI_COVAREP.csd (COVAREP): taken for the view audio" in said
    assert "import: CMU_MOSI_Visual_Facet_42.csd (FACET_4.2): taken for the view visual" in said
    assert "import: phones: text that is no words; left out" in said
    assert "import: clips: whole videos, cut at the labels' intervals" in said


def test_aligned_csd_keep_their_keys(tmp_path):
    steps = np.array([[1.0, np.nan], [3.0, 4.0]])
    source = tmp_path / "source"
    source.mkdir()
    write_csd(source / "glove.csd", "glove_vectors", {"v[0]": (steps, spans(2)), "v[1]": (steps + 1, spans(2))})
    write_csd(source / "labels.csd", "All Labels", {"v[0]": (np.array([[1.5, 9, 9]]), spans(1))})
    write_csd(source / "face.csd", "OpenFace_2", {"v[1]": (steps, spans(2))})
    write_csd(source / "facet.csd", "FACET 4.2", {"v[1]": (steps, spans(2))})
    record = ingest(source, None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert found["v[0]"]["text"].tolist() == [2, 4]
    assert found["v[1]"]["text"].tolist() == [3, 5]
    assert set(found["v[1]"]) == {"text", "visual", "FACET_4_2"}
    assert column(tmp_path / "out" / "labels.csv") == {"v[0]": "2"}
    assert "labels: the first of 3 columns" in record["notes"]


def test_one_csd_is_one_view(tmp_path):
    path = write_csd(tmp_path / "x.csd", "COVAREP", {"a": (np.ones((2, 3)), spans(2))})
    with h5py.File(path, "a") as file:
        empty = file["COVAREP/data"].create_group("b")
        empty.create_dataset("features", data=np.empty((0, 3)))
        empty.create_dataset("intervals", data=np.empty((0, 2)))
    ingest(path, None, tmp_path / "out")
    assert list(rows_by_id(tmp_path / "out")) == ["a"]


def test_csd_without_h5py_says_how_to_get_it(mosi, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(PipelineError, match="needs the package h5py: .venv/bin/uv pip install h5py"):
        ingest(mosi, None, tmp_path / "out")


def no_group(file):
    file.create_group("COVAREP").create_dataset("data", data=[1])


def no_intervals(file):
    file.create_group("COVAREP/data/v").create_dataset("features", data=np.ones((2, 2)))


def disagreeing(file):
    group = file.create_group("COVAREP/data/v")
    group.create_dataset("features", data=np.ones((2, 2)))
    group.create_dataset("intervals", data=np.ones((3, 2)))


def other_dims(file):
    for key, dim in (("v", 2), ("w", 3)):
        group = file.create_group(f"COVAREP/data/{key}")
        group.create_dataset("features", data=np.ones((1, dim)))
        group.create_dataset("intervals", data=np.ones((1, 2)))


def huge(file):
    group = file.create_group("COVAREP/data/v")
    group.create_dataset("features", shape=(10**12, 74), dtype="f8", chunks=(100, 74))
    group.create_dataset("intervals", shape=(10**12, 2), dtype="f8", chunks=(100, 2))


def elsewhere(file):
    secret = Path(file.filename).with_name("secret.bin")
    secret.write_bytes(b"12345678")
    group = file.create_group("COVAREP/data/v")
    group.create_dataset("features", shape=(1, 1), dtype="f8", external=[(str(secret), 0, 8)])
    group.create_dataset("intervals", data=np.ones((1, 2)))


def linked(file):
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as secret:
        secret["x"] = np.ones((1, 1))
    group = file.create_group("COVAREP/data/v")
    group["features"] = h5py.ExternalLink(str(other), "x")
    group.create_dataset("intervals", data=np.ones((1, 2)))


def linked_root(file):
    file["COVAREP"] = h5py.ExternalLink("other.h5", "x")


def words_alone(file):
    group = file.create_group("words/data/v")
    group.create_dataset("features", data=np.array([[b"so"]]))
    group.create_dataset("intervals", data=np.ones((1, 2)))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, "no computational sequence of the CMU-MultimodalSDK: expected .* got an empty file"),
        (lambda file: file.create_group("results"), "expected <name>/data/<video>/features, got results"),
        (no_group, "no computational sequence of the CMU-MultimodalSDK"),
        (no_intervals, r"cannot read 'v' \(.*intervals.*\); get the file again"),
        (disagreeing, r"'v' has 2 features and intervals of shape \(3, 2\); expected a start and an end for each"),
        (other_dims, "features of 2 to 3 dims; expected the same for every key"),
        (huge, r"cannot read 'v' \(features claims 592000 GB\)"),
        (elsewhere, "features lies in another file, which is not read"),
        (linked, "features lies in another file, which is not read"),
        (linked_root, "COVAREP lies in another file, which is not read"),
        (words_alone, "no features in it, which would be"),
    ],
)
def test_hdf5_that_is_no_csd_is_told(tmp_path, write, message):
    with h5py.File(tmp_path / "x.csd", "w") as file:
        write(file)
    with pytest.raises(PipelineError, match=message):
        ingest(tmp_path / "x.csd", None, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 8, 100, 900])
def test_torn_hdf5_is_told(tmp_path, keep):
    path = write_csd(tmp_path / "x.csd", "COVAREP", {"a": (np.ones((2, 3)), spans(2))})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PipelineError, match=r"cannot read .*x.csd as HDF5 \(.*\); get it again"):
        ingest(path, "csd", tmp_path / "out")


def test_two_files_of_one_sequence_are_told(tmp_path):
    for name in ("a", "b", "c"):
        write_csd(tmp_path / f"{name}.csd", "COVAREP", {"v": (np.ones((1, 2)), spans(1))})
    with pytest.raises(PipelineError, match="c.csd: a second file of 'COVAREP'; keep one of them there"):
        ingest(tmp_path, "csd", tmp_path / "out")
