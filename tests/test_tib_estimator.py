"""scikit-learn's contract, the callback, saving, and what each mistake is told."""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score

from tib import TIB, StepReport

NAMES = ("text", "visual", "audio")
SETTINGS: dict[str, Any] = {"objective": "reference", "epochs": 8, "random_state": 0, "device": "cpu"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """These arrays are too small to share out, and the tests may run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def planted(n_clips: int = 90, n_clusters: int = 3, dim: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Well separated clusters that every view sees in the same place, and which clip is in which.

    In the same place: the published network normalises each modality by its own batch in training and by one running
    mean of two modalities in prediction, so views of different distributions lose clusters there.
    """
    rng = np.random.default_rng(0)
    truth = np.arange(n_clips) % n_clusters
    centres = 4 * rng.normal(size=(n_clusters, dim))
    return {name: centres[truth] + 0.3 * rng.normal(size=(n_clips, dim)) for name in NAMES}, truth


VIEWS, TRUTH = planted()


@pytest.fixture(scope="module")
def fitted() -> TIB:
    return TIB(3, **SETTINGS | {"epochs": 40, "restarts": 8}).fit(VIEWS)


def test_planted_clusters_are_found_and_new_clips_join_them(fitted: TIB) -> None:
    assert adjusted_rand_score(TRUTH, fitted.labels_) > 0.95
    assert fitted.agreement_.mean() > 0.95
    assert fitted.confidence_.mean() > 0.8
    fresh = {name: view + 0.05 for name, view in VIEWS.items()}
    assert adjusted_rand_score(fitted.labels_, fitted.predict(fresh)) > 0.95


def test_learned_attributes(fitted: TIB) -> None:
    assert fitted.labels_.shape == (90,)
    assert fitted.labels_.dtype == np.int64
    assert fitted.proba_.shape == (90, 3)
    assert fitted.proba_.sum(1) == pytest.approx(np.ones(90), abs=1e-5)
    assert fitted.labels_.tolist() == fitted.proba_.argmax(1).tolist()
    assert fitted.confidence_.tolist() == fitted.proba_.max(1).tolist()
    assert list(fitted.modality_proba_) == fitted.view_names_ == list(NAMES)
    votes = [p.argmax(1) for p in fitted.modality_proba_.values()]
    shares = [sum(vote[n] == fitted.labels_[n] for vote in votes) / 3 for n in range(90)]
    assert fitted.agreement_.tolist() == pytest.approx(shares)
    assert fitted.n_features_in_ == dict.fromkeys(NAMES, 5)
    assert fitted.restart_losses_.shape == (8,)
    assert fitted.restart_labels_.shape == (8, 90)
    best = fitted.restart_losses_.argmin()
    assert fitted.restart_labels_[best].tolist() == fitted.labels_.tolist()
    assert [row["step"] for row in fitted.history_] == list(range(1, 41))
    assert list(fitted.history_[0]) == ["step", "consistency", "superfluous", "complementarity", "loss"]


def test_the_constructor_only_keeps_and_clone_and_set_params_work() -> None:
    estimator = TIB(n_clusters="many", epochs=-1)  # refused by fit, not here
    assert estimator.get_params()["n_clusters"] == "many"
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(n_clusters=3, **SETTINGS) is estimator
    assert estimator.fit(VIEWS) is estimator
    assert not hasattr(clone(estimator), "labels_")
    assert "n_clusters=3" in repr(estimator)


def test_fit_predict_is_labels_and_predict_on_the_same_views() -> None:
    estimator = TIB(3, **SETTINGS)
    assigned = estimator.fit_predict(VIEWS)
    assert assigned.tolist() == estimator.labels_.tolist() == estimator.predict(VIEWS).tolist()
    assert np.array_equal(estimator.predict_proba(VIEWS), estimator.proba_)


def test_a_list_of_views_is_the_dict_and_the_order_of_a_dict_does_not_matter() -> None:
    expected = TIB(3, **SETTINGS).fit(VIEWS)
    for views in ([VIEWS[name] for name in NAMES], {name: VIEWS[name] for name in reversed(NAMES)}):
        assert np.array_equal(TIB(3, **SETTINGS).fit(views).proba_, expected.proba_)


@pytest.mark.parametrize("restarts", [1, 3])
def test_the_same_seed_gives_the_same_result_to_the_bit_and_another_seed_does_not(restarts: int) -> None:
    runs = [TIB(3, **SETTINGS | {"restarts": restarts, "random_state": seed}).fit(VIEWS) for seed in (5, 5, 9)]
    assert np.array_equal(runs[0].proba_, runs[1].proba_)
    assert runs[0].history_ == runs[1].history_
    assert not np.array_equal(runs[0].proba_, runs[2].proba_)


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = TIB(3, **SETTINGS).fit(VIEWS)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(TIB(3, **SETTINGS).fit(VIEWS).proba_, first.proba_)


def test_no_random_state_draws_a_seed_and_keeps_it() -> None:
    drawn = TIB(3, **SETTINGS | {"random_state": None}).fit(VIEWS)
    again = TIB(3, **SETTINGS | {"random_state": drawn.seed_}).fit(VIEWS)
    assert np.array_equal(drawn.proba_, again.proba_)


def test_what_the_caller_does_to_its_arrays_later_does_not_reach_the_fit() -> None:
    views = {name: view.astype(np.float32) for name, view in VIEWS.items()}
    expected = TIB(3, **SETTINGS).fit(views).proba_

    def spoil(report: StepReport) -> None:
        views["text"][:] = 0

    assert np.array_equal(TIB(3, **SETTINGS).fit(views, on_step=spoil).proba_, expected)


@pytest.mark.parametrize("restarts", [1, 3])
def test_watching_does_not_change_training(restarts: int) -> None:
    reports: list[StepReport] = []
    seen: list[np.ndarray] = []

    def watch(report: StepReport) -> None:
        reports.append(report)
        seen.append(report.predict())

    watched = TIB(3, **SETTINGS | {"restarts": restarts}).fit(VIEWS, on_step=watch)
    alone = TIB(3, **SETTINGS | {"restarts": restarts}).fit(VIEWS)
    assert np.array_equal(watched.proba_, alone.proba_)
    assert watched.history_ == alone.history_
    assert [(report.step, report.steps) for report in reports] == [(epoch, 8) for epoch in range(1, 9)]
    assert seen[-1].tolist() == watched.labels_.tolist()
    assert seen[-1].dtype == np.int64
    last = {name: value for name, value in watched.history_[-1].items() if name != "step"}
    assert reports[-1].losses == pytest.approx(last)
    with pytest.raises(FrozenInstanceError):
        reports[-1].step = 3  # type: ignore[misc]


def test_what_on_step_raises_reaches_the_caller() -> None:
    def stop(report: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TIB(3, **SETTINGS).fit(VIEWS, on_step=stop)


@pytest.mark.parametrize("row", [0, 41])
def test_one_clip_alone_gets_the_cluster_it_has_among_others(fitted: TIB, row: int) -> None:
    one = {name: view[row : row + 1] for name, view in VIEWS.items()}
    assert fitted.predict(one).tolist() == [fitted.labels_[row]]
    assert fitted.predict_proba(one)[0] == pytest.approx(fitted.proba_[row], abs=1e-5)


def test_numpy_settings_and_as_many_clusters_as_clips() -> None:
    few = {name: view[:4] for name, view in VIEWS.items()}
    estimator = TIB(np.int64(4), epochs=np.int32(2), random_state=np.uint8(3), learning_rate=np.float32(0.01))
    assert estimator.set_params(device="cpu").fit(few).proba_.shape == (4, 4)


def test_float64_is_trained_in_float64() -> None:
    estimator = TIB(3, **SETTINGS | {"dtype": "float64"}).fit(VIEWS)
    assert estimator.proba_.dtype == np.float64
    assert estimator.predict_proba(VIEWS).dtype == np.float64
    assert TIB(3, **SETTINGS).fit(VIEWS).proba_.dtype == np.float32


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu_where_nothing_is_sampled() -> None:
    settings = {"epochs": 3, "random_state": 0, "dtype": "float64", "superfluous_weight": 0}
    runs = [TIB(3, device=device, **settings).fit(VIEWS).proba_ for device in ("cpu", "cuda")]
    assert runs[1] == pytest.approx(runs[0], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_clusters": 1}, r"n_clusters must be an integer >= 2, got 1"),
        ({"n_clusters": True}, r"n_clusters must be an integer >= 2, got True"),
        ({"n_clusters": 3.0}, r"n_clusters must be an integer >= 2, got 3.0"),
        ({"n_clusters": "auto"}, r"n_clusters must be an integer >= 2, got 'auto'"),
        ({"n_clusters": 91}, r"n_clusters=91 is more than the 90 clip\(s\) given"),
        ({"restarts": 0}, r"restarts must be an integer >= 1, got 0"),
        ({"epochs": 0}, r"epochs must be an integer >= 1, got 0"),
        ({"random_state": -1}, r"random_state must be an integer >= 0, got -1"),
        ({"random_state": 0.5}, r"random_state must be an integer >= 0, got 0.5"),
        ({"learning_rate": 0}, r"learning_rate must be a finite number > 0, got 0"),
        ({"learning_rate": "fast"}, r"learning_rate must be a finite number > 0, got 'fast'"),
        ({"learning_rate": float("nan")}, r"learning_rate must be a finite number > 0, got nan"),
        ({"superfluous_weight": -1}, r"superfluous_weight must be a finite number >= 0, got -1"),
        ({"objective": "tib2"}, r"unknown objective 'tib2'; known: reference"),
        ({"dtype": "float16"}, r"unknown dtype 'float16'; known: float32, float64"),
        ({"device": "abacus"}, r"device must be 'auto', 'cpu' or 'cuda', got 'abacus'"),
        ({"device": None}, r"device must be 'auto', 'cpu' or 'cuda', got None"),
    ],
)
def test_a_setting_out_of_range_is_named_by_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TIB(3, **SETTINGS).set_params(**settings).fit(VIEWS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"device='cuda', but torch sees no CUDA device; use device='auto' or 'cpu'"):
        TIB(3, device="cuda").fit(VIEWS)


def test_nan_never_reaches_training_or_prediction(fitted: TIB) -> None:
    holed = {**VIEWS, "audio": VIEWS["audio"].copy()}
    holed["audio"][7, 1] = np.nan
    for call in (TIB(3, **SETTINGS).fit, fitted.predict):
        with pytest.raises(ValueError, match=r"view 'audio' holds NaN or Inf .*first in row 7; .*every modality"):
            call(holed)


def test_a_constant_view_is_warned_of_and_trained_on() -> None:
    with pytest.warns(UserWarning, match="view 'audio' is the same for every clip"):
        TIB(3, **SETTINGS).fit({**VIEWS, "audio": np.ones((90, 5))})


@pytest.mark.parametrize("method", ["predict", "predict_proba", "save"])
def test_unfitted(method: str, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(TIB(3), method)(tmp_path if method == "save" else VIEWS)


@pytest.mark.parametrize(
    ("views", "got"),
    [
        ({name: view[:, :4] for name, view in VIEWS.items()}, "text 4, visual 4, audio 4"),
        ({name: VIEWS[name] for name in NAMES[:2]}, "text 5, visual 5"),
    ],
)
def test_predict_refuses_other_views_than_fitted_on(fitted: TIB, views: dict[str, Any], got: str) -> None:
    with pytest.raises(ValueError, match=rf"fitted on views of text 5, visual 5, audio 5 features, got {got}; pass"):
        fitted.predict(views)


# ---------------------------------------------------------------------------------------- saved models


LEARNED = ("labels_", "proba_", "confidence_", "agreement_", "restart_losses_", "restart_labels_")


def by_saving(estimator: TIB, folder: Path) -> TIB:
    estimator.save(folder)
    return TIB.load(folder)


def by_pickling(estimator: TIB, folder: Path) -> TIB:
    return pickle.loads(pickle.dumps(estimator))


@pytest.mark.parametrize("copy", [by_saving, by_pickling])
def test_a_saved_model_is_the_model(fitted: TIB, tmp_path: Path, copy: Callable[[TIB, Path], TIB]) -> None:
    loaded = copy(fitted, tmp_path / "new" / "folder")
    for name in LEARNED:
        assert np.array_equal(getattr(loaded, name), getattr(fitted, name)), name
        assert getattr(loaded, name).dtype == getattr(fitted, name).dtype, name
    for name in ("history_", "n_features_in_", "view_names_", "seed_"):
        assert getattr(loaded, name) == getattr(fitted, name), name
    for name in NAMES:
        assert np.array_equal(loaded.modality_proba_[name], fitted.modality_proba_[name])
    assert np.array_equal(loaded.predict_proba(VIEWS), fitted.predict_proba(VIEWS))
    settings = {**fitted.get_params(), "device": loaded.device}
    assert loaded.get_params() == settings


def test_numpy_settings_can_be_saved_and_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    for n_clusters in (np.int64(2), np.int64(3)):
        TIB(n_clusters, **SETTINGS | {"learning_rate": np.float32(0.05)}).fit(VIEWS).save(tmp_path)
    assert TIB.load(tmp_path).n_clusters == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_loading_where_there_is_no_model(fitted: TIB, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no saved TIB model in .*: model.safetensors is not there; give the"):
        TIB.load(tmp_path)
    fitted.save(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.json is not there"):
        TIB.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, r"does not describe a TIB model"),
        ({"format_version": 2}, r"holds format version 2, this code reads 1; load it with the version"),
        ({"arrays_sha256": "0"}, r"is not the file that model.json was written with; save the model again"),
        (
            {"learned": {"n_features_in": dict.fromkeys(NAMES, 6)}},
            r"disagree on encoder_a.gaussian.bias: expected shape \(1, 12\), found \(1, 10\); fit and save",
        ),
    ],
)
def test_a_saved_model_that_does_not_fit(fitted: TIB, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fitted.save(tmp_path)
    file = tmp_path / "model.json"
    description = json.loads(file.read_text())
    for name, value in change.items():
        description[name] = {**description[name], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=message):
        TIB.load(tmp_path)


def test_a_description_that_is_not_json(fitted: TIB, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model.json is not JSON .*; save the model again"):
        TIB.load(tmp_path)
