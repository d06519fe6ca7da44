"""Imports of tables: CSV, Parquet and Hugging Face datasets, by the libraries that write them."""

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_factory import IDS, PLANTED, TEXTS, VIEWS, column, rows_by_id

from pipeline.errors import PipelineError
from pipeline.ingest import guess_format, ingest
from pipeline.ingest.tables import read_parquet


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


def test_parquet_columns_of_single_numbers(tmp_path):
    frame().to_parquet(tmp_path / "wide.parquet")
    found = read_parquet(tmp_path / "wide.parquet")
    for name, array in VIEWS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
