"""The estimator: scikit-learn's contract over views instead of one matrix, and without any labels."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tib.config import DTYPES, Settings, resolve_device
from tib.persistence import read_model, write_model
from tib.reference import ReferenceNet
from tib.train import EpochReport, Training, train
from tib.views import Views, check_n_clusters, check_views, warn_of_constant_views


class TIB(ClusterMixin, BaseEstimator):
    """Twin Information Bottleneck clustering of clips seen in several modalities.

    Args:
        n_clusters: K, from 2 to N.
        objective: "reference", the published demo code: views named text, visual and audio, of equal dims.
        restarts: independent runs, trained side by side; the one with the lowest final loss is the result.
        epochs: full-batch steps.
        learning_rate: Adam's.
        superfluous_weight: of the superfluous-information term; 0 leaves it out, and with it all sampling.
        random_state: seed of restart 0; restart r is the run with random_state + r. The same seed gives the same
            result to the bit on one machine with one number of threads. None draws one, kept as `seed_`.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        dtype: "float32" or "float64", of parameters and views.

    Attributes:
        labels_: (N,) int64, each clip's cluster, 0 to K - 1.
        proba_: (N, K), rows sum to 1.
        confidence_: (N,), the largest of each row of proba_.
        agreement_: (N,), the share of the modalities whose own posterior puts the clip in the same cluster.
        modality_proba_: name -> (N, K), each modality's own posterior, in the clusters of proba_.
        restart_losses_: (R,) float64, each restart's final loss.
        restart_labels_: (R, N) int64, each restart's clusters; the numbering of two restarts is unrelated.
        history_: a dict an epoch, of the restart kept: restart, epoch (from 1), consistency, superfluous,
            complementarity and their weighted sum, loss; nats, lower is better, consistency and complementarity
            are minus mutual informations.
        n_features_in_: name -> D.
        view_names_: in the order given.
        seed_: the seed of restart 0.
        net_: the network of the restart kept.
    """

    def __init__(
        self,
        n_clusters: int,
        *,
        objective: str = "reference",
        restarts: int = 1,
        epochs: int = 500,
        learning_rate: float = 0.05,
        superfluous_weight: float = 1.0,
        random_state: int | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        self.n_clusters = n_clusters
        self.objective = objective
        self.restarts = restarts
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.superfluous_weight = superfluous_weight
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def fit(self, views: Views, *, on_epoch: Callable[[EpochReport], None] | None = None) -> Self:
        """Cluster the clips.

        Args:
            views: name -> (N, D_m), rows aligned by clip; a list is taken as text, visual, audio.
            on_epoch: called after each epoch, to show progress or to score with labels that stay outside.
        Raises:
            ValueError: a setting out of range, or views that cannot be trained on; the message says what to do.
            TypeError: `views` is neither a dict nor a list.
        """
        settings = Settings(**self.get_params())
        arrays = check_views(views, list_names=ReferenceNet.VIEW_NAMES, dtype=self.dtype)
        dims = {name: array.shape[1] for name, array in arrays.items()}
        ReferenceNet.check_dims(dims)
        check_n_clusters(settings.n_clusters, len(next(iter(arrays.values()))))
        warn_of_constant_views(arrays)
        self.seed_ = secrets.randbits(31) if settings.random_state is None else int(settings.random_state)
        device = resolve_device(settings.device)
        tensors = _to_tensors(arrays, device)
        net = ReferenceNet(dims, int(settings.n_clusters), int(settings.restarts), DTYPES[settings.dtype])
        training = train(
            net,
            tensors,
            seeds=[self.seed_ + restart for restart in range(settings.restarts)],
            epochs=int(settings.epochs),
            learning_rate=float(settings.learning_rate),
            superfluous_weight=float(settings.superfluous_weight),
            on_epoch=on_epoch,
        )
        self.n_features_in_ = dims
        self.view_names_ = list(dims)
        self._keep(training, tensors)
        return self

    def fit_predict(self, views: Views, *, on_epoch: Callable[[EpochReport], None] | None = None) -> NDArray[np.int64]:
        """`fit`, then `labels_`, (N,)."""
        return self.fit(views, on_epoch=on_epoch).labels_

    def predict_proba(self, views: Views) -> NDArray[Any]:
        """p(cluster | clip) of any clips, one or more: (N, K).

        Raises:
            NotFittedError: before fit.
            ValueError: other views or dims than those fitted on.
        """
        check_is_fitted(self, "net_")
        arrays = check_views(views, list_names=ReferenceNet.VIEW_NAMES, dtype=self.dtype)
        dims = {name: array.shape[1] for name, array in arrays.items()}
        if dims != self.n_features_in_:
            raise ValueError(
                f"fitted on views of {_listed(self.n_features_in_)} features, got {_listed(dims)}; "
                "pass the same views, reduced in the same way"
            )
        device = self.net_.head_a.weight.device
        return self.net_.posterior(_to_tensors(arrays, device))[0].cpu().numpy()

    def predict(self, views: Views) -> NDArray[np.int64]:
        """The cluster of each clip, (N,). Raises as `predict_proba` does."""
        return self.predict_proba(views).argmax(axis=1)

    def save(self, path: str | Path) -> None:
        """Write model.safetensors and model.json into the folder `path`, made where it is not there.

        Raises:
            NotFittedError: before fit.
        """
        check_is_fitted(self, "net_")
        arrays = {f"net.{name}": value for name, value in self.net_.state_dict().items()}
        arrays |= {f"modality_proba.{name}": torch.from_numpy(p) for name, p in self.modality_proba_.items()}
        arrays["proba"] = torch.from_numpy(self.proba_)
        arrays["restart_labels"] = torch.from_numpy(self.restart_labels_)
        learned = {
            "n_features_in": self.n_features_in_,
            "seed": self.seed_,
            "restart_losses": self.restart_losses_.tolist(),
            "history": self.history_,
        }
        settings = {name: _plain(value) for name, value in self.get_params().items()}
        write_model(Path(path), arrays, {"settings": settings, "learned": learned})

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """The estimator that was saved into `path`, with every learned attribute.

        Args:
            device: where it predicts and fits from now on; a model trained on a GPU loads on any machine.
        Raises:
            FileNotFoundError: no saved model there.
            ValueError: a model of another format version, or files that do not fit together.
        """
        arrays, described = read_model(Path(path))
        estimator = cls(**{**described["settings"], "device": device})
        learned = described["learned"]
        net = ReferenceNet(learned["n_features_in"], estimator.n_clusters, 1, DTYPES[estimator.dtype])
        state = {name[4:]: value for name, value in arrays.items() if name.startswith("net.")}
        _check_fits(net, state, path)
        net.load_state_dict(state)
        estimator.net_ = net.to(resolve_device(device))
        estimator.n_features_in_ = learned["n_features_in"]
        estimator.view_names_ = list(learned["n_features_in"])
        estimator.seed_ = learned["seed"]
        estimator.restart_losses_ = np.array(learned["restart_losses"])
        estimator.history_ = learned["history"]
        estimator.restart_labels_ = arrays["restart_labels"].numpy()
        estimator._keep_posteriors(
            arrays["proba"], {name: arrays[f"modality_proba.{name}"] for name in estimator.view_names_}
        )
        return estimator

    def _keep(self, training: Training, views: Mapping[str, Tensor]) -> None:
        """Learned attributes, from the restart kept."""
        curves, best = training.curves, training.best
        self.restart_losses_ = curves["loss"][-1].copy()
        self.restart_labels_ = training.net.posterior(views).argmax(-1).cpu().numpy()
        self.history_ = [
            {"restart": best, "epoch": epoch + 1, **{name: float(curve[epoch, best]) for name, curve in curves.items()}}
            for epoch in range(len(curves["loss"]))
        ]
        self.net_ = training.net.single(best)
        self.net_.align_modalities(views)
        by_modality = self.net_.modality_posteriors(views)
        self._keep_posteriors(
            self.net_.posterior(views)[0].cpu(), {name: by_modality[name][0].cpu() for name in self.view_names_}
        )

    def _keep_posteriors(self, proba: Tensor, by_modality: Mapping[str, Tensor]) -> None:
        self.proba_ = proba.numpy()
        self.labels_ = self.proba_.argmax(axis=1)
        self.confidence_ = self.proba_.max(axis=1)
        self.modality_proba_ = {name: p.numpy() for name, p in by_modality.items()}
        votes = np.stack([p.argmax(axis=1) for p in self.modality_proba_.values()])  # (M, N)
        self.agreement_ = (votes == self.labels_).mean(axis=0)


def _to_tensors(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Copies, so that what the caller does to its arrays later cannot reach a fit."""
    return {name: torch.tensor(array, device=device) for name, array in arrays.items()}


def _listed(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {dim}" for name, dim in dims.items())


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's, for JSON."""
    return value.item() if isinstance(value, np.generic) else value


def _check_fits(net: ReferenceNet, state: Mapping[str, Tensor], path: str | Path) -> None:
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        name = min(name for name in expected | found if expected.get(name) != found.get(name))
        raise ValueError(
            f"{path}: model.json and model.safetensors disagree on {name}: expected shape {expected.get(name)}, "
            f"found {found.get(name)}; fit and save the model again"
        )
