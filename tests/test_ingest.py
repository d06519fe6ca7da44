"""Imports: what other libraries wrote comes in to the bit, and every kind of broken input is told by name."""

import builtins
import csv
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import datasets
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.align import read_views
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of
from pipeline.export import export
from pipeline.ingest import FORMATS, guess_format, ingest
from pipeline.ingest.content import modality_of, view_name
from pipeline.ingest.tables import read_parquet

RNG = np.random.default_rng(0)
N = 9
IDS = [f"video{i // 3}_{i % 3}" for i in range(N)]
VIEWS = {name: RNG.normal(size=(N, dim)).astype(np.float32) for name, dim in (("text", 5), ("visual", 4), ("audio", 3))}
TEXTS = [
    'She said "no", twice',
    "two\nlines\r\n\rthree",
    "</script>",
    "=1+1; née",
    "\u2028",
    "007",
    " padded ",
    "a,b",
    "x",
]
PLANTED = [str(i % 3) for i in range(N)]


def write_views(folder: Path, *, missing=True) -> Path:
    """The clips above as the project's own cached features."""
    folder.mkdir()
    for name, array in VIEWS.items():
        rows = array.copy()
        if missing and name == "audio":
            rows[2] = np.nan
        np.save(folder / f"{name}.npy", rows)
    (folder / "clip_ids.json").write_text(json.dumps(IDS))
    for column, values in (("label", PLANTED), ("transcript", TEXTS), ("split", ["train", "valid", "test"] * 3)):
        with (folder / f"{column}s.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("clip_id", column), *zip(IDS, values, strict=True)])
    return folder


def rows_by_id(folder: Path) -> dict[str, dict[str, list[float]]]:
    """clip_id -> view -> row, read by NumPy and json alone."""
    ids = json.loads((folder / "clip_ids.json").read_text())
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return {clip_id: {name: arrays[name][row] for name in arrays} for row, clip_id in enumerate(ids)}


def column(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return dict(list(csv.reader(file))[1:])


# --- there and back ---


@pytest.mark.parametrize("format_", ["npy", "npz", "csv", "parquet", "mmsa", "hf"])
@pytest.mark.parametrize("told", [True, False])
def test_what_is_exported_comes_back_to_the_bit(tmp_path, format_, told):
    views = write_views(tmp_path / "views")
    export(Settings(views=views), format_, tmp_path / "exported")
    record = ingest(tmp_path / "exported", format_ if told else None, tmp_path / "back")
    assert record["format"] == format_
    expected, found = read_views(views), read_views(tmp_path / "back")
    assert set(found.clip_ids) == set(IDS)
    for clip_id in IDS:
        row, back = expected.clip_ids.index(clip_id), found.clip_ids.index(clip_id)
        for name in VIEWS:
            np.testing.assert_array_equal(found.arrays[name][back], expected.arrays[name][row])
    assert labels_of(Settings(views=tmp_path / "back"), found) == dict(zip(IDS, PLANTED, strict=True))
    spoken = {i: t for i, t in zip(IDS, TEXTS, strict=True) if format_ != "mmsa" or t.strip()}
    assert column(tmp_path / "back" / "transcripts.csv") == spoken
    assert column(tmp_path / "back" / "splits.csv")["video0_1"] == "valid"
    again = ingest(tmp_path / "back", None, tmp_path / "again")
    assert again["views"] == record["views"]


@pytest.mark.slow
def test_what_is_imported_can_be_trained_on(tmp_path):
    """The command line on an import of an export: planted clusters in three views."""
    centres = RNG.normal(size=(2, 6)) * 4
    labels = np.arange(40) % 2
    source = tmp_path / "source"
    source.mkdir()
    for name in ("text", "video", "audio"):
        np.save(source / f"{name}.npy", centres[labels] + RNG.normal(size=(40, 6)))
    np.save(source / "labels.npy", labels)
    export(Settings(views=source), "mmsa", tmp_path / "exported")
    ingest(tmp_path / "exported", None, tmp_path / "views")
    command = [sys.executable, "-m", "pipeline", "train", "--views", str(tmp_path / "views"), "--clusters", "2"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), "--set", "train.restarts=2", "--set", "train.epochs=2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_scored"] == 40
    assert metrics["scores"]["acc"] == 1.0


# --- arrays ---


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
    assert not list((tmp_path / "out").iterdir())


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


# --- tables ---


def frame() -> pd.DataFrame:
    columns = {f"{name}_{i}": array[:, i] for name, array in VIEWS.items() for i in range(array.shape[1])}
    return pd.DataFrame({"clip_id": IDS, "label": PLANTED, **columns})


def test_a_csv_of_pandas_with_empty_cells_and_columns_of_no_use(tmp_path):
    table = frame()
    table.loc[4, "text_2"] = np.nan
    table.loc[5, [c for c in table if c.startswith("audio")]] = np.nan
    table["speaker"], table["age"] = "x", 30
    table = table[[*reversed(table.columns)]]  # features are ordered by their numbers
    table.to_csv(tmp_path / "mine.csv", index=False)
    record = ingest(tmp_path / "mine.csv", None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    for row, clip_id in enumerate(IDS):
        np.testing.assert_array_equal(found[clip_id]["visual"], VIEWS["visual"][row])
    assert np.isnan(found[IDS[5]]["audio"]).all()
    others = np.delete(VIEWS["text"][:, 2].astype(np.float64), 4)
    assert found[IDS[4]]["text"][2] == np.float32(others.mean())
    assert "mine: no features, left out: age, speaker" in record["notes"]
    assert column(tmp_path / "out" / "labels.csv") == dict(zip(IDS, PLANTED, strict=True))


def test_a_csv_a_modality_is_matched_by_id(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    pd.DataFrame({"clip_id": ["007", "b"], "f_0": [1, 2], "energy": [3.5, 4]}).to_csv(source / "audio.csv", index=False)
    pd.DataFrame({"clip_id": ["b", "c"], "x1": [5, 6], "x0": [7, 8]}).to_csv(source / "video.csv", index=False)
    (source / "labels.csv").write_text("clip_id,label\nb,1\n")
    ingest(source, None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert list(found) == ["007", "b", "c"]
    assert found["b"]["audio"].tolist() == [2, 4]
    assert found["b"]["visual"].tolist() == [5, 7]
    assert np.isnan(found["007"]["visual"]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"as a table \(it is empty\)"),
        ("clip_id,text_0\na,1\na,2\n", "clip id 'a' is there twice"),
        ("clip_id,text_0\na,1\nb,oops\n", r"as a table \(In CSV column #1: .*oops"),
        ("clip_id,text_0\na,1,2\n", r"as a table \(.*Expected 2 columns, got 3"),
        ("clip_id,text_0,text_0\na,1,2\n", "the header repeats text_0"),
        ("clip_id,words\na,b\n", "no features in it"),
        ("clip_id,text_0\n,1\n", "clip_id: expected text, got 'None'|clip id '' is empty"),
        ("clip_id,text_0\na,nan\n", "no features in it"),
        ("clip_id,label,text_0\na,1\xff,1\n", "UTF-?8"),
        ('clip_id,text_0\n"a,1\n', "as a table|no features"),
    ],
)
def test_tables_that_do_not_fit_are_told(tmp_path, text, message):
    (tmp_path / "x.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(PipelineError, match=message):
        ingest(tmp_path / "x.csv", None, tmp_path / "out")


def test_files_that_cannot_be_matched_are_told(tmp_path):
    (tmp_path / "audio.csv").write_text("x0\n1\n2\n")
    (tmp_path / "text.csv").write_text("x0\n1\n2\n3\n")
    with pytest.raises(PipelineError, match="2 to 3 rows and no ids to match them by; add clip_id"):
        ingest(tmp_path, "csv", tmp_path / "out")
    (tmp_path / "audio.csv").write_text("clip_id,text_0\na,1\n")
    (tmp_path / "text.csv").write_text("clip_id,text_0\na,1\n")
    with pytest.raises(PipelineError, match="two files hold text; keep one of them there"):
        ingest(tmp_path, "csv", tmp_path / "out")


def test_parquet_of_pandas_with_lists_and_nulls(tmp_path):
    table = pd.DataFrame({"id": [1, 2, 3], "vision": [[1.0, 2.0], None, [5.0, np.inf]], "label": ["x", None, "y"]})
    table["text"] = ["a", None, "c"]
    table.to_parquet(tmp_path / "x.parquet")
    ingest(tmp_path / "x.parquet", None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    assert found["1"]["visual"].tolist() == [1, 2]
    assert found["3"]["visual"].tolist() == [5, 2]  # Inf became the mean of the others
    assert "2" not in found
    assert column(tmp_path / "out" / "labels.csv") == {"1": "x", "3": "y"}
    assert column(tmp_path / "out" / "transcripts.csv") == {"1": "a", "3": "c"}


def test_lists_of_different_lengths_are_told(tmp_path):
    pq.write_table(pa.table({"clip_id": ["a", "b"], "text": [[1.0], [1.0, 2.0]]}), tmp_path / "x.parquet")
    with pytest.raises(PipelineError, match="text: lists of 1 to 2 numbers; expected the same in every row"):
        ingest(tmp_path / "x.parquet", None, tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_a_torn_parquet_file_is_told(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(PipelineError, match=r"cannot read .*x.parquet as Parquet \(.*\); get it again"):
        ingest(tmp_path / "x.parquet", "parquet", tmp_path / "out")


def hf_dataset(split: slice) -> datasets.Dataset:
    rows = {
        "clip_id": IDS[split],
        "text": VIEWS["text"][split].tolist(),
        "label": [int(k) for k in PLANTED[split]],
        "sentence": TEXTS[split],
    }
    kinds = {
        "clip_id": datasets.Value("string"),
        "text": datasets.Sequence(datasets.Value("float32"), length=5),
        "label": datasets.ClassLabel(names=["sad", "glad", "mad"]),
        "sentence": datasets.Value("string"),
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


@pytest.mark.parametrize("saved", ["save_to_disk", "to_parquet"])
def test_what_datasets_saves_comes_in(tmp_path, saved):
    source = tmp_path / "source"
    parts = datasets.DatasetDict({"train": hf_dataset(slice(0, 6)), "validation": hf_dataset(slice(6, 9))})
    if saved == "save_to_disk":
        parts.save_to_disk(source)
    else:
        for split, part in parts.items():
            (source / "data").mkdir(parents=True, exist_ok=True)
            part.to_parquet(source / "data" / f"{split}-00000-of-00001.parquet")
    assert guess_format(source) == "hf"
    ingest(source, None, tmp_path / "out")
    found = rows_by_id(tmp_path / "out")
    for row, clip_id in enumerate(IDS):
        np.testing.assert_array_equal(found[clip_id]["text"], VIEWS["text"][row])
    names = ["sad", "glad", "mad"]
    assert column(tmp_path / "out" / "labels.csv") == {i: names[int(k)] for i, k in zip(IDS, PLANTED, strict=True)}
    assert set(column(tmp_path / "out" / "splits.csv").values()) == {"train", "valid"}
    assert column(tmp_path / "out" / "transcripts.csv") == dict(zip(IDS, TEXTS, strict=True))


def test_dataset_files_with_different_columns_or_torn_are_told(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"clip_id": ["a"], "text": [[1.0]]}), tmp_path / "data" / "train.parquet")
    pq.write_table(pa.table({"clip_id": ["b"], "audio": [[1.0]]}), tmp_path / "data" / "test.parquet")
    with pytest.raises(PipelineError, match="its files have different columns"):
        ingest(tmp_path, None, tmp_path / "out")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "data.arrow").write_bytes(b"ARROW?")
    with pytest.raises(PipelineError, match=r"cannot read .*data.arrow as Arrow"):
        ingest(torn, None, tmp_path / "out")
    with pytest.raises(PipelineError, match="is a file; of a Hugging Face dataset give the folder"):
        ingest(tmp_path / "data" / "test.parquet", "hf", tmp_path / "out")


# --- mmsa ---


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


# --- csd ---


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


# --- what and where ---


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("glove_vectors", "text"),
        ("CMU_MOSI_TimestampedWordVectors", "text"),
        ("FACET_4.2", "visual"),
        ("OpenFace_2", "visual"),
        ("VisualFacet42", "visual"),
        ("COVAREP", "audio"),
        ("OpenSmile-emobase2010", "audio"),
        ("depth", None),
    ],
)
def test_modalities_by_the_names_the_field_uses(name, modality):
    assert modality_of(name) == modality


def test_a_views_name_is_fit_for_a_file():
    assert view_name("Video") == "visual"
    assert view_name("../../etc/passwd") == "etc_passwd"
    assert view_name("///") == "view"


def test_formats_are_told_by_content_before_the_name(tmp_path):
    path = tmp_path / "features.bin"
    np.savez(tmp_path / "x.npz", text=np.ones((2, 2)))
    path.write_bytes((tmp_path / "x.npz").read_bytes())
    assert guess_format(path) == "npz"
    path.write_bytes(pickle.dumps({}))
    assert guess_format(path) == "mmsa"
    path.write_bytes(b"?")
    with pytest.raises(
        PipelineError, match=r"features.bin: not known by its name or content; give --format npy \| npz"
    ):
        guess_format(path)


@pytest.mark.parametrize(
    ("names", "format_", "message"),
    [
        ((), None, "holds no file of features; give one file, or --format npy"),
        (("a.npy", "b.csd"), None, "holds files of npy, csd; give one file"),
        (("a.pkl", "b.pkl"), None, "expected one .pkl file, found a.pkl, b.pkl; name the file itself"),
        (("a.npy",), "npz", "expected one .npz file, found none"),
        ((), "csb", "--format: unknown format 'csb'; did you mean 'csv'"),
    ],
)
def test_a_source_that_is_not_clear_is_told(tmp_path, names, format_, message):
    source = tmp_path / "source"
    source.mkdir()
    for name in names:
        (source / name).write_bytes(b"x")
    with pytest.raises(PipelineError, match=message):
        ingest(source, format_, tmp_path / "out")


def test_no_source_and_a_folder_of_something_else(tmp_path):
    with pytest.raises(PipelineError, match="nowhere: no such file or folder; give the features to import"):
        ingest(tmp_path / "nowhere", None, tmp_path / "out")
    source = write_views(tmp_path / "views")
    with pytest.raises(PipelineError, match="holds other files and no import.json"):
        ingest(source, None, source)
    assert (source / "text.npy").exists()


def test_what_does_not_fit_in_memory_is_told(tmp_path, monkeypatch):
    def full(_):
        raise MemoryError

    monkeypatch.setitem(FORMATS, "npy", full)
    with pytest.raises(PipelineError, match="does not fit in memory; import it in parts"):
        ingest(write_views(tmp_path / "views"), "npy", tmp_path / "out")


def test_the_record_says_what_came_from_where(tmp_path):
    record = ingest(write_views(tmp_path / "views"), None, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "import.json").read_text()) == record
    assert (record["source"], record["clips"], record["labels"]) == ("views", N, N)
    assert record["views"] == {"audio": [N, 3], "text": [N, 5], "visual": [N, 4]}


def test_parquet_columns_of_single_numbers(tmp_path):
    frame().to_parquet(tmp_path / "wide.parquet")
    found = read_parquet(tmp_path / "wide.parquet")
    for name, array in VIEWS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
