"""Embeddings in an object store: the same stages, with `extract.store` a URL."""

import json

import numpy as np
import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from terminal import call_main

from extractors.base import Embedding
from pipeline.compact import compact
from pipeline.config import load_settings
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.features import exact_store
from pipeline.lock import only_writer
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of
from pipeline.rerun import _take_over
from pipeline.status import status
from pipeline.store import EmbeddingStore
from pipeline.view_files import read_views

OF_WORDS = (*SMALL_ENCODERS, "extract.visual=null", "extract.audio=null", "reduce.dim=2")


def test_a_corpus_is_embedded_into_it_resumed_compacted_and_reduced_from_it(tmp_path, capsys):
    root = write_folder_corpus(tmp_path / "clips", 6)
    (root / "clip_02.txt").unlink()

    def settings_of(name: str, *overrides: str):
        settings = load_settings(None, [*OF_WORDS, *overrides], corpus__root=root, workdir=tmp_path / name)
        prepare(settings)
        return settings

    here = settings_of("here")
    there = settings_of("there", f"extract.store=memory://{tmp_path.name}/bucket")
    for settings in (here, there):
        manifest, media = manifest_of(settings)
        assert extract(settings, manifest[:3], media) == 1
        assert extract(settings, manifest, media) == 1
        capsys.readouterr()
        assert extract(settings, manifest, media) == 1
        assert "extract: nothing to do" in capsys.readouterr().out
        store = exact_store(settings, "text")
        assert store is not None
        assert compact(store).parts_after == 1
        reduce(settings)
    assert not (there.work / "features").exists()
    np.testing.assert_array_equal(views_of(there).arrays["text"], views_of(here).arrays["text"])
    assert list(read_views(there.work / "reduced").clip_ids) == list(read_views(here.work / "reduced").clip_ids)
    assert status(there).values()["modalities"] == status(here).values()["modalities"]
    assert json.loads((there.work / "reduced/recipe.json").read_text())["settings"]["dim"] == 2


def test_a_place_that_cannot_be_reached_is_said(tmp_path):
    settings = load_settings(None, ["extract.store=nowhere://bucket"], workdir=tmp_path)
    with pytest.raises(PipelineError, match="nowhere://bucket: no access to nowhere:// .*; install what is missing"):
        exact_store(settings, "text")


def test_a_folder_that_two_workdirs_share_is_written_by_one_command_at_a_time(tmp_path, monkeypatch, capsys):
    root, shared = write_folder_corpus(tmp_path / "clips", 1), tmp_path / "shared"
    words = [
        word for one in (*OF_WORDS, f"extract.store={shared}", f"workdir={tmp_path / 'w'}") for word in ("--set", one)
    ]
    shared.mkdir()
    with only_writer(shared):
        said = call_main(monkeypatch, capsys, "extract", "--clips", root, *words)
        assert said.code == 2
        assert f"another command is at work in {shared}" in said.err
    assert call_main(monkeypatch, capsys, "extract", "--clips", root, *words).code == 0
    assert list(shared.glob("text/*/part-*.parquet"))


def test_a_rerun_takes_copies_and_leaves_the_store_as_it_is(tmp_path):
    settings = load_settings(
        None, [*OF_WORDS, f"extract.store=memory://{tmp_path.name}/of_a_run"], workdir=tmp_path / "work"
    )
    recipe = {"extractor": "text/x", "dim": 2, "weights": {}}
    store = EmbeddingStore.create(settings.features, "text", recipe, "request")
    for name in ("b", "a"):
        store.write_part([Embedding(name, np.ones(2, np.float32), 1)], {name: "s"})
    _take_over(settings, tmp_path / "own")
    (copy,) = [one for one, _ in EmbeddingStore.all(tmp_path / "own/features", "text")]
    assert (copy.fingerprint, copy.done()) == (store.fingerprint, [("b", "s"), ("a", "s")])
    copy.write_part([Embedding("c", np.ones(2, np.float32), 1)], {"c": "s"})
    assert len(store.done()) == 2
