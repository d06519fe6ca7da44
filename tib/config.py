"""The settings of a fit, checked where they are used: `Settings.of(estimator.get_params())`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

OBJECTIVES = ("tib", "reference")
SCHEDULES = ("auto", "free", "anchored", "scratch")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
# What a parameter is where it is None: the two objectives are trained in different ways.
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "tib": {"restarts": 12, "learning_rate": 0.01, "superfluous_weight": 1e-3},
    "reference": {"restarts": 1, "epochs": 500, "learning_rate": 0.05, "superfluous_weight": 1.0},
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `TIB` was constructed with, checked, None replaced by the objective's own. Meanings: TIB's docstring.

    Raises:
        ValueError: a value out of range or of another type; the message names the parameter.
    """

    n_clusters: int | str
    max_clusters: int
    objective: str
    restarts: int
    epochs: int | None
    batch_size: int | None
    learning_rate: float
    schedule: str
    consistency_weight: float
    fusion_weight: float
    superfluous_weight: float
    divergence_weight: float
    complementarity_weight: float
    neighbour_share: float
    balance: float
    joint_momentum: float
    early_stop: bool
    random_state: int | None
    device: str
    dtype: str

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Settings":
        """From an estimator's parameters."""
        _check_choice("objective", parameters["objective"], OBJECTIVES)
        own = OWN_DEFAULTS[parameters["objective"]]
        values: dict[str, Any] = {n: own.get(n) if value is None else value for n, value in parameters.items()}
        return cls(**values)

    def __post_init__(self) -> None:
        if self.n_clusters != "auto":
            _check_integer("n_clusters", self.n_clusters, at_least=2, otherwise=" or 'auto'")
        _check_integer("max_clusters", self.max_clusters, at_least=2)
        _check_integer("restarts", self.restarts, at_least=1)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), at_least=2 if name == "batch_size" else 1)
        if self.random_state is not None:
            _check_integer("random_state", self.random_state, at_least=0)
            if int(self.random_state) >= 2**63:
                raise ValueError(f"random_state must be below 2**63, got {self.random_state!r}")
        _check_number("learning_rate", self.learning_rate, positive=True)
        for name in ("consistency", "fusion", "superfluous", "divergence", "complementarity"):
            _check_number(f"{name}_weight", getattr(self, f"{name}_weight"), positive=False)
        if self.objective == "tib" and not self.consistency_weight and not self.fusion_weight:
            raise ValueError("consistency_weight and fusion_weight are both 0: nothing would make clusters; keep one")
        _check_number("neighbour_share", self.neighbour_share, positive=False, at_most=1.0)
        _check_number("balance", self.balance, positive=False)
        _check_number("joint_momentum", self.joint_momentum, positive=False, at_most=0.999)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("dtype", self.dtype, tuple(DTYPES))
        if not isinstance(self.early_stop, bool | np.bool_):
            raise ValueError(f"early_stop must be True or False, got {self.early_stop!r}")
        resolve_device(self.device)


def resolve_device(device: str) -> torch.device:
    """The device meant by "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: no such device, or CUDA asked for where torch sees none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch sees no CUDA device; use device='auto' or 'cpu'")
    return resolved


def _check_integer(name: str, value: object, *, at_least: int, otherwise: str = "") -> None:
    # bool is an Integral too, and True clusters are a mistake
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be an integer >= {at_least}{otherwise}, got {value!r}")


def _check_number(name: str, value: object, *, positive: bool, at_most: float = math.inf) -> None:
    expected = "a finite number > 0" if positive else "a finite number >= 0"
    expected += f" and <= {at_most:g}" if at_most < math.inf else ""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    number = float(value)
    if number < 0 or (positive and number == 0) or number > at_most:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
