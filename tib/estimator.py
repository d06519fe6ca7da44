"""The estimator: scikit-learn's contract over views instead of one matrix, and without any labels."""

import secrets
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tib import reference, scratch, twin
from tib.checkpoint import Checkpoint, fingerprint
from tib.config import DTYPES, Settings, resolve_device
from tib.group import Group
from tib.losses import joint_information, normalised_joint
from tib.persistence import read_model, write_model
from tib.result import Fitted, OnStep, Outcome
from tib.views import (
    MultiView,
    View,
    Views,
    as_tensors,
    check_n_clusters,
    check_trainable,
    check_views,
    row_slices,
    warn_of_constant_views,
)

CHUNK = 4096  # clips that posteriors are made of at a time
OBJECTIVES: dict[str, Any] = {"tib": twin, "reference": reference}


class TIB(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Twin Information Bottleneck clustering of clips seen in several modalities.

    Args:
        n_clusters: K, from 2 to N; or "auto", the largest K whose clusters come out as much alike as any K's,
            within .05 ARI, when the graph of neighbours is cut again in other bags of clips.
        max_clusters: the largest K that "auto" tries; it never tries more than half of a bag's clips.
        objective: "tib", the whole method, for two or more views of any dims. "reference", the published demo code:
            views named text, visual and audio, of equal dims; of what follows it knows restarts, epochs,
            learning_rate, superfluous_weight, random_state, device and dtype.
        restarts: independent networks, trained side by side. None: 12, of which the consensus is the result
            (tib); 1 (reference, where the lowest loss of several is kept).
        epochs: passes over a restart's clips. None: 15, at least 150 steps and at most 2000, which do not see all of
            more than 19,000 clips 15 times, nor of more than 280,000 once (tib); 500 (reference).
        batch_size: anchors of a step, each with a neighbour beside it. None: 128, and at least 16 a cluster.
        learning_rate: Adam's; of the whole method at its height, from where it falls to 0. None: 0.01 (tib),
            0.05 (reference).
        schedule: "free", where the graph of neighbours gives a start and the objective decides; "anchored", where
            the graph's own partition outweighs it all along; "auto": free, and anchored after it where the graph
            cut in other bags of clips is clearly the steadier of the two (one restart cannot tell: anchored).
            "scratch" knows nothing of partitions, for comparison.
        consistency_weight: of I(C^a; C^b), the mean over pairs of modalities: each finds the other's clusters.
        fusion_weight: of I(C; C') between a clip's clusters by all modalities and a neighbour's.
        superfluous_weight: of KL(q(z|x) || N(0, I)), what a code keeps of its input. None: 0.001 (tib), 1 (reference).
        divergence_weight: of the symmetric KL between a pair's two codes of a clip.
        complementarity_weight: of Λ, an estimate of I(C; Z^a | Z^b): what a modality adds to another.
        neighbour_share: how much of the consistency's joint pairs a clip's modality with the *neighbour's* other
            one; 0 pairs a clip with itself alone.
        balance: of the clusters' entropy in both mutual informations: 1 is mutual information, less lets clusters be
            more unequal or die.
        joint_momentum: of the running mean over batches that both mutual informations are of, from 0, the batch alone,
            to below 1, in the limit all clips: for batches that are small for K (docs/scale.md). It comes in as the
            learning rate goes down.
        early_stop: end a stage when the clusters have settled.
        random_state: the seed. The same gives the same result to the bit on one machine with one number of threads;
            in the reference, restart r is the run with random_state + r. None draws one, kept as `seed_`.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        dtype: "float32" or "float64", of parameters and views.

    A weight of 0 leaves its term out.

    Clips that are too many for memory (tib): views may be files' arrays, np.load(path, mmap_mode="r"). They are read by
    rows, in random blocks of 6000 clips that are each other's neighbours; each restart goes through the blocks in its
    own order, and one block a restart, 12 at most, is in memory. Restarts that follow a partition stay where it was
    cut. Features' scales and directions are learned from 12,000 clips. What a fit keeps of all clips is the attributes,
    an array of more than 64 MB in a nameless file in TMPDIR.

    Under torchrun, with torch.distributed initialised, the processes train one model together (tib), each on its share
    of the anchors of every batch: call `fit` in all of them with the same views and settings, on machines alike. The
    first one calls `on_step` and writes the checkpoint; all end with the same model.

    Attributes:
        labels_: (N,) int64, each clip's cluster, 0 to K - 1.
        proba_: (N, K), rows sum to 1: by all of a clip's modalities, the mean over the restarts (tib); by the text
            (reference).
        confidence_: (N,), the largest of each row of proba_.
        agreement_: (N,), the share of the clip's modalities whose own posterior puts it in the same cluster.
        modality_proba_: name -> (N, K), each modality's own posterior, in the clusters of proba_; NaN where missing.
        n_clusters_: K.
        n_clusters_curve_: K -> how steady K clusters are, the curve that "auto" chooses by; {} otherwise.
        schedule_: the schedule kept ("reference" for that objective).
        stability_: "graph", "free", "anchored" -> mean ARI between clusters from other bags of clips, as far as
            measured; {} for one restart.
        restart_losses_: (R,) float64, the final loss of each restart that stayed finite.
        restart_labels_: (R, N) int16 (int32 for more than 32,768 clusters), each restart's clusters: matched to
            labels_ (tib), unrelated (reference).
        history_: a dict a step: step (from 1), the terms, and their weighted sum, loss; nats, lower is better, what
            is maximised has a minus sign. Mean over restarts (tib), or of the restart kept (reference).
        n_features_in_: name -> D.
        view_names_: in the order given.
        seed_: the seed used.
        net_: what predicts.
    """

    def __init__(
        self,
        n_clusters: int | str = "auto",
        *,
        max_clusters: int = 20,
        objective: str = "tib",
        restarts: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        schedule: str = "auto",
        consistency_weight: float = 1.0,
        fusion_weight: float = 1.0,
        superfluous_weight: float | None = None,
        divergence_weight: float = 1e-3,
        complementarity_weight: float = 0.01,
        neighbour_share: float = 0.5,
        balance: float = 1.0,
        joint_momentum: float = 0.0,
        early_stop: bool = False,
        random_state: int | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        self.n_clusters = n_clusters
        self.max_clusters = max_clusters
        self.objective = objective
        self.restarts = restarts
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.consistency_weight = consistency_weight
        self.fusion_weight = fusion_weight
        self.superfluous_weight = superfluous_weight
        self.divergence_weight = divergence_weight
        self.complementarity_weight = complementarity_weight
        self.neighbour_share = neighbour_share
        self.balance = balance
        self.joint_momentum = joint_momentum
        self.early_stop = early_stop
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def fit(
        self,
        views: Views,
        ignored: None = None,
        *,
        on_step: OnStep | None = None,
        checkpoint: str | Path | None = None,
    ) -> Self:
        """Cluster the clips.

        Args:
            views: name -> (N, D_m), rows aligned by clip; a list is named view_0, view_1, ... (reference: text,
                visual, audio). A row of NaN is a clip without that modality (tib only).
            ignored: nothing; scikit-learn's Pipeline passes a None here.
                They are read when they are needed: leave them as they are until `fit` returns.
            on_step: called after each step, to show progress or to score with labels that stay outside.
            checkpoint: a file that is written every half minute and deleted at the end. Where it is there, of these
                views and settings, the fit goes on from it, to the result that it would have come to; that needs a
                random_state.
        Raises:
            ValueError: a setting out of range, a checkpoint without a random_state, or views that cannot be trained
                on; the message says what to do.
            OSError: there is no room for what is kept of a great many clips.
            TypeError: `views` is neither a mapping nor a list, or labels were given.
        """
        if ignored is not None:
            raise TypeError("TIB takes no labels: fit(views); score its labels_ outside, with labels it never saw")
        settings = Settings.of(self.get_params())
        module = OBJECTIVES[settings.objective]
        checked = self._checked(views, settings.objective)
        dims = {name: view.shape[1] for name, view in checked.items()}
        check_trainable(checked)
        n_clips = len(next(iter(checked.values())))
        check_n_clusters(2 if settings.n_clusters == "auto" else int(settings.n_clusters), n_clips)
        warn_of_constant_views(checked)
        group = Group.current()
        seed = secrets.randbits(31) if settings.random_state is None else int(settings.random_state)
        self.seed_ = int(group.from_first(seed))
        kept = self._checkpoint(checkpoint, checked, group)
        outcome: Outcome = module.fit(
            checked, resolve_device(settings.device), settings, self.seed_, on_step if group.first else None, kept
        )
        self.n_features_in_ = dims
        self.view_names_ = list(dims)
        self.restart_losses_ = outcome.restart_losses
        self.restart_labels_ = outcome.restart_labels
        self.history_ = outcome.history
        self._learn(outcome.net, outcome.learned)
        self._keep_posteriors(outcome.proba, outcome.modality_proba)
        kept.remove()
        return self

    def _checkpoint(self, path: str | Path | None, views: Mapping[str, View], group: Group) -> Checkpoint:
        if path is None:
            return Checkpoint(None, "")
        if self.random_state is None:
            raise ValueError("a checkpoint needs a random_state: None is another seed at each fit")
        settings = {name: _plain(value) for name, value in self.get_params().items()}
        kept = Checkpoint(Path(path), fingerprint(settings, self.seed_, views)) if group.first else Checkpoint(None, "")
        kept.found = group.from_first(kept.found)
        return kept

    def fit_predict(self, views: Views, ignored: None = None, *, on_step: OnStep | None = None) -> NDArray[np.int64]:
        """`fit`, then `labels_`, (N,)."""
        return self.fit(views, ignored, on_step=on_step).labels_

    def predict_proba(self, views: Views) -> NDArray[Any]:
        """p(cluster | clip) of any clips, one or more: (N, K).

        Args:
            views: as for `fit`; a view of the fit that is not there at all is one that every clip lacks (tib).
        Raises:
            NotFittedError: before fit.
            ValueError: other views or dims than those fitted on.
        """
        return self.posteriors(views)[0]

    def predict(self, views: Views) -> NDArray[np.int64]:
        """The cluster of each clip, (N,). Raises as `predict_proba` does."""
        return np.concatenate([fused.argmax(axis=1) for _, fused, _ in self.iter_posteriors(views)])

    def modality_posteriors(self, views: Views) -> dict[str, NDArray[Any]]:
        """name -> (N, K) by each modality alone, NaN where missing. Raises as `predict_proba` does."""
        return self.posteriors(views)[1]

    def posteriors(self, views: Views) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """What `predict_proba` and `modality_posteriors` give, in one pass. Raises as `predict_proba` does."""
        checked = self._fitted_on(views)
        proba = np.empty((len(next(iter(checked.values()))), self.n_clusters_), self.dtype)
        by_modality = {name: np.empty_like(proba) for name in self.view_names_}
        for rows, fused, alone in self._stream(checked, CHUNK):
            proba[rows] = fused
            for name, values in alone.items():
                by_modality[name][rows] = values
        return proba, by_modality

    def iter_posteriors(
        self, views: Views, chunk: int = CHUNK
    ) -> Iterator[tuple[slice, NDArray[Any], dict[str, NDArray[Any]]]]:
        """What `posteriors` gives, for more clips than it could give at once: in order, `chunk` clips at a time.

        Args:
            views: as for `predict_proba`.
            chunk: n at most.
        Returns:
            an iterator over: which clips; (n, K) by all of a clip's modalities; name -> (n, K) by each alone, NaN where
            missing.
        Raises:
            ValueError: chunk is not 1 or more; else as `predict_proba` does.
        """
        checked = self._fitted_on(views)
        if chunk < 1:
            raise ValueError(f"chunk must be 1 clip or more, got {chunk!r}")
        return self._stream(checked, chunk)

    def _fitted_on(self, views: Views) -> dict[str, View]:
        """The views, checked, where they are those of the fit."""
        check_is_fitted(self, "net_")
        checked = self._checked(self._completed(views), self.objective)
        dims = {name: view.shape[1] for name, view in checked.items()}
        if dims != self.n_features_in_:
            raise ValueError(
                f"fitted on views of {_listed(self.n_features_in_)} features, got {_listed(dims)}; "
                "pass the same views, reduced in the same way"
            )
        return checked

    def _stream(
        self, views: Mapping[str, View], chunk: int
    ) -> Iterator[tuple[slice, NDArray[Any], dict[str, NDArray[Any]]]]:
        device = next(iter(self.net_.state_dict().values())).device
        for rows in row_slices(len(next(iter(views.values()))), chunk):
            fused, alone = self.net_.posteriors(as_tensors(views, device, rows))
            yield rows, fused.cpu().numpy(), {name: alone[name].cpu().numpy() for name in self.view_names_}

    def transform(self, views: Views) -> NDArray[Any]:
        """`predict_proba` as features, (N, K); a frame after set_output. Raises as `predict_proba` does."""
        return self.predict_proba(views)

    def score(self, views: Views, ignored: None = None) -> float:
        """How well one modality's clusters tell another's, without labels: mean over pairs of I(C^a; C^b) / log K.

        Between 0 and 1; higher is better; over the clips that have both. What GridSearchCV takes when not told.
        """
        stream = self.iter_posteriors(views)
        pairs = list(combinations(self.view_names_, 2))
        counts = {pair: torch.zeros(self.n_clusters_, self.n_clusters_, dtype=DTYPES[self.dtype]) for pair in pairs}
        seen = dict.fromkeys(pairs, False)
        for _, _, alone in stream:
            for a, b in pairs:
                both = np.isfinite(alone[a]).all(axis=1) & np.isfinite(alone[b]).all(axis=1)
                counts[a, b] += torch.from_numpy(alone[a][both].T @ alone[b][both])
                seen[a, b] = seen[a, b] or bool(both.any())
        shares = [float(joint_information(normalised_joint(counts[pair]))) for pair in pairs if seen[pair]]
        return float(np.mean(shares)) / float(np.log(self.n_clusters_)) if shares else float("nan")

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
            "net": self.net_.description,
            "n_features_in": self.n_features_in_,
            "seed": self.seed_,
            "restart_losses": self.restart_losses_.tolist(),
            "history": self.history_,
            **{name: getattr(self, f"{name}_") for name in LEARNED},
        }
        learned["n_clusters_curve"] = {str(k): value for k, value in self.n_clusters_curve_.items()}
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
        net = OBJECTIVES[estimator.objective].Net.from_description(learned["net"], DTYPES[estimator.dtype])
        state = {name[4:]: value for name, value in arrays.items() if name.startswith("net.")}
        _check_fits(net, state, path)
        net.load_state_dict(state)
        estimator.n_features_in_ = learned["n_features_in"]
        estimator.view_names_ = list(learned["n_features_in"])
        estimator.seed_ = learned["seed"]
        estimator.restart_losses_ = np.array(learned["restart_losses"])
        estimator.history_ = learned["history"]
        estimator.restart_labels_ = arrays["restart_labels"].numpy()
        curve = {int(k): value for k, value in learned["n_clusters_curve"].items()}
        kept = {**{name: learned[name] for name in LEARNED}, "n_clusters_curve": curve}
        estimator._learn(net.to(resolve_device(device)), kept)
        estimator._keep_posteriors(
            arrays["proba"].numpy(),
            {name: arrays[f"modality_proba.{name}"].numpy() for name in estimator.view_names_},
        )
        return estimator

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn may take for granted: views are no matrix, and may have gaps."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.dict, tags.input_tags.sparse = False, True, True
        tags.input_tags.allow_nan = self.objective == "tib"
        tags.transformer_tags.preserves_dtype = [self.dtype]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Of transform; scikit-learn names the columns by it."""
        return self.n_clusters_

    def _checked(self, views: Views, objective: str) -> dict[str, View]:
        names = OBJECTIVES[objective].LIST_NAMES
        return check_views(views, list_names=names, dtype=self.dtype, may_miss=objective == "tib")

    def _completed(self, views: Views) -> Views:
        """With a view that is not given standing for one that every clip lacks, where the objective can do without."""
        if self.objective == "reference" or not isinstance(views, Mapping) or not views:
            return views
        absent = [name for name in self.view_names_ if name not in views]
        if not absent:
            return views
        n_clips = len(views) if isinstance(views, MultiView) else np.shape(next(iter(views.values())))[0]
        gaps = {name: np.broadcast_to(np.nan, (n_clips, self.n_features_in_[name])) for name in absent}
        return MultiView({**dict(views.items()), **gaps}, getattr(views, "clip_ids", None))

    def _learn(self, net: Fitted, learned: Mapping[str, Any]) -> None:
        self.net_ = net
        for name in LEARNED:
            setattr(self, f"{name}_", learned[name])

    def _keep_posteriors(self, proba: NDArray[Any], by_modality: Mapping[str, NDArray[Any]]) -> None:
        self.proba_ = proba
        self.modality_proba_ = dict(by_modality)
        self.labels_ = scratch.empty((len(proba),), np.int64)
        self.confidence_ = scratch.empty((len(proba),), proba.dtype)
        self.agreement_ = scratch.empty((len(proba),), np.float64)
        for rows in row_slices(len(proba), CHUNK):
            self.labels_[rows] = proba[rows].argmax(axis=1)
            self.confidence_[rows] = proba[rows].max(axis=1)
            alone = {name: values[rows] for name, values in self.modality_proba_.items()}
            self.agreement_[rows] = agreement_of(self.labels_[rows], alone)
            for array in (proba, *self.modality_proba_.values(), self.labels_, self.confidence_, self.agreement_):
                scratch.let_go(array)


LEARNED = ("n_clusters", "n_clusters_curve", "schedule", "stability")


def agreement_of(clusters: NDArray[np.int64], by_modality: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """(N,) the share of a clip's modalities whose own posterior is highest for its cluster.

    Args:
        clusters: (N,).
        by_modality: name -> (N, K), NaN where missing; no clip lacks all.
    """
    there = np.stack([np.isfinite(p).all(axis=1) for p in by_modality.values()])  # (M, N)
    votes = np.stack([np.nan_to_num(p, nan=-1.0).argmax(axis=1) for p in by_modality.values()])
    return np.asarray(((votes == clusters) & there).sum(axis=0) / np.maximum(there.sum(axis=0), 1))


def _listed(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {dim}" for name, dim in dims.items())


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's, for JSON."""
    return value.item() if isinstance(value, np.generic) else value


def _check_fits(net: Any, state: Mapping[str, Tensor], path: str | Path) -> None:
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        name = min(name for name in expected | found if expected.get(name) != found.get(name))
        raise ValueError(
            f"{path}: model.json and model.safetensors disagree on {name}: expected shape {expected.get(name)}, "
            f"found {found.get(name)}; fit and save the model again"
        )
