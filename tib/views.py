"""Views as people hold them (arrays, lists, tensors, frames, sparse matrices) to checked (N, D_m) float arrays."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Views = Mapping[str, Any] | Sequence[Any]
SHOWN = 5  # clips named in a message
TO_NUMBERS = "turn it into numbers first, one row a clip"
NO_CLIPS = "give the clips, and a row of NaN for each that lacks this view"
NO_FEATURES = "leave the view out"


class MultiView(Mapping[str, Any]):
    """Named views that are also rows of clips, so that scikit-learn can split them: GridSearchCV(TIB(), ...).fit(it).

    A dict would do everywhere else. Indexing by a name gives the view, by anything else the clips chosen.

    Args:
        views: name -> (N, D_m) of one length, anything that TIB takes; kept as arrays, which rows can be chosen of.
        clip_ids: (N,), kept with the rows; messages then name clips by them.
    Raises:
        ValueError: a view that is no array of numbers, different lengths, or a clip or view without a name.
    """

    def __init__(self, views: Mapping[str, Any], clip_ids: Sequence[str] | NDArray[Any] | None = None) -> None:
        self.views = {name: _as_matrix(name, view) for name, view in _named(views, None).items()}
        self.clip_ids = None if clip_ids is None else np.asarray(clip_ids)
        lengths = {name: len(view) for name, view in self.views.items()}
        if self.clip_ids is not None:
            lengths["clip_ids"] = len(self.clip_ids)
            _check_clip_ids(self.clip_ids)
        check_lengths(lengths)

    @property
    def shape(self) -> tuple[int, int]:
        """(N clips, M views)."""
        return next((int(view.shape[0]) for view in self.views.values()), 0), len(self.views)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.views[key]
        rows = key[0] if isinstance(key, tuple) else key  # scikit-learn says [rows, ...]
        rows = [rows] if isinstance(rows, Integral) else rows
        ids = None if self.clip_ids is None else self.clip_ids[rows]
        return MultiView({name: view[rows] for name, view in self.views.items()}, ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.views)

    def items(self) -> Any:
        return self.views.items()

    def keys(self) -> Any:
        return self.views.keys()

    def values(self) -> Any:
        return self.views.values()


def check_views(
    views: Views, *, list_names: Sequence[str] | None, dtype: str, may_miss: bool
) -> dict[str, NDArray[Any]]:
    """Views as a dict of (N, D_m) arrays of one length, finite but for rows of NaN where `may_miss`.

    Args:
        views: name -> (N, D_m), or a list of them. Anything np.asarray turns into a numeric 2-D array: lists, frames
            of pandas and polars; torch tensors; scipy sparse matrices (made dense).
        list_names: the names that a list's views get; None names any number of them view_0, view_1, ...
        dtype: "float32" or "float64", of the arrays returned.
        may_miss: whether a clip may lack a view, its row being NaN; a row that is NaN in part counts as missing.
    Returns:
        name -> (N, D_m), in the order given.
    Raises:
        ValueError: see the messages; each names the view, says what came and what to do.
        TypeError: `views` is neither a mapping nor a list.
    Warns:
        UserWarning: rows that hold NaN and numbers, which are taken as missing.
    """
    named = _named(views, list_names)
    if len(named) < 2:
        raise ValueError(
            f"expected at least 2 views, got {len(named)} ({', '.join(named) or 'none'}); "
            "one view alone is a matter for k-means or spectral clustering"
        )
    arrays = {name: _as_matrix(name, view) for name, view in named.items()}
    check_lengths({name: len(array) for name, array in arrays.items()})
    checked = {name: _as_finite(name, array, dtype, may_miss=may_miss) for name, array in arrays.items()}
    if may_miss:
        ids = getattr(views, "clip_ids", None)
        _check_nothing_missing_whole(checked, ids)
    return checked


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Refuse views of different lengths.

    Raises:
        ValueError: they differ.
    """
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {told}; align their rows by clip first"
        )


def check_n_clusters(n_clusters: int, n_clips: int) -> None:
    """Refuse more clusters than clips.

    Raises:
        ValueError: n_clusters > n_clips, or one clip alone.
    """
    if n_clips < 2:
        raise ValueError(
            f"Found array with {n_clips} sample(s) while a minimum of 2 is required: one clip has no clusters"
        )
    if n_clusters > n_clips:
        raise ValueError(f"n_clusters={n_clusters} is more than the {n_clips} clip(s) given; ask for fewer clusters")


def warn_of_constant_views(views: Mapping[str, NDArray[Any]]) -> None:
    """Warn of a view that says nothing: every clip that has it has the same row. Constant columns are fine."""
    for name, array in views.items():
        rows = array[~np.isnan(array).any(axis=1)]
        if len(rows) > 1 and (rows == rows[0]).all():
            warnings.warn(
                f"view {name!r} is the same for every clip, so it cannot tell clusters apart; leave it out "
                "or check its extractor",
                UserWarning,
                stacklevel=3,
            )


def _check_clip_ids(clip_ids: NDArray[Any]) -> None:
    for row, clip_id in enumerate(clip_ids.tolist()):
        if clip_id in ("", None):
            raise ValueError(f"a clip's id must be a non-empty string, got {clip_id!r} for row {row}")


def _named(views: Views, list_names: Sequence[str] | None) -> dict[str, Any]:
    if isinstance(views, Mapping):
        for name in views:
            if not isinstance(name, str) or not name:
                raise ValueError(f"a view's name must be a non-empty string, got {name!r}")
        return dict(views.items())
    if not isinstance(views, list | tuple):
        raise TypeError(f"views must be a dict of name -> (N, D) array or a list of arrays, got {type(views).__name__}")
    names = list_names if list_names is not None else [f"view_{index}" for index in range(len(views))]
    if len(views) != len(names):
        raise ValueError(
            f"a list of views is taken as {', '.join(names)}, got {len(views)} view(s); "
            "pass a dict to name them yourself"
        )
    return dict(zip(names, views, strict=True))


def _as_matrix(name: str, view: Any) -> NDArray[Any]:
    """(N, D) array of numbers; N, D >= 1. The words are scikit-learn's own where it has some for the case."""
    try:
        array = _as_array(view)
    except (TypeError, ValueError) as error:
        raise ValueError(f"view {name!r} is not an array of numbers: {error}; {TO_NUMBERS}") from error
    if array.dtype.kind == "c":
        raise ValueError(
            f"view {name!r}: Complex data not supported, its dtype is {array.dtype}; pass the parts side by side, "
            "np.hstack([x.real, x.imag])"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"view {name!r} is not an array of numbers: its dtype is {array.dtype}; {TO_NUMBERS}")
    if array.ndim != 2:
        raise ValueError(
            f"view {name!r}: Expected 2D array, got {array.ndim}D array instead, of shape {array.shape}. Reshape your "
            "data to (N clips, D features): array.reshape(-1, 1) for a single feature, array.reshape(1, -1) for a "
            "single clip, array.reshape(len(array), -1) for several axes of features"
        )
    for count, what, advice in zip(array.shape, ("sample", "feature"), (NO_CLIPS, NO_FEATURES), strict=True):
        if count == 0:
            raise ValueError(
                f"view {name!r}: Found array with 0 {what}(s) (shape={array.shape}) while a minimum of 1 is required; "
                f"{advice}"
            )
    return array


def _as_array(view: Any) -> NDArray[Any]:
    if isinstance(view, torch.Tensor):
        view = view.detach().cpu()
        view = view.to_dense() if view.layout != torch.strided else view
        view = view.float() if view.dtype == torch.bfloat16 else view  # numpy has no bfloat16
        view = view.numpy()
    elif hasattr(view, "toarray"):
        view = view.toarray()
    elif hasattr(view, "iloc"):
        view = view.to_numpy(na_value=np.nan)  # pandas has a missing value of its own
    array = np.asarray(view)
    if array.dtype.kind != "O":
        return array
    for value in array.flat:
        if isinstance(value, str | bytes):  # "3" would be taken for 3 below, where a category was meant
            raise ValueError(f"it holds the text {value!r}")
    return array.astype(np.float64)


def _as_finite(name: str, array: NDArray[Any], dtype: str, *, may_miss: bool) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what overflows is Inf, and refused below
        array = array.astype(dtype, copy=True)
    missing = np.isnan(array)
    infinite = np.flatnonzero(np.isinf(array).any(axis=1))
    if infinite.size:
        raise ValueError(
            f"view {name!r} holds Inf (as {dtype}) in {infinite.size} row(s), first in row {infinite[0]}; "
            "only NaN may stand for a missing modality"
        )
    rows = missing.any(axis=1)
    if not rows.any():
        return array
    if not may_miss:
        raise ValueError(
            f"view {name!r} holds NaN in {rows.sum()} row(s), first in row {np.flatnonzero(rows)[0]}; the reference "
            "objective needs every modality of every clip: drop these clips from all views or fill them in"
        )
    in_part = rows & ~missing.all(axis=1)
    if in_part.any():
        warnings.warn(
            f"view {name!r} holds NaN beside numbers in {in_part.sum()} row(s), first in row "
            f"{np.flatnonzero(in_part)[0]}; these clips are taken as lacking the view: fill single gaps in before",
            UserWarning,
            stacklevel=4,
        )
        array[in_part] = np.nan
    return array


def _check_nothing_missing_whole(views: Mapping[str, NDArray[Any]], clip_ids: Sequence[str] | None) -> None:
    nothing = np.all([np.isnan(array).any(axis=1) for array in views.values()], axis=0)
    if nothing.any():
        rows = np.flatnonzero(nothing)
        shown = [str(row) if clip_ids is None else str(clip_ids[row]) for row in rows[:SHOWN]]
        shown += ["..."] if len(rows) > SHOWN else []
        what = "row" if clip_ids is None else "clip"
        raise ValueError(
            f"{len(rows)} clip(s) have no view at all, only NaN: {what} {', '.join(shown)}; leave them out"
        )


def check_trainable(views: Mapping[str, NDArray[Any]]) -> None:
    """Refuse views of which nothing could be learned.

    Raises:
        ValueError: a view all NaN; or no clip that has two views, when nothing ties one to another.
    """
    there = {name: ~np.isnan(array).any(axis=1) for name, array in views.items()}
    for name, rows in there.items():
        if not rows.any():
            raise ValueError(f"view {name!r} is missing for every clip (all NaN); leave it out of the views")
    if np.sum(list(there.values()), axis=0).max() < 2:
        raise ValueError(
            "no clip has two of the views: clusters are learned from what the views of a clip share; "
            "give clips with two views or more, or cluster each view by itself"
        )
