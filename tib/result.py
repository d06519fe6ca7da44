"""What passes between an objective and the estimator: a report a step, and the outcome of a fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a caller is shown after a step.

    Attributes:
        stage: "reference"; or the schedule, "free", "anchored" or "scratch". Each counts its steps from 1.
        step: from 1 to `steps`.
        steps: how many there will be in this stage.
        losses: each term and their weighted sum, `loss`, in nats: of the restart that has the lowest loss now
            (reference), or the mean over the restarts alive.
        alive: restarts whose loss is finite.
        predict: the clusters as they are now, (N,) int64. Calling it changes nothing in training.
        stability: mean ARI between the restarts' clusters as they are now, a label-free score; NaN for one restart.
    """

    stage: str
    step: int
    steps: int
    losses: dict[str, float]
    alive: int
    predict: Callable[[], NDArray[np.int64]]
    stability: Callable[[], float]


OnStep = Callable[[StepReport], Any]


class Fitted(Protocol):
    """A network that is done: what the estimator predicts with, saves and loads."""

    @property
    def description(self) -> dict[str, Any]:
        """JSON, from which `from_description` makes one of the same shapes."""

    def posteriors(self, views: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(N, K) by what the objective predicts from; name -> (N, K) by each modality alone, NaN where missing."""

    def state_dict(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an objective's training ends with.

    Attributes:
        net: what predicts.
        restart_losses: (R,) final, of every restart that lived.
        restart_labels: (R, N) clusters by each restart alone, of the smallest integers that hold K.
        proba: (N, K) the posteriors of the clips fitted on.
        modality_proba: name -> (N, K) by each modality alone, NaN where missing.
        history: a dict a step: step, the terms, loss.
        learned: further learned attributes of the estimator, JSON: name without its trailing underscore -> value.
    """

    net: Any
    restart_losses: NDArray[np.float64]
    restart_labels: NDArray[np.signedinteger]
    proba: NDArray[np.floating]
    modality_proba: dict[str, NDArray[np.floating]]
    history: list[dict[str, float]]
    learned: dict[str, Any] = field(default_factory=dict)


def label_type(n_clusters: int) -> type[np.int16] | type[np.int32]:
    """Of cluster numbers where there are many, one a restart and clip."""
    return np.int16 if n_clusters <= 2**15 else np.int32


def history_of(curves: Mapping[str, NDArray[np.float64]]) -> list[dict[str, float]]:
    """name -> (steps,) to a row a step; a term that a step did not compute (NaN) is left out of its row."""
    steps = len(next(iter(curves.values())))
    return [
        {
            "step": step + 1,
            **{name: float(c[step]) for name, c in curves.items() if name == "loss" or c[step] == c[step]},
        }
        for step in range(steps)
    ]
