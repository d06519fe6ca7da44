"""Views as people hold them (arrays, files, lists, tensors, frames, sparse matrices), checked, read by rows as floats.

What can be larger than memory, a file's array, is never read or converted as a whole: checks go over it in chunks.
"""

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
CHUNK_VALUES = 2**22  # read at a time while a view is checked


class View:
    """A modality's (N, D) matrix, checked, whose rows become floats when they are read: `view[rows]`.

    The source is read again each time and not copied: it must stay as it is while a view is in use.

    Attributes:
        shape, dtype: of what is read.
        present: (N,) bool, which clips have the view; the others' rows are NaN throughout.
        constant: whether the clips that have it all have the same row.
    """

    def __init__(self, name: str, source: Any, dtype: str, *, may_miss: bool) -> None:
        self.source, self.dtype = source, np.dtype(dtype)
        self.shape = (int(source.shape[0]), int(source.shape[1]))
        self.present = np.ones(len(self), dtype=bool)
        self.constant = len(self) > 1
        self._check(name, may_miss)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[Any]:
        """(n, D) the rows, a copy; a row that the source has in part is NaN throughout."""
        values = self._floats(rows)
        values[~self.present[rows]] = np.nan
        return values

    def chunks(self) -> Iterator[slice]:
        """Of all rows, of CHUNK_VALUES values at most."""
        return row_slices(len(self), max(1, CHUNK_VALUES // self.shape[1]))

    def _floats(self, rows: slice | NDArray[np.integer]) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # what overflows is Inf, and refused when the view is checked
            return np.asarray(self.source[rows]).astype(self.dtype)

    def _check(self, name: str, may_miss: bool) -> None:
        infinite, in_part = _Found(), _Found()
        first = None
        for rows in self.chunks():
            values = self._floats(rows)
            missing = np.isnan(values)
            gaps = missing.any(axis=1)
            infinite.add(np.isinf(values).any(axis=1), rows)
            in_part.add(gaps & ~missing.all(axis=1), rows)
            self.present[rows] = ~gaps
            there = values[~gaps]
            if len(there):
                first = there[0] if first is None else first
                self.constant = self.constant and bool((there == first).all())
        self.constant = self.constant and self.present.sum() > 1
        if infinite.count:
            raise ValueError(
                f"view {name!r} holds Inf (as {self.dtype}) in {infinite.count} row(s), first in row {infinite.first}; "
                "only NaN may stand for a missing modality"
            )
        if not may_miss and not self.present.all():
            gaps = np.flatnonzero(~self.present)
            raise ValueError(
                f"view {name!r} holds NaN in {len(gaps)} row(s), first in row {gaps[0]}; the reference "
                "objective needs every modality of every clip: drop these clips from all views or fill them in"
            )
        if in_part.count:
            warnings.warn(
                f"view {name!r} holds NaN beside numbers in {in_part.count} row(s), first in row {in_part.first}; "
                "these clips are taken as lacking the view: fill single gaps in before",
                UserWarning,
                stacklevel=5,
            )


def as_tensors(
    views: Mapping[str, View], device: torch.device, rows: slice | NDArray[np.integer] = slice(None)
) -> dict[str, torch.Tensor]:
    """name -> (n, D) some rows, or all, on a device."""
    return {name: torch.from_numpy(view[rows]).to(device) for name, view in views.items()}


class _Found:
    """Rows of some kind, met in chunks: how many, and the first."""

    def __init__(self) -> None:
        self.count, self.first = 0, -1

    def add(self, among: NDArray[np.bool_], rows: slice) -> None:
        if among.any():
            self.first = self.first if self.count else rows.start + int(among.argmax())
            self.count += int(among.sum())


def row_slices(n_rows: int, most: int) -> Iterator[slice]:
    """0 to n_rows, in order, `most` at a time."""
    for start in range(0, n_rows, most):
        yield slice(start, min(start + most, n_rows))


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


def check_views(views: Views, *, list_names: Sequence[str] | None, dtype: str, may_miss: bool) -> dict[str, View]:
    """Views as a dict of (N, D_m) views of one length, finite but for rows of NaN where `may_miss`.

    Args:
        views: name -> (N, D_m), or a list of them. Arrays, np.memmap and whatever else has a shape, a NumPy dtype and
            rows to be indexed (HDF5, Zarr) stay where they are. So may be anything np.asarray turns into a numeric
            2-D array: lists, frames of pandas and polars; torch tensors; scipy sparse matrices (made dense).
        list_names: the names that a list's views get; None names any number of them view_0, view_1, ...
        dtype: "float32" or "float64", of the rows read.
        may_miss: whether a clip may lack a view, its row being NaN; a row that is NaN in part counts as missing.
    Returns:
        name -> view, in the order given.
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
    checked = {name: View(name, array, dtype, may_miss=may_miss) for name, array in arrays.items()}
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


def warn_of_constant_views(views: Mapping[str, View]) -> None:
    """Warn of a view that says nothing: every clip that has it has the same row. Constant columns are fine."""
    for name, view in views.items():
        if view.constant:
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


def _as_matrix(name: str, view: Any) -> Any:
    """(N, D) numbers, in memory or in a file; N, D >= 1. The words are scikit-learn's own where it has some."""
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


def _has_rows(view: Any) -> bool:
    """Whether rows of numbers can be read of it: NumPy's arrays, and files' that look alike."""
    if not isinstance(getattr(view, "dtype", None), np.dtype) or hasattr(view, "toarray") or hasattr(view, "iloc"):
        return False
    return view.dtype.kind != "O" and len(view.shape) == 2


def _as_array(view: Any) -> Any:
    if _has_rows(view):
        return view  # left where it is
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


def _check_nothing_missing_whole(views: Mapping[str, View], clip_ids: Sequence[str] | None) -> None:
    nothing = ~np.any([view.present for view in views.values()], axis=0)
    if nothing.any():
        rows = np.flatnonzero(nothing)
        shown = [str(row) if clip_ids is None else str(clip_ids[row]) for row in rows[:SHOWN]]
        shown += ["..."] if len(rows) > SHOWN else []
        what = "row" if clip_ids is None else "clip"
        raise ValueError(
            f"{len(rows)} clip(s) have no view at all, only NaN: {what} {', '.join(shown)}; leave them out"
        )


def check_trainable(views: Mapping[str, View]) -> None:
    """Refuse views of which nothing could be learned.

    Raises:
        ValueError: a view all NaN; or no clip that has two views, when nothing ties one to another.
    """
    for name, view in views.items():
        if not view.present.any():
            raise ValueError(f"view {name!r} is missing for every clip (all NaN); leave it out of the views")
    if not (np.sum([view.present for view in views.values()], axis=0) > 1).any():
        raise ValueError(
            "no clip has two of the views: clusters are learned from what the views of a clip share; "
            "give clips with two views or more, or cluster each view by itself"
        )
