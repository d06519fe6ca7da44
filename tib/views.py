"""Views as people hold them (arrays, lists, tensors, frames, sparse matrices) to checked (N, D_m) float arrays."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Views = Mapping[str, Any] | Sequence[Any]


def check_views(views: Views, *, list_names: Sequence[str], dtype: str) -> dict[str, NDArray[Any]]:
    """Views as a dict of finite (N, D_m) arrays of one length.

    Args:
        views: name -> (N, D_m), or a list of them in the order of list_names. Anything np.asarray turns into a
            numeric 2-D array, torch tensors and scipy sparse matrices (made dense).
        list_names: the names that a list's views get.
        dtype: "float32" or "float64", of the arrays returned.
    Returns:
        name -> (N, D_m), in the order given.
    Raises:
        ValueError: see the messages; each names the view, says what came and what to do.
        TypeError: `views` is neither a dict nor a list.
    Warns:
        UserWarning: a view whose rows are all the same.
    """
    named = _named(views, list_names)
    if len(named) < 2:
        raise ValueError(f"expected at least 2 views, got {len(named)} ({', '.join(named) or 'none'})")
    arrays = {name: _as_matrix(name, view) for name, view in named.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise ValueError(f"views differ in their number of clips: {lengths}; align their rows by clip first")
    return {name: _as_finite(name, array, dtype) for name, array in arrays.items()}


def check_n_clusters(n_clusters: int, n_clips: int) -> None:
    """Refuse more clusters than clips.

    Raises:
        ValueError: n_clusters > n_clips.
    """
    if n_clusters > n_clips:
        raise ValueError(f"n_clusters={n_clusters} is more than the {n_clips} clip(s) given; ask for fewer clusters")


def warn_of_constant_views(views: Mapping[str, NDArray[Any]]) -> None:
    """Warn of a view that says nothing: every clip has the same row. Constant columns are fine."""
    for name, array in views.items():
        if len(array) > 1 and (array == array[0]).all():
            warnings.warn(
                f"view {name!r} is the same for every clip, so it cannot tell clusters apart; leave it out "
                "or check its extractor",
                UserWarning,
                stacklevel=3,
            )


def _named(views: Views, list_names: Sequence[str]) -> dict[str, Any]:
    if isinstance(views, Mapping):
        for name in views:
            if not isinstance(name, str) or not name:
                raise ValueError(f"a view's name must be a non-empty string, got {name!r}")
        return dict(views)
    if not isinstance(views, list | tuple):
        raise TypeError(f"views must be a dict of name -> (N, D) array or a list of arrays, got {type(views).__name__}")
    if len(views) != len(list_names):
        raise ValueError(
            f"a list of views is taken as {', '.join(list_names)}, got {len(views)} view(s); "
            "pass a dict to name them yourself"
        )
    return dict(zip(list_names, views, strict=True))


def _as_matrix(name: str, view: Any) -> NDArray[Any]:
    """(N, D) array of numbers; N, D >= 1."""
    if isinstance(view, torch.Tensor):
        view = view.detach().cpu()
        view = view.to_dense() if view.layout != torch.strided else view
        view = view.float() if view.dtype == torch.bfloat16 else view  # numpy has no bfloat16
    elif hasattr(view, "toarray"):
        view = view.toarray()
    try:
        array = np.asarray(view)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"view {name!r} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"view {name!r} is not an array of numbers: its dtype is {array.dtype}")
    if array.ndim != 2:
        raise ValueError(
            f"view {name!r} must be 2-D, (N clips, D features), got {array.ndim}-D of shape {array.shape}; "
            "reshape one feature with x.reshape(-1, 1), one clip with x.reshape(1, -1)"
        )
    if 0 in array.shape:
        raise ValueError(f"view {name!r} is empty: its shape is {array.shape}")
    return array


def _as_finite(name: str, array: NDArray[Any], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what overflows is Inf, and refused below
        array = array.astype(dtype, copy=False)
    bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad_rows.size:
        raise ValueError(
            f"view {name!r} holds NaN or Inf (as {dtype}) in {bad_rows.size} row(s), first in row {bad_rows[0]}; "
            "the reference objective needs every modality of every clip: drop these clips from all views or fill "
            "them in"
        )
    return array
