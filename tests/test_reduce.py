"""The reduction: against an SVD written out by hand, with missing rows, saved and applied to new clips."""

import json
import shutil

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from extractors.base import Embedding
from pipeline import reduce as module
from pipeline.compact import compact
from pipeline.config import ReduceSettings, Settings
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import request_of
from pipeline.errors import PipelineError
from pipeline.features import exact_store
from pipeline.manifest import write_manifest
from pipeline.reduce import _common_dim, load_reduction, reduce
from pipeline.reduction import Moments, Reduction, fit_reduction
from pipeline.sources import source_of
from pipeline.store import EmbeddingStore
from pipeline.view_files import read_views

RNG = np.random.default_rng(0)
VIEW = (RNG.normal(size=(40, 12)) * np.linspace(1, 5, 12) + 3).astype(np.float32)


@pytest.mark.parametrize("standardize", [True, False])
def test_it_is_the_svd_of_the_centred_view(standardize):
    centred = VIEW.astype(np.float64) - VIEW.mean(axis=0, dtype=np.float64)
    if standardize:
        centred /= VIEW.astype(np.float64).std(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    fitted = fit_reduction(VIEW, 4, standardize=standardize)
    projected = fitted.apply(VIEW)
    expected = centred @ rows[:4].T
    signs = np.sign((projected * expected).sum(axis=0))  # a component's sign is arbitrary
    np.testing.assert_allclose(projected, expected * signs, atol=1e-4)
    assert fitted.explained == pytest.approx((singular[:4] ** 2).sum() / (singular**2).sum())


def test_missing_rows_change_nothing_and_stay_missing():
    holed = np.vstack([VIEW, np.full((3, 12), np.nan, dtype=np.float32)])
    whole, with_holes = (fit_reduction(v, 3, standardize=True) for v in (VIEW, holed))
    np.testing.assert_array_equal(whole.components, with_holes.components)
    projected = with_holes.apply(holed)
    assert np.isnan(projected[-3:]).all()
    assert np.isfinite(projected[:-3]).all()


def test_no_dims_keeps_every_feature():
    fitted = fit_reduction(VIEW, None, standardize=True)
    projected = fitted.apply(VIEW)
    assert projected.shape == VIEW.shape
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(projected.std(axis=0), 1, atol=1e-5)


def test_a_constant_feature_and_a_constant_view_stay_finite():
    constant = VIEW.copy()
    constant[:, 5] = 2.0
    assert np.isfinite(fit_reduction(constant, 3, standardize=True).apply(constant)).all()
    same = np.ones((10, 4), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        assert np.isfinite(fit_reduction(same, 2, standardize=True).apply(same)).all()


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_from_sums_in_blocks_it_is_scikit_learns_exact_pca_signs_and_all(standardize, shift):
    view = (RNG.normal(size=(5000, 30)) @ RNG.normal(size=(30, 30)) + shift).astype(np.float32)
    moments = Moments.of(np.array_split(view, 7), 30)
    fitted = moments.fit(5, standardize=standardize)
    scaler = StandardScaler(with_std=standardize).fit(view.astype(np.float64))
    pca = PCA(5, svd_solver="covariance_eigh").fit(scaler.transform(view.astype(np.float64)))
    np.testing.assert_allclose(moments.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(fitted.components, pca.components_, atol=1e-6)
    assert fitted.explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-9)
    if standardize:
        np.testing.assert_allclose(fitted.scale, scaler.scale_, rtol=1e-6)


def test_how_vectors_are_cut_into_blocks_changes_no_digit_that_is_kept(monkeypatch):
    whole = Moments.of([VIEW], 12)
    one_by_one = Moments.of(np.split(VIEW, 40), 12)
    monkeypatch.setattr("pipeline.reduction._BLOCK", 36)  # 3 rows
    in_threes = Moments.of([VIEW], 12)
    for other in (one_by_one, in_threes):
        assert other.n == whole.n
        np.testing.assert_allclose(other.scatter, whole.scatter, rtol=1e-12, atol=1e-10)


def test_a_feature_that_only_rounding_tells_from_a_constant_is_not_blown_up():
    view = np.full((1000, 2), 0.1, dtype=np.float32)
    view[:, 1] = RNG.normal(size=1000)
    moments = Moments.of(np.split(view, 10), 2)
    assert moments.variance()[0] == 0
    assert moments.fit(None, standardize=True).scale[0] == 1


CLIPS = [CorpusClip(f"clip {row}", f"{row}.mp4", transcript=f"word {row}") for row in range(50)]
MODALITIES = {"text": 12, "visual": 9, "audio": 20}
LACKING = {"text": {3, 17}, "visual": {3, 4}, "audio": {3, 49}}  # the clip in row 3 has nothing


@pytest.fixture
def extracted(tmp_path):
    """A workdir with embeddings in parts of 7 clips, in another order than the manifest's."""
    settings = Settings(workdir=tmp_path / "work", reduce={"dim": 5})
    write_manifest(settings.work / "manifest.jsonl", CLIPS)
    (settings.work / "corpus.json").write_text(json.dumps({"kind": "folder", "root": str(tmp_path)}))
    for clip in CLIPS:
        (tmp_path / clip.media).write_text(clip.media)
    arrays = {}
    for modality, dim in MODALITIES.items():
        arrays[modality] = view = RNG.normal(size=(len(CLIPS), dim)).astype(np.float32)
        view[list(LACKING[modality])] = np.nan
        section = getattr(settings.extract, modality)
        recipe = {"extractor": section.backbone, "weights": {}, "dim": dim}
        store = EmbeddingStore.create(settings.work / "features", modality, recipe, request_of(modality, section))
        rows = RNG.permutation([row for row in range(len(CLIPS)) if row not in LACKING[modality]])
        for chunk in np.array_split(rows, 7):
            clips = [module.to_clip(CLIPS[row], tmp_path) for row in chunk]
            stamps = {clip.clip_id: source_of(clip, modality) for clip in clips}
            # What was embedded from other words or another file before is not taken.
            store.write_part([Embedding(i, np.ones(dim, np.float32), 1) for i in stamps], dict.fromkeys(stamps, "old"))
            embeddings = [Embedding(clip.clip_id, view[row], 1) for clip, row in zip(clips, chunk, strict=True)]
            store.write_part(embeddings, stamps)
    return settings, arrays


def test_reduced_views_are_those_of_the_whole_arrays_in_the_manifests_order(extracted):
    settings, arrays = extracted
    reduce(settings)
    folder = settings.work / "reduced"
    kept = [row for row in range(len(CLIPS)) if row != 3]
    assert json.loads((folder / "clip_ids.json").read_text()) == [CLIPS[row].clip_id for row in kept]
    for modality, view in arrays.items():
        expected = fit_reduction(view, 5, standardize=True).apply(view[kept])
        np.testing.assert_allclose(np.load(folder / f"{modality}.npy"), expected, atol=1e-5)
        lacking = [kept.index(row) for row in LACKING[modality] - {3}]
        assert np.isnan(np.load(folder / f"{modality}.npy")[lacking]).all()


def test_its_files_are_those_that_numpy_and_json_write(extracted, tmp_path):
    reduce(extracted[0])
    folder = extracted[0].work / "reduced"
    np.save(tmp_path / "again.npy", np.load(folder / "text.npy"))
    assert (tmp_path / "again.npy").read_bytes() == (folder / "text.npy").read_bytes()
    text = (folder / "clip_ids.json").read_text()
    assert text == json.dumps(json.loads(text))


def test_fitted_on_some_clips_it_is_the_reduction_of_these_and_applied_to_all(extracted, capsys):
    settings, arrays = extracted
    some = settings.model_copy(update={"reduce": ReduceSettings(dim=5, fit_clips=20, seed=3)})
    reduce(some)
    said = capsys.readouterr().out
    kept = np.array([row for row in range(len(CLIPS)) if row != 3])
    drawn = kept[np.random.default_rng(3).choice(49, 20, replace=False, shuffle=False)]
    for modality, view in arrays.items():
        expected = fit_reduction(view[drawn], 5, standardize=True).apply(view[kept])
        np.testing.assert_allclose(np.load(settings.work / "reduced" / f"{modality}.npy"), expected, atol=1e-4)
        n_seen = len(set(drawn) - LACKING[modality])
        assert f"reduce: {modality}: {n_seen} clips" in said
    reduce(some)
    assert "reduce: nothing to do" in capsys.readouterr().out
    reduce(settings)
    assert "reduce: nothing to do" not in capsys.readouterr().out


def test_a_draw_that_hardly_sees_a_modality_is_refused(extracted):
    draws = {seed: np.random.default_rng(seed).choice(49, 2, replace=False, shuffle=False) for seed in range(99)}
    seed = next(seed for seed, rows in draws.items() if 16 in rows)  # the clip of row 17, which has no text
    settings = extracted[0].model_copy(update={"reduce": ReduceSettings(dim=None, fit_clips=2, seed=seed)})
    with pytest.raises(PipelineError, match="text: of the 2 clips that reduce.fit_clips draws 1 have it; raise reduce"):
        reduce(settings)


def test_after_compaction_it_is_the_same_to_the_bit(extracted):
    settings = extracted[0]
    folder = settings.work / "reduced"
    contents = []
    for _ in range(2):
        reduce(settings)
        contents.append({path.name: path.read_bytes() for path in folder.glob("*.[ns]*")})
        shutil.rmtree(folder)
        for modality in MODALITIES:
            compact(exact_store(settings, modality))
    assert contents[0] == contents[1]
    assert len(contents[0]) >= len(MODALITIES)


def test_compaction_is_no_reason_to_reduce_again_and_changed_words_are(extracted):
    settings, _ = extracted
    reduce(settings)
    before = {name: np.array(array) for name, array in read_views(settings.work / "reduced").arrays.items()}
    for modality in MODALITIES:
        for store, _ in EmbeddingStore.all(settings.work / "features", modality):
            assert compact(store).parts_after == 1
    assert module.is_reduced(settings)
    (settings.work / "reduced" / "recipe.json").unlink()
    reduce(settings)
    for name, array in read_views(settings.work / "reduced").arrays.items():
        np.testing.assert_allclose(array, before[name], atol=1e-5)
    changed = [*CLIPS[:-1], CorpusClip("clip 49", "49.mp4", transcript="other words")]
    write_manifest(settings.work / "manifest.jsonl", changed)
    assert not module.is_reduced(settings)


def test_a_file_that_is_gone_keeps_its_row_in_the_views(extracted, tmp_path):
    settings, _ = extracted
    reduce(settings)
    (tmp_path / "7.mp4").unlink()
    assert module.is_reduced(settings)


def test_a_modality_that_no_clip_has_is_said(extracted):
    settings, _ = extracted
    write_manifest(settings.work / "manifest.jsonl", [CLIPS[17], CLIPS[3]])  # neither has text
    with pytest.raises(PipelineError, match="no clip has any text embedding; extract it, or set extract.text=null"):
        reduce(settings)


def test_two_clips_with_one_id_are_refused(extracted):
    settings, _ = extracted
    path = settings.work / "manifest.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[0])
    with pytest.raises(PipelineError, match="two clips with the id 'clip 0'; ids must be unique: run prepare again"):
        reduce(settings)


def test_what_is_saved_projects_new_clips_alike(extracted):
    settings, arrays = extracted
    reduce(settings)
    loaded = load_reduction(settings.work / "reduced")["text"]
    one = arrays["text"][7:8]
    reduced = np.load(settings.work / "reduced" / "text.npy")
    np.testing.assert_allclose(loaded.apply(one)[0], reduced[6], atol=1e-5)  # the clip in row 3 is left out


def test_a_disk_that_refuses_leaves_the_earlier_view_and_no_recipe(extracted, monkeypatch):
    settings, _ = extracted
    reduce(settings)
    before = (settings.work / "reduced" / "text.npy").read_bytes()
    write_manifest(settings.work / "manifest.jsonl", CLIPS[:40])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.align._NpyRows.put", full)
    with pytest.raises(PipelineError, match="cannot write .*.npy: No space left on device; free some space"):
        reduce(settings)
    assert (settings.work / "reduced" / "text.npy").read_bytes() == before
    assert not (settings.work / "reduced" / "recipe.json").exists()
    assert not list((settings.work / "reduced").glob(".writing-*"))


def test_another_dim_is_refused():
    fitted = Reduction(np.zeros(3, np.float32), np.ones(3, np.float32), None, 1.0)
    with pytest.raises(ValueError, match="expected 3-d embeddings, as it was fitted on, got 4-d"):
        fitted.apply(np.zeros((1, 4), np.float32))


def test_dims_are_common_to_the_modalities_and_bounded_by_the_clips(capsys):
    sizes = {"text": (5, 9), "audio": (5, 3)}
    assert _common_dim(sizes, 60) == 3
    assert "3 dims instead of 60" in capsys.readouterr().out
    assert _common_dim(sizes, 2) == 2
    assert _common_dim(sizes, None) is None
    assert _common_dim({"text": (3, 9)}, 60) == 2


def test_one_clip_is_too_few():
    with pytest.raises(PipelineError, match="one clip is too few for a PCA"):
        _common_dim({"text": (1, 9)}, 60)


def test_a_reduction_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="no whole reduction"):
        load_reduction(tmp_path)
