"""The reduction: against an SVD written out by hand, with missing rows, saved and applied to new clips."""

import numpy as np
import pytest

from pipeline.align import Views
from pipeline.errors import PipelineError
from pipeline.reduce import Reduction, _common_dim, _write, fit_reduction, load_reduction

RNG = np.random.default_rng(0)
VIEW = (RNG.normal(size=(40, 12)) * np.linspace(1, 5, 12) + 3).astype(np.float32)


@pytest.mark.parametrize("standardize", [True, False])
def test_it_is_the_svd_of_the_centred_view(standardize):
    centred = VIEW.astype(np.float64) - VIEW.mean(axis=0, dtype=np.float64)
    if standardize:
        centred /= VIEW.astype(np.float64).std(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    fitted = fit_reduction(VIEW, 4, standardize=standardize, seed=0)
    projected = fitted.apply(VIEW)
    expected = centred @ rows[:4].T
    signs = np.sign((projected * expected).sum(axis=0))  # a component's sign is arbitrary
    np.testing.assert_allclose(projected, expected * signs, atol=1e-4)
    assert fitted.explained == pytest.approx((singular[:4] ** 2).sum() / (singular**2).sum())


def test_missing_rows_change_nothing_and_stay_missing():
    holed = np.vstack([VIEW, np.full((3, 12), np.nan, dtype=np.float32)])
    whole, with_holes = (fit_reduction(v, 3, standardize=True, seed=0) for v in (VIEW, holed))
    np.testing.assert_array_equal(whole.components, with_holes.components)
    projected = with_holes.apply(holed)
    assert np.isnan(projected[-3:]).all()
    assert np.isfinite(projected[:-3]).all()


def test_no_dims_keeps_every_feature():
    fitted = fit_reduction(VIEW, None, standardize=True, seed=0)
    projected = fitted.apply(VIEW)
    assert projected.shape == VIEW.shape
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(projected.std(axis=0), 1, atol=1e-5)


def test_a_constant_feature_and_a_constant_view_stay_finite():
    constant = VIEW.copy()
    constant[:, 5] = 2.0
    assert np.isfinite(fit_reduction(constant, 3, standardize=True, seed=0).apply(constant)).all()
    same = np.ones((10, 4), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        assert np.isfinite(fit_reduction(same, 2, standardize=True, seed=0).apply(same)).all()


def test_what_is_saved_projects_new_clips_alike(tmp_path):
    fitted = {"text": fit_reduction(VIEW, 3, standardize=True, seed=0)}
    views = Views([str(i) for i in range(40)], {"text": fitted["text"].apply(VIEW)})
    _write(tmp_path, views, fitted, {"inputs": "x", "explained": {"text": fitted["text"].explained}})
    loaded = load_reduction(tmp_path)["text"]
    one = VIEW[7:8]
    np.testing.assert_allclose(loaded.apply(one), fitted["text"].apply(one), rtol=1e-6)
    np.testing.assert_allclose(loaded.apply(one)[0], views.arrays["text"][7], atol=1e-5)


def test_another_dim_is_refused():
    fitted = Reduction(np.zeros(3, np.float32), np.ones(3, np.float32), None, 1.0)
    with pytest.raises(ValueError, match="expected 3-d embeddings, as it was fitted on, got 4-d"):
        fitted.apply(np.zeros((1, 4), np.float32))


def test_dims_are_common_to_the_modalities_and_bounded_by_the_clips(capsys):
    views = Views(["a"] * 5, {"text": np.zeros((5, 9), np.float32), "audio": np.zeros((5, 3), np.float32)})
    assert _common_dim(views, 60) == 3
    assert "3 dims instead of 60" in capsys.readouterr().out
    assert _common_dim(views, 2) == 2
    assert _common_dim(views, None) is None


def test_one_clip_is_too_few():
    with pytest.raises(PipelineError, match="one clip is too few for a PCA"):
        _common_dim(Views(["a"], {"text": np.zeros((1, 9), np.float32)}), 60)


def test_a_reduction_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="no whole reduction"):
        load_reduction(tmp_path)
