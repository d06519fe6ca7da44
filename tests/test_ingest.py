"""Imports: what was exported comes back to the bit and can be trained on; which format it is, and what is told."""

import json
import pickle

import numpy as np
import pytest
from ingest_factory import IDS, PLANTED, RNG, TEXTS, VIEWS, N, column, write_views
from terminal import call_main

from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of
from pipeline.export import export
from pipeline.ingest import FORMATS, guess_format, ingest
from pipeline.ingest.content import modality_of, view_name
from pipeline.view_files import read_views


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
        row, back = list(expected.clip_ids).index(clip_id), list(found.clip_ids).index(clip_id)
        for name in VIEWS:
            np.testing.assert_array_equal(found.arrays[name][back], expected.arrays[name][row])
    assert labels_of(Settings(views=tmp_path / "back"), found) == dict(zip(IDS, PLANTED, strict=True))
    spoken = {i: t for i, t in zip(IDS, TEXTS, strict=True) if format_ != "mmsa" or t.strip()}
    assert column(tmp_path / "back" / "transcripts.csv") == spoken
    assert column(tmp_path / "back" / "splits.csv")["video0_1"] == "valid"
    again = ingest(tmp_path / "back", None, tmp_path / "again")
    assert again["views"] == record["views"]


@pytest.mark.slow
def test_what_is_imported_can_be_trained_on(tmp_path, monkeypatch, capsys):
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
    words = ("train", "--views", tmp_path / "views", "--clusters", 2, "--out", tmp_path / "run")
    said = call_main(monkeypatch, capsys, *words, "--set", "train.restarts=2", "--set", "train.epochs=2")
    assert said.code == 0, said.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_scored"] == 40
    assert metrics["scores"]["acc"] == 1.0


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
