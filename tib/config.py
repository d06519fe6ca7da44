"""The settings of a fit, checked where they are used: `Settings(**estimator.get_params())`."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

import torch

OBJECTIVES = ("reference",)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `TIB` was constructed with, checked. Their meaning is in TIB's docstring.

    Raises:
        ValueError: a value out of range or of another type; the message names the parameter.
    """

    n_clusters: int
    objective: str
    restarts: int
    epochs: int
    learning_rate: float
    superfluous_weight: float
    random_state: int | None
    device: str
    dtype: str

    def __post_init__(self) -> None:
        _check_integer("n_clusters", self.n_clusters, at_least=2)
        _check_integer("restarts", self.restarts, at_least=1)
        _check_integer("epochs", self.epochs, at_least=1)
        if self.random_state is not None:
            _check_integer("random_state", self.random_state, at_least=0)
        _check_number("learning_rate", self.learning_rate, positive=True)
        _check_number("superfluous_weight", self.superfluous_weight, positive=False)
        _check_choice("objective", self.objective, OBJECTIVES)
        _check_choice("dtype", self.dtype, tuple(DTYPES))
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


def _check_integer(name: str, value: object, *, at_least: int) -> None:
    # bool is an Integral too, and True clusters are a mistake
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be an integer >= {at_least}, got {value!r}")


def _check_number(name: str, value: object, *, positive: bool) -> None:
    expected = "a finite number > 0" if positive else "a finite number >= 0"
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    if value < 0 or (positive and value == 0):
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
