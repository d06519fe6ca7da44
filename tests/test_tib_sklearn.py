"""scikit-learn's contract: its own checks, pipelines, searches and set_output."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimator_factory import BOTH, SETTINGS, TRUTH, VIEWS, WHOLE
from sklearn.base import is_clusterer
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from tib import TIB, MultiView

pytestmark = pytest.mark.usefixtures("one_thread")


class OneMatrix(TIB):
    """Takes one matrix, for scikit-learn's own checks, and sees it twice."""

    def fit(self, X: Any, y: Any = None, **options: Any) -> "OneMatrix":
        asked, self.n_clusters = self.n_clusters, max(2, self.n_clusters)  # some checks ask for one
        super().fit(X, **options)
        self.n_clusters = asked
        return self

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        return super().fit_predict(X)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        return super().fit_transform(X)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)

    def _checked(self, views: Any, objective: str) -> Any:
        return super()._checked({"left": views, "right": views}, objective)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.dict = True, False
        tags.input_tags.allow_nan = False  # the same clips would lack both
        return tags


OTHERWISE = {
    "check_estimator_sparse_array": "asks every predict_proba for the tags of a classifier (scikit-learn 1.9)",
    "check_estimator_sparse_matrix": "as above; KINDS has every sparse format",
    "check_dtype_object": "a ValueError, which names the view, where scikit-learn raises a TypeError",
    "check_n_features_in": "n_features_in_ is a dict, view name -> D",
    "check_n_features_in_after_fitting": "the message lists the views and their D",
}


@parametrize_with_checks(
    [OneMatrix(3, **WHOLE | {"dtype": "float64", "epochs": 4})], expected_failed_checks=lambda estimator: OTHERWISE
)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn_on_one_matrix(estimator: TIB, check: Callable[[TIB], None]) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "name",
    [
        "check_do_not_raise_errors_in_init_or_set_params", "check_estimator_cloneable", "check_estimator_repr",
        "check_estimator_tags_renamed", "check_get_params_invariance", "check_mixin_order",
        "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_set_params",
        "check_valid_tag_types",
    ],
)  # fmt: skip
def test_checks_of_scikit_learn_on_the_estimator_itself(name: str) -> None:
    getattr(estimator_checks, name)("TIB", TIB(3))


def test_tags() -> None:
    tags = get_tags(TIB(3))
    assert is_clusterer(TIB(3))
    assert (tags.input_tags.dict, tags.input_tags.two_d_array, tags.input_tags.allow_nan) == (True, False, True)
    assert not get_tags(TIB(3, **SETTINGS)).input_tags.allow_nan
    assert not tags.target_tags.required


@BOTH
@pytest.mark.parametrize("method", ["fit", "fit_predict", "fit_transform"])
def test_labels_are_refused(settings: dict[str, Any], method: str) -> None:
    with pytest.raises(TypeError, match=r"TIB takes no labels: fit\(views\); score its labels_ outside"):
        getattr(TIB(3, **settings), method)(VIEWS, TRUTH)


@pytest.mark.parametrize("method", ["transform", "score", "modality_posteriors", "get_feature_names_out"])
def test_unfitted_too(method: str) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(TIB(3), method)(*([] if method == "get_feature_names_out" else [VIEWS]))


@BOTH
def test_set_output_and_feature_names(settings: dict[str, Any]) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    estimator = TIB(3, **settings).fit(VIEWS)
    names = estimator.get_feature_names_out().tolist()
    assert names == ["tib0", "tib1", "tib2"]
    assert np.array_equal(estimator.transform(VIEWS), estimator.proba_)
    for library, frame in (("pandas", pandas.DataFrame), ("polars", polars.DataFrame)):
        transformed = estimator.set_output(transform=library).transform(VIEWS)
        assert isinstance(transformed, frame)
        assert list(transformed.columns) == names
        assert np.array_equal(transformed.to_numpy(), estimator.proba_)
    assert isinstance(estimator.predict_proba(VIEWS), np.ndarray)


def test_a_pipeline_of_views() -> None:
    alone = TIB(3, **WHOLE).fit(VIEWS)
    pipeline = Pipeline([("tib", TIB(3, **WHOLE))])
    assert pipeline.fit(VIEWS).predict(VIEWS).tolist() == alone.labels_.tolist()
    assert pipeline.fit_predict(VIEWS).tolist() == alone.labels_.tolist()
    assert pipeline.score(VIEWS) == alone.score(VIEWS)
    assert pipeline.set_params(tib__n_clusters=2).fit(VIEWS)["tib"].n_clusters_ == 2


def test_a_search_over_clusters_by_the_label_free_score() -> None:
    views = MultiView(VIEWS, [f"clip {row}" for row in range(90)])
    grid = {"n_clusters": [2, 3], "superfluous_weight": [1e-3, 0.1]}
    estimator = TIB(**WHOLE | {"schedule": "anchored", "epochs": 20})
    search = GridSearchCV(estimator, grid, cv=2, error_score="raise").fit(views)
    assert search.best_params_["n_clusters"] == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert adjusted_rand_score(TRUTH, search.best_estimator_.labels_) > 0.95
    assert adjusted_rand_score(TRUTH, search.predict(views)) > 0.95


def test_a_search_by_a_scorer_of_ones_own() -> None:
    asked: list[tuple[int, int]] = []

    def fewest(estimator: TIB, views: MultiView) -> float:
        asked.append(views.shape)
        return -float(estimator.n_clusters_)

    search = GridSearchCV(TIB(**WHOLE), {"n_clusters": [3, 2]}, cv=3, scoring=fewest, error_score="raise")
    assert search.fit(MultiView(VIEWS)).best_params_ == {"n_clusters": 2}
    assert asked == [(30, 3)] * 6


def test_cross_validation() -> None:
    estimator = TIB(3, **WHOLE | {"schedule": "anchored", "epochs": 20})
    scores = cross_val_score(estimator, MultiView(VIEWS), cv=3, error_score="raise")
    assert scores.shape == (3,)
    assert (scores > 0.8).all()
    assert (scores <= 1 + 1e-6).all()
