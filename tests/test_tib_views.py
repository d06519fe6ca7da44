"""What a person may hand over as views, and what each mistake is told."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tib.views import check_n_clusters, check_views, warn_of_constant_views

NAMES = ("text", "visual", "audio")
ARRAY = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


class Frame:
    """What np.asarray needs of a data frame: mixed columns come as objects."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.values, dtype=object)


def check(first: Any, **options: Any) -> np.ndarray:
    checked = check_views({"text": first, "visual": ARRAY}, list_names=NAMES, **{"dtype": "float64", **options})
    return checked["text"]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.int64),
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(x),
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x).to(torch.bfloat16),
        lambda x: torch.tensor(x).to_sparse(),
        lambda x: sparse.csr_matrix(x),
        lambda x: sparse.coo_array(x),
        Frame,
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinds_of_arrays(make: Callable[[np.ndarray], Any], dtype: str) -> None:
    checked = check(make(ARRAY), dtype=dtype)
    assert checked.dtype == dtype
    assert checked.tolist() == ARRAY.tolist()


def test_a_pandas_frame() -> None:
    pandas = pytest.importorskip("pandas")
    assert check(pandas.DataFrame(ARRAY)).tolist() == ARRAY.tolist()


def test_a_list_gets_the_names_in_order_and_a_dict_keeps_its_own() -> None:
    views = [ARRAY, ARRAY + 1, ARRAY + 2]
    assert list(check_views(views, list_names=NAMES, dtype="float64")) == list(NAMES)
    assert check_views(views, list_names=NAMES, dtype="float64")["audio"][0, 0] == 3
    assert list(check_views({"b": ARRAY, "a": ARRAY}, list_names=NAMES, dtype="float64")) == ["b", "a"]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (ARRAY[0], r"view 'text' must be 2-D, \(N clips, D features\), got 1-D of shape \(2,\); reshape"),
        (ARRAY[None], r"view 'text' must be 2-D.*got 3-D"),
        (np.empty((0, 2)), r"view 'text' is empty: its shape is \(0, 2\)"),
        (np.empty((3, 0)), r"view 'text' is empty: its shape is \(3, 0\)"),
        ([["a", "b"]] * 3, r"view 'text' is not an array of numbers: its dtype is <U1"),
        (ARRAY + 1j, r"view 'text' is not an array of numbers: its dtype is complex128"),
        (Frame([[1, "x"]] * 3), r"view 'text' is not an array of numbers: could not convert string"),
        ([[1, 2], [3], [4]], r"view 'text' is not an array of numbers: setting an array element"),
    ],
)
def test_a_view_that_cannot_be_used_is_named(view: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(view)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_name_the_view_and_the_first_row(bad: float) -> None:
    holed = np.vstack([ARRAY, ARRAY])
    holed[2, 1] = holed[4, 0] = bad
    with pytest.raises(
        ValueError,
        match=r"view 'visual' holds NaN or Inf \(as float64\) in 2 row\(s\), first in row 2; .*every modality",
    ):
        check_views({"text": np.ones((6, 2)), "visual": holed}, list_names=NAMES, dtype="float64")


def test_a_number_too_large_for_float32_is_refused_without_a_numpy_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ValueError, match=r"view 'text' holds NaN or Inf \(as float32\) in 1 row\(s\), first in row 0"
        ):
            check([[1e300, 0], [0, 0], [0, 0]], dtype="float32")


def test_lengths_are_listed() -> None:
    with pytest.raises(ValueError, match=r"views differ in their number of clips: text 3, visual 2, audio 3; align"):
        check_views([ARRAY, ARRAY[:2], ARRAY], list_names=NAMES, dtype="float64")


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ({"text": ARRAY}, ValueError, r"expected at least 2 views, got 1 \(text\)"),
        ({}, ValueError, r"expected at least 2 views, got 0 \(none\)"),
        ([ARRAY, ARRAY], ValueError, r"a list of views is taken as text, visual, audio, got 2 view\(s\); pass a dict"),
        ({"": ARRAY, "text": ARRAY}, ValueError, r"a view's name must be a non-empty string, got ''"),
        ({0: ARRAY, "text": ARRAY}, ValueError, r"a view's name must be a non-empty string, got 0"),
        (ARRAY, TypeError, r"views must be a dict of name -> \(N, D\) array or a list of arrays, got ndarray"),
    ],
)
def test_views_that_are_no_views(views: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_views(views, list_names=NAMES, dtype="float64")


def test_more_clusters_than_clips() -> None:
    check_n_clusters(3, 3)
    with pytest.raises(ValueError, match=r"n_clusters=4 is more than the 3 clip\(s\) given"):
        check_n_clusters(4, 3)


def test_a_view_of_equal_rows_is_warned_of_and_a_constant_column_is_not() -> None:
    with pytest.warns(UserWarning, match=r"view 'visual' is the same for every clip"):
        warn_of_constant_views({"text": ARRAY, "visual": np.ones((3, 2))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_constant_views({"text": np.array([[1.0, 0.0], [1.0, 1.0]]), "one clip": ARRAY[:1]})
