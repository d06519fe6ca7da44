"""Clips that lack a modality: in training, in prediction, and what is said of them."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from tib import TIB, MultiView

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS: dict[str, Any] = {"restarts": 4, "epochs": 60, "random_state": 0, "device": "cpu"}
DIMS = {"text": 6, "visual": 12, "audio": 4}
N_CLIPS, N_CLUSTERS = 200, 4
TRUTH = np.arange(N_CLIPS) % N_CLUSTERS


def planted(distance: float = 3.0) -> dict[str, np.ndarray]:
    """Views of their own dims, units and places. In each alone the clusters' centres lie at the corners of a simplex,
    distance * sqrt(2) sds apart, so that any one view tells most clips' clusters: at 3, of 19 clips in 20.
    """
    rng = np.random.default_rng(5)
    views = {}
    for index, (name, dim) in enumerate(DIMS.items()):
        centres = distance * np.linalg.qr(rng.normal(size=(dim, N_CLUSTERS)))[0].T  # orthogonal, (K, D)
        views[name] = 10 * index + (index + 1) * (centres[TRUTH] + rng.normal(size=(N_CLIPS, dim)))
    return views


def holed(views: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """The views with that share of all (clip, modality) entries missing, and no clip without any."""
    rng = np.random.default_rng(11)
    missing = np.zeros((N_CLIPS, len(views)), dtype=bool)
    for entry in rng.permutation(missing.size):
        row, view = divmod(entry, len(views))
        if missing.sum() < share * missing.size and missing[row].sum() < len(views) - 1:
            missing[row, view] = True
    return {name: np.where(missing[:, [index]], np.nan, view) for index, (name, view) in enumerate(views.items())}


WHOLE = planted()
GAPS = holed(WHOLE, 0.3)
MISSING = {name: np.isnan(view).all(axis=1) for name, view in GAPS.items()}


@pytest.fixture(scope="module")
def complete() -> TIB:
    return TIB(N_CLUSTERS, **SETTINGS).fit(WHOLE)


@pytest.fixture(scope="module")
def gappy() -> TIB:
    return TIB(N_CLUSTERS, **SETTINGS).fit(GAPS)


def nmi(assignments: np.ndarray) -> float:
    return float(normalized_mutual_info_score(TRUTH, assignments))


def test_a_third_of_the_entries_missing_costs_less_than_a_tenth(complete: TIB, gappy: TIB) -> None:
    assert np.mean(list(MISSING.values())) == pytest.approx(0.3)
    assert nmi(complete.labels_) > 0.9
    assert nmi(gappy.labels_) > 0.9 * nmi(complete.labels_)


def test_clips_with_gaps_get_clusters_like_all_others(gappy: TIB) -> None:
    assert gappy.proba_.sum(1) == pytest.approx(np.ones(N_CLIPS), abs=1e-5)
    assert np.isfinite(gappy.restart_losses_).all()
    assert np.array_equal(gappy.predict_proba(GAPS), gappy.proba_)
    assert np.array_equal(gappy.predict(GAPS), gappy.labels_)


def test_a_modality_that_is_missing_says_nothing_and_has_no_vote(gappy: TIB) -> None:
    for name, posterior in gappy.modality_proba_.items():
        assert np.array_equal(np.isnan(posterior).all(axis=1), MISSING[name])
        assert np.array_equal(np.isnan(posterior).any(axis=1), MISSING[name])
        assert posterior[~MISSING[name]].sum(1) == pytest.approx(np.ones((~MISSING[name]).sum()), abs=1e-5)
    for row in range(N_CLIPS):
        votes = [
            p[row].argmax() == gappy.labels_[row] for name, p in gappy.modality_proba_.items() if not MISSING[name][row]
        ]
        assert gappy.agreement_[row] == pytest.approx(np.mean(votes))


def test_a_clip_with_one_modality_alone_is_clustered_by_it(gappy: TIB) -> None:
    alone = np.sum(list(MISSING.values()), axis=0) == len(DIMS) - 1
    assert alone.sum() > 10
    for name, posterior in gappy.modality_proba_.items():
        rows = alone & ~MISSING[name]
        assert np.array_equal(posterior[rows].argmax(1), gappy.labels_[rows])


@pytest.mark.parametrize("absent", list(DIMS))
@pytest.mark.parametrize("model", ["complete", "gappy"])
def test_a_modality_that_all_new_clips_lack(request: pytest.FixtureRequest, model: str, absent: str) -> None:
    estimator: TIB = request.getfixturevalue(model)
    views = {**WHOLE, absent: np.full_like(WHOLE[absent], np.nan)}
    assert nmi(estimator.predict(views)) > 0.9
    assert np.isnan(estimator.modality_posteriors(views)[absent]).all()
    assert np.isfinite(estimator.score(views))


@pytest.mark.parametrize("present", list(DIMS))
def test_one_clip_with_one_modality(complete: TIB, present: str) -> None:
    views = {name: view[:1] if name == present else np.full((1, view.shape[1]), np.nan) for name, view in WHOLE.items()}
    assert complete.predict_proba(views)[0] == pytest.approx(complete.modality_posteriors(views)[present][0], abs=0.2)
    among = {name: view if name == present else np.full_like(view, np.nan) for name, view in WHOLE.items()}
    assert complete.predict(views)[0] == complete.predict(among)[0]
    assert complete.predict_proba(views)[0] == pytest.approx(complete.predict_proba(among)[0], abs=1e-5)


def test_what_stands_in_other_rows_does_not_reach_a_clip(gappy: TIB) -> None:
    rows = np.flatnonzero(MISSING["audio"])[:7]
    some = {name: view[rows] for name, view in GAPS.items()}
    assert gappy.predict_proba(some) == pytest.approx(gappy.proba_[rows], abs=1e-5)


def test_a_row_that_is_nan_in_part_is_a_row_of_nan() -> None:
    settings = SETTINGS | {"restarts": 1, "epochs": 4}
    in_part = {name: view.copy() for name, view in GAPS.items()}
    row = np.flatnonzero(MISSING["audio"])[0]
    in_part["audio"][row, 1:] = 3.0
    with pytest.warns(UserWarning, match=rf"view 'audio' holds NaN beside numbers in 1 row\(s\), first in row {row};"):
        estimator = TIB(N_CLUSTERS, **settings).fit(in_part)
    assert np.array_equal(estimator.proba_, TIB(N_CLUSTERS, **settings).fit(GAPS).proba_)


def test_gaps_are_no_reason_to_warn_and_give_the_same_result_again() -> None:
    settings = SETTINGS | {"restarts": 2, "epochs": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = [TIB(N_CLUSTERS, **settings).fit(GAPS) for _ in range(2)]
    assert np.array_equal(runs[0].proba_, runs[1].proba_)
    assert runs[0].history_ == runs[1].history_


@pytest.mark.parametrize("holders", [1, 2, 20])
def test_a_modality_that_few_clips_have(holders: int) -> None:
    views = {**WHOLE, "audio": np.where(np.arange(N_CLIPS)[:, None] < holders, WHOLE["audio"], np.nan)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = TIB(N_CLUSTERS, **SETTINGS | {"restarts": 2, "epochs": 20, "schedule": "anchored"}).fit(views)
    assert adjusted_rand_score(TRUTH, estimator.labels_) > 0.8


def test_views_that_no_clip_has_two_of_have_no_score(complete: TIB) -> None:
    first = np.arange(N_CLIPS)[:, None] < N_CLIPS // 2
    apart = {"text": np.where(first, WHOLE["text"], np.nan), "audio": np.where(first, np.nan, WHOLE["audio"])}
    assert np.isfinite(complete.predict_proba(apart)).all()
    assert np.isnan(complete.score(apart))


def test_what_cannot_be_trained_on_or_predicted_from(complete: TIB) -> None:
    nothing = {name: np.where(np.arange(N_CLIPS)[:, None] == 7, np.nan, view) for name, view in WHOLE.items()}
    ids = [f"ann/clip_{row}" for row in range(N_CLIPS)]
    for call in (TIB(N_CLUSTERS, **SETTINGS).fit, complete.predict, complete.score, complete.transform):
        with pytest.raises(ValueError, match=r"1 clip\(s\) have no view at all, only NaN: row 7; leave them out"):
            call(nothing)
        with pytest.raises(ValueError, match=r"1 clip\(s\) have no view at all, only NaN: clip ann/clip_7; leave them"):
            call(MultiView(nothing, ids))
    with pytest.raises(
        ValueError, match=r"view 'audio' is missing for every clip \(all NaN\); leave it out of the views"
    ):
        TIB(N_CLUSTERS, **SETTINGS).fit({**WHOLE, "audio": np.full((N_CLIPS, 4), np.nan)})
