"""Every export is read back by another library, and nothing is overwritten that is not an earlier export."""

import json

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from export_factory import DIMS, N_CLIPS, UNLABELLED, cached, check_rows, label_of

from pipeline.config import Settings
from pipeline.corpora.tables import mark_cell
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of
from pipeline.export import FORMATS, content, export, tables
from pipeline.folders import whole_folder
from pipeline.prepare import prepare
from pipeline.store import EmbeddingStore
from pipeline.view_files import read_views

pytest_plugins = ("export_fixtures",)


def test_npy_is_the_published_layout(settings, vectors, transcripts, assignments, tmp_path):
    record = export(settings, "npy", tmp_path)
    ids = json.loads((tmp_path / "clip_ids.json").read_text())
    names = {"text": "text", "visual": "video", "audio": "audio"}
    check_rows(ids, {m: np.load(tmp_path / f"{name}.npy") for m, name in names.items()}, vectors)
    assert np.load(tmp_path / "labels.npy").tolist() == [label_of(clip_id) for clip_id in ids]
    beside = pd.read_csv(tmp_path / "transcripts.csv").set_index("clip_id")["transcript"]
    assert beside.to_dict() == {clip_id: mark_cell(text) for clip_id, text in transcripts.items()}
    clusters = pd.read_csv(tmp_path / "assignments.csv").set_index("clip_id")
    pd.testing.assert_frame_equal(clusters, assignments[["cluster", "confidence"]])
    assert record["missing"] == {"visual": 0, "text": 0, "audio": 1}
    views = read_views(tmp_path)
    check_rows(views.clip_ids, views.arrays, vectors)
    truth = labels_of(Settings(views=tmp_path), views)
    assert truth == {clip_id: label_of(clip_id) for clip_id in ids if clip_id != UNLABELLED}


def test_labels_that_all_clips_have_are_integers(tmp_path):
    views = cached(tmp_path / "views", labels=["3", "-1", "0"])
    export(Settings(views=views), "npy", tmp_path / "out")
    labels = np.load(tmp_path / "out" / "labels.npy")
    assert labels.dtype.kind == "i"
    assert labels.tolist() == [3, -1, 0]


def test_npz_is_read_by_numpy_without_pickles(settings, vectors, assignments, tmp_path):
    export(settings, "npz", tmp_path)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        ids = file["clip_ids"].tolist()
        check_rows(ids, {"text": file["text"], "visual": file["video"], "audio": file["audio"]}, vectors)
        assert file["labels"].tolist() == [label_of(clip_id) for clip_id in ids]
        assert file["cluster"].tolist() == assignments.loc[ids, "cluster"].tolist()
        np.testing.assert_allclose(file["confidence"], assignments.loc[ids, "confidence"], atol=1e-6)


def test_csv_is_read_by_pandas(settings, vectors, transcripts, assignments, tmp_path):
    export(settings, "csv", tmp_path)
    frame = pd.read_csv(
        tmp_path / "features.csv", dtype={"label": str}, keep_default_na=False, na_values={"cluster": [""]}
    ).set_index("clip_id")
    assert frame.columns[:4].tolist() == ["label", "cluster", "confidence", "transcript"]
    assert frame["label"].to_dict() == {clip_id: label_of(clip_id) for clip_id in transcripts}
    assert frame["transcript"].to_dict() == {clip_id: mark_cell(text) for clip_id, text in transcripts.items()}
    assert frame["cluster"].tolist() == assignments.loc[frame.index, "cluster"].tolist()
    arrays = {}
    for modality, dim in DIMS.items():
        cells = frame[[f"{modality}_{i}" for i in range(dim)]].replace("", "nan")
        arrays[modality] = cells.to_numpy().astype(str).astype(np.float32)
    check_rows(frame.index, arrays, vectors)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_parquet_is_read_by_pandas_and_polars(settings, vectors, transcripts, assignments, tmp_path, library):
    export(settings, "parquet", tmp_path)
    path = tmp_path / "features.parquet"
    rows = pd.read_parquet(path).to_dict("records") if library == "pandas" else pl.read_parquet(path).to_dicts()
    ids = [row["clip_id"] for row in rows]
    arrays = {}
    for modality, dim in DIMS.items():
        values = [np.full(dim, np.nan) if row[modality] is None else row[modality] for row in rows]
        arrays[modality] = np.array(values, dtype=np.float32)
    check_rows(ids, arrays, vectors)
    for row in rows:
        label = row["label"] if isinstance(row["label"], str) else ""  # pandas' NaN, polars' None
        assert (label, row["transcript"]) == (label_of(row["clip_id"]), transcripts[row["clip_id"]])
        assert row["cluster"] == assignments.loc[row["clip_id"], "cluster"]


def test_hf_is_read_by_datasets(settings, vectors, transcripts, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    export(settings, "hf", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = list(loaded["train"])
    ids = [row["clip_id"] for row in rows]
    arrays = {
        m: np.array([[np.nan] * dim if row[m] is None else row[m] for row in rows], dtype=np.float32)
        for m, dim in DIMS.items()
    }
    check_rows(ids, arrays, vectors)
    assert {row["clip_id"]: row["transcript"] for row in rows} == transcripts
    assert {row["clip_id"]: row["label"] or "" for row in rows} == {clip_id: label_of(clip_id) for clip_id in ids}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`audio` has RANDOM weights" in card
    assert yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"}
    ]


def test_hf_has_the_corpus_own_splits(tmp_path):
    views = cached(tmp_path / "views", splits=["test", "train", "valid"])
    export(Settings(views=views), "hf", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows["clip_id"] for split, rows in loaded.items()} == {
        "train": ["v_1"],
        "validation": ["v_2"],
        "test": ["v_0"],
    }


@pytest.mark.parametrize("format_", ["csv", "parquet", "hf", "npy", "npz"])
def test_what_is_written_so_many_clips_at_a_time_is_the_same(settings, tmp_path, monkeypatch, format_):
    whole = export(settings, format_, tmp_path / "whole")
    monkeypatch.setattr(tables, "ROWS", 2)
    monkeypatch.setattr("pipeline.views.ROWS", 2)
    monkeypatch.setattr("tib.scratch.IN_MEMORY", 1)
    export(settings, format_, tmp_path / "pieces")
    for name in whole["files"]:
        one, other = (tmp_path / folder / name for folder in ("whole", "pieces"))
        if name.endswith(".parquet"):
            assert pq.read_table(one).equals(pq.read_table(other)), name
        elif name.endswith(".npz"):
            arrays = [dict(np.load(path)) for path in (one, other)]
            for key, array in arrays[0].items():
                np.testing.assert_array_equal(array, arrays[1][key])
        else:
            assert one.read_bytes() == other.read_bytes(), name


# --- where it goes, and what is told of it ---


def test_the_recipe_says_how_the_features_were_made(settings, tmp_path):
    record = export(settings, "csv", tmp_path)
    assert json.loads((tmp_path / "export.json").read_text()) == record
    assert record["encoders"]["visual"]["extractor"] == "visual/efficientnet_lite0"
    assert record["untrained_encoders"] == ["audio"]
    assert record["files"] == ["features.csv"]
    assert {"labels": N_CLIPS - 1, "transcripts": N_CLIPS, "assignments": N_CLIPS}.items() <= record.items()
    assert str(settings.work) not in json.dumps(record)


def test_reduced_views_and_a_workdir_given_as_views(settings, vectors, tmp_path):
    export(settings, "npy", tmp_path / "reduced", reduced=True)
    expected = read_views(settings.work / "reduced")
    found = read_views(tmp_path / "reduced")
    assert (list(found.clip_ids), found.digest()) == (list(expected.clip_ids), expected.digest())
    as_views = Settings(views=settings.work, out=settings.results)
    export(as_views, "npy", tmp_path / "again", reduced=True)
    assert read_views(tmp_path / "again").digest() == expected.digest()
    record = export(as_views, "npy", tmp_path / "features")
    views = read_views(tmp_path / "features")
    check_rows(views.clip_ids, views.arrays, vectors)
    assert (record["transcripts"], record["assignments"]) == (N_CLIPS, N_CLIPS)
    with pytest.raises(PipelineError, match="holds no reduced views of its own; leave --reduced out"):
        export(Settings(views=tmp_path / "features"), "npy", tmp_path / "no", reduced=True)


def test_a_run_on_other_views_gives_no_clusters(settings, tmp_path, capsys):
    other = settings.model_copy(update={"out": settings.results, "views": cached(tmp_path / "views")})
    assert export(other, "npy", tmp_path / "out")["assignments"] == 0
    assert "holds a run on other views than these; its clusters are left out" in capsys.readouterr().out
    without = settings.model_copy(update={"workdir": tmp_path, "out": settings.results})
    assert content._assignments(without) == {}


def test_a_broken_run_is_told(settings, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"views_digest": "x"}')
    (run / "assignments.csv").write_text("clip_id,cluster\na,b\n")
    with pytest.raises(PipelineError, match="cannot read the run in .*; run `train` again"):
        export(settings.model_copy(update={"out": run}), "npy", tmp_path / "out")


def test_features_of_other_settings_are_told(settings, tmp_path, capsys):
    """One set of embeddings is taken, and said; none of several is."""
    encoder = settings.extract.text.model_copy(update={"pooling": "cls"})
    alone = settings.extract.model_copy(update={"text": encoder, "visual": None})
    asked = settings.model_copy(update={"extract": alone})
    export(asked, "npy", tmp_path / "out")
    assert "export: text: made with other settings or versions" in capsys.readouterr().out
    copied = asked.model_copy(update={"workdir": tmp_path / "work"})
    prepare(copied)
    with pytest.raises(PipelineError, match="no embeddings in .*features; run `extract` first, with the same config"):
        export(copied, "npy", tmp_path / "none")
    assert "export: audio: not extracted; going on without it" in capsys.readouterr().out
    for dim in (1, 2):
        EmbeddingStore.create(
            copied.work / "features", "text", {"extractor": "text/bert", "weights": {}, "dim": dim}, "x"
        )
    message = r"no text embeddings of these settings in .*, which holds \w{12} \(text/bert\), \w{12} \(text/bert\)"
    with pytest.raises(PipelineError, match=message):
        export(copied, "npy", tmp_path / "none")


def test_an_unknown_format_and_names_that_formats_need(tmp_path):
    with pytest.raises(PipelineError, match="--format: unknown format 'parket'; did you mean 'parquet'"):
        export(Settings(), "parket", tmp_path / "out")
    views = cached(tmp_path / "views")
    np.save(views / "cluster.npy", np.zeros((3, 2)))
    with pytest.raises(PipelineError, match="a view is called 'cluster', which every format needs"):
        export(Settings(views=views), "npz", tmp_path / "out")


def test_only_an_earlier_export_is_replaced(tmp_path):
    settings, out = Settings(views=cached(tmp_path / "views")), tmp_path / "out"
    export(settings, "hf", out)
    (out / "notes.txt").write_text("mine")
    for format_ in FORMATS:
        record = export(settings, format_, out)
        files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert files == {*record["files"], "export.json", "notes.txt"}
    (out / "video.npy").write_text("mine too")
    with pytest.raises(PipelineError, match="holds video.npy, which is not of export.json; move it"):
        export(settings, "npy", out)
    assert (out / "video.npy").read_text() == "mine too"
    assert json.loads((out / "export.json").read_text())["format"] == record["format"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("thesis.tex", "mine", "holds other files and no export.json; give a new or an empty folder"),
        ("export.json", "{", "cannot read .*export.json .*; delete the folder, or give another --out"),
        ("export.json", '{"files": ["../thesis.tex"]}', "it names files outside its folder"),
        ("export.json", '{"files": ["/etc/passwd"]}', "it names files outside its folder"),
        ("export.json", '{"files": [3]}', "it names files outside its folder"),
        ("export.json", "[]", "cannot read .*export.json"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path, name, text, message):
    settings, out = Settings(views=cached(tmp_path / "views")), tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(PipelineError, match=message):
        export(settings, "npy", out)
    assert (out / name).read_text() == text
    assert (tmp_path / "thesis.tex").exists()


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PipelineError, match="out is a file; give a folder"):
        export(Settings(views=cached(tmp_path / "views")), "npy", tmp_path / "out")


def test_an_export_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(PipelineError, match="no manifest"):
        export(Settings(workdir=tmp_path / "none"), "npy", tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match="no manifest"):
        export(Settings(workdir=tmp_path / "none"), "npy", tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_export_that_breaks_leaves_the_earlier_one_whole(tmp_path):
    out = tmp_path / "out"
    export(Settings(views=cached(tmp_path / "views")), "npy", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RuntimeError), whole_folder(out, "export.json") as (folder, _):  # noqa: PT012
        (folder / "text.npy").write_text("half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    killed = out / ".writing-folder"
    killed.mkdir()
    (killed / "half.npy").write_text("half")
    export(Settings(views=tmp_path / "views"), "csv", out)
    assert {path.name for path in out.iterdir()} == {"export.json", "features.csv"}


@pytest.mark.parametrize(
    "text", ["clip,transcript\na,b\n", "clip_id,transcript\na\n", 'clip_id,transcript\na,b\na,"c"\n']
)
def test_a_broken_file_beside_the_features_is_told(tmp_path, text):
    views = cached(tmp_path / "views")
    (views / "transcripts.csv").write_text(text)
    with pytest.raises(PipelineError, match=r"cannot read .*transcripts.csv \(.*\); correct it, or delete it"):
        export(Settings(views=views), "npy", tmp_path / "out")
