"""What a person may hand over as views, and what each mistake is told."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tib import MultiView
from tib import views as views_module
from tib.views import View, check_n_clusters, check_trainable, check_views, warn_of_constant_views

NAMES = ("text", "visual", "audio")
ARRAY = np.array([[1.0, 2.0], [3.0, 0.0], [5.0, 6.0]])
NAN = np.nan


class Frame:
    """What np.asarray needs of a data frame: mixed columns come as objects."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.values, dtype=object)


def pandas_frame(array: Any, **options: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(array, **options)


def polars_frame(array: Any) -> Any:
    return pytest.importorskip("polars").DataFrame(array)


# Each holds the same numbers; tests/test_tib_estimator.py clusters all of them.
KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "float16": lambda x: x.astype(np.float16),
    "int64": lambda x: x.astype(np.int64),
    "int8": lambda x: x.astype(np.int8),
    "list": lambda x: x.tolist(),
    "columns first": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "other byte order": lambda x: x.astype(">f8"),
    "objects": lambda x: x.astype(object),
    "an __array__": Frame,
    "tensor": lambda x: torch.tensor(x),
    "tensor with gradient": lambda x: torch.tensor(x, requires_grad=True),
    "bfloat16 tensor": lambda x: torch.tensor(x).to(torch.bfloat16),
    "sparse tensor": lambda x: torch.tensor(x).to_sparse(),
    "sparse CSR tensor": lambda x: torch.tensor(x).to_sparse_csr(),
    **{f"sparse {name}": (lambda x, name=name: sparse.coo_matrix(x).asformat(name))
       for name in ("coo", "csr", "csc", "bsr", "lil", "dok", "dia")},
    **{f"sparse {name} array": (lambda x, name=name: sparse.coo_array(x).asformat(name))
       for name in ("coo", "csr", "csc", "bsr", "lil", "dok", "dia")},
    "pandas": pandas_frame,
    "pandas of its own types": lambda x: pandas_frame(x, dtype="Float64"),
    "polars": polars_frame,
}  # fmt: skip


def check(first: Any, **options: Any) -> np.ndarray:
    settings: dict[str, Any] = {"list_names": NAMES, "dtype": "float64", "may_miss": True, **options}
    return check_views({"text": first, "visual": ARRAY}, **settings)["text"][:]


def checked(views: dict[str, np.ndarray]) -> dict[str, View]:
    return {name: View(name, view, "float64", may_miss=True) for name, view in views.items()}


def refused(error: type[Exception], message: str, views: Any, **options: Any) -> None:
    settings: dict[str, Any] = {"list_names": NAMES, "dtype": "float64", "may_miss": True, **options}
    with pytest.raises(error, match=message):
        check_views(views, **settings)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinds_of_arrays(kind: str, dtype: str) -> None:
    rows = check(KINDS[kind](ARRAY), dtype=dtype)
    assert type(rows) is np.ndarray
    assert rows.dtype == dtype
    assert rows.tolist() == ARRAY.tolist()


def test_truth_values_are_numbers() -> None:
    assert check(ARRAY > 2).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert check(torch.tensor(ARRAY > 2)).tolist() == [[0, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [[1.0, 2.0], [None, None], [5.0, 6.0]],
        lambda: pandas_frame([[1.0, 2.0], [None, None], [5.0, 6.0]]),
        lambda: pandas_frame([[1, 2], [None, None], [5, 6]], dtype="Int64"),
        lambda: polars_frame([[1, None, 5], [2, None, 6]]),  # by columns
    ],
    ids=["list", "pandas", "pandas of its own types", "polars"],
)
def test_what_each_library_calls_missing_is_missing(make: Callable[[], Any]) -> None:
    rows = check(make())
    assert np.isnan(rows[1]).all()
    assert rows[[0, 2]].tolist() == [[1, 2], [5, 6]]


def test_the_rows_read_are_a_copy() -> None:
    mine = ARRAY.copy()
    rows = check(mine)
    rows[0] = 7
    assert mine.tolist() == ARRAY.tolist()


class Rows:
    """A file's array as HDF5 and Zarr libraries have it: rows in ascending order, never all at once."""

    def __init__(self, values: np.ndarray, most: int) -> None:
        self.values, self.most = values, most
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, 2

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = self.values[rows]
        assert len(chosen) <= self.most
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all()
        return chosen

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("converted as a whole")


def holed(n_clips: int) -> np.ndarray:
    view = np.random.default_rng(0).normal(size=(n_clips, 3))
    view[::5], view[7, 1] = NAN, NAN
    return view


def test_a_files_array_is_read_by_rows_and_never_converted_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views_module, "CHUNK_VALUES", 12)  # chunks of 4 clips
    expected = holed(22)
    np.save(tmp_path / "view.npy", expected)
    for source in (Rows(expected, 4), np.load(tmp_path / "view.npy", mmap_mode="r")):
        with pytest.warns(UserWarning, match=r"view 'text' holds NaN beside numbers in 1 row\(s\), first in row 7;"):
            view = check_views(
                {"text": source, "visual": np.ones((22, 1))}, list_names=None, dtype="float32", may_miss=True
            )["text"]
        assert np.array_equal(view.present, np.isfinite(expected).all(axis=1))
        assert not view.constant
        assert [(rows.start, rows.stop) for rows in view.chunks()] == [
            (0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 22)
        ]  # fmt: skip
        for rows in (slice(5, 8), np.array([1, 7, 21])):
            kept = np.where(view.present[rows, None], expected[rows], NAN).astype(np.float32)
            assert np.array_equal(view[rows], kept, equal_nan=True)


def test_what_is_wrong_is_found_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "CHUNK_VALUES", 4)
    bad = np.arange(20.0).reshape(10, 2)
    bad[5, 0] = bad[9, 1] = np.inf
    refused(ValueError, r"'text' holds Inf \(as float64\) in 2 row\(s\), first in row 5;", [bad] * 3)
    bad[5, 0] = bad[9, 1] = NAN
    refused(ValueError, r"'text' holds NaN in 2 row\(s\), first in row 5;", [bad] * 3, may_miss=False)
    equal = np.ones((10, 2))
    assert View("text", equal, "float64", may_miss=True).constant
    equal[9, 1] = 2
    assert not View("text", equal, "float64", may_miss=True).constant


def test_a_list_gets_the_names_in_order_and_a_dict_keeps_its_own() -> None:
    views, options = [ARRAY, ARRAY + 1, ARRAY + 2], {"dtype": "float64", "may_miss": True}
    assert list(check_views(views, list_names=NAMES, **options)) == list(NAMES)
    assert check_views(views, list_names=NAMES, **options)["audio"][:][0, 0] == 3
    assert list(check_views(views[:2], list_names=None, **options)) == ["view_0", "view_1"]
    assert list(check_views({"b": ARRAY, "a": ARRAY}, list_names=NAMES, **options)) == ["b", "a"]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            ARRAY[0],
            r"view 'text': Expected 2D array, got 1D array instead, of shape \(2,\). Reshape your data .*"
            r"array.reshape\(-1, 1\) for a single feature, array.reshape\(1, -1\) for a single clip",
        ),
        (ARRAY[None], r"view 'text': Expected 2D array, got 3D array instead.*array.reshape\(len\(array\), -1\) for"),
        (3.0, r"view 'text': Expected 2D array, got 0D array instead"),
        (np.empty((0, 2)), r"view 'text': Found array with 0 sample\(s\) \(shape=\(0, 2\)\) while a minimum of 1 is"),
        (np.empty((3, 0)), r"view 'text': Found array with 0 feature\(s\) \(shape=\(3, 0\)\).*; leave the view out"),
        ([["a", "b"]] * 3, r"view 'text' is not an array of numbers: its dtype is <U1; turn it into numbers first"),
        (np.array([["a", "b"]] * 3, object), r"view 'text' is not an array of numbers: it holds the text 'a'; turn"),
        (np.array([["1", "2"]] * 3, object), r"view 'text' is not an array of numbers: it holds the text '1'; turn"),
        (Frame([[1, b"x"]] * 3), r"view 'text' is not an array of numbers: it holds the text b'x'"),
        (Frame([[1, {}]] * 3), r"view 'text' is not an array of numbers: float\(\) argument must be"),
        (np.zeros((3, 2), "datetime64[s]"), r"view 'text' is not an array of numbers: its dtype is datetime64\[s\]"),
        (ARRAY + 1j, r"view 'text': Complex data not supported, its dtype is complex128; pass the parts side by side"),
        (torch.ones(3, 2, dtype=torch.complex64), r"view 'text': Complex data not supported, its dtype is complex64"),
        (torch.ones(3, 2).to(torch.float8_e5m2), r"view 'text' is not an array of numbers: .*Float8_e5m2"),
        ([[1, 2], [3], [4]], r"view 'text' is not an array of numbers: setting an array element"),
    ],
)
def test_a_view_that_cannot_be_used_is_named(view: Any, message: str) -> None:
    refused(ValueError, message, {"text": view, "visual": ARRAY})


def test_text_in_a_frame_is_refused() -> None:
    frame = pandas_frame(ARRAY).assign(speaker=["ann", "bob", "ann"])
    refused(ValueError, r"view 'text' is not an array of numbers: it holds the text 'ann'", [frame, ARRAY, ARRAY])


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
@pytest.mark.parametrize("may_miss", [True, False])
def test_inf_names_the_view_and_the_first_row(bad: float, may_miss: bool) -> None:
    holed = np.vstack([ARRAY, ARRAY])
    holed[2, 1] = holed[4, 0] = bad
    message = r"view 'visual' holds Inf \(as float64\) in 2 row\(s\), first in row 2; only NaN may stand for a missing"
    refused(ValueError, message, {"text": np.ones((6, 2)), "visual": holed}, may_miss=may_miss)


def test_a_number_too_large_for_float32_is_refused_without_a_numpy_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        huge = np.array([[1e300, 0], [0, 0], [0, 0]])
        message = r"view 'text' holds Inf \(as float32\) in 1 row\(s\), first in row 0"
        refused(ValueError, message, [huge, ARRAY, ARRAY], dtype="float32")


def test_a_row_of_nan_is_a_clip_without_the_view() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = check([[1, 2], [NAN, NAN], [5, 6]])
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]


def test_a_row_that_is_nan_in_part_is_warned_of_and_taken_as_missing() -> None:
    with pytest.warns(UserWarning, match=r"view 'text' holds NaN beside numbers in 2 row\(s\), first in row 1; .*fill"):
        rows = check([[1, 2], [NAN, 0], [5, NAN]])
    assert np.isnan(rows).tolist() == [[False, False], [True, True], [True, True]]


def test_nan_is_refused_where_nothing_may_miss() -> None:
    message = r"view 'audio' holds NaN in 1 row\(s\), first in row 2; the reference objective needs every modality"
    refused(ValueError, message, [ARRAY, ARRAY, np.array([[1, 2], [3, 4], [NAN, NAN]])], may_miss=False)


@pytest.mark.parametrize("partial", [False, True])
def test_a_clip_with_no_view_at_all_is_named(partial: bool) -> None:
    rows = np.arange(20.0).reshape(10, 2)
    rows[2:9] = NAN
    other = rows.copy()
    other[8, 0] = 1.0 if partial else NAN  # not a whole row: still nothing to go by
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = r"7 clip\(s\) have no view at all, only NaN: row 2, 3, 4, 5, 6, \.\.\.; leave them out"
        refused(ValueError, message, {"text": rows, "visual": other})
        message = r"7 clip\(s\) have no view at all, only NaN: clip c2, c3, c4, c5, c6, \.\.\.; leave them out"
        refused(ValueError, message, MultiView({"text": rows, "visual": other}, [f"c{row}" for row in range(10)]))
        chosen = MultiView({"text": rows, "visual": other}, [f"c{row}" for row in range(10)])[[0, 8]]
        refused(ValueError, r"1 clip\(s\) have no view at all, only NaN: clip c8; leave them out", chosen)


def test_lengths_are_listed() -> None:
    message = r"Found input variables with inconsistent numbers of samples: text 3, visual 2, audio 3; align their rows"
    refused(ValueError, message, [ARRAY, ARRAY[:2], ARRAY])


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ({"text": ARRAY}, ValueError, r"expected at least 2 views, got 1 \(text\)"),
        ({}, ValueError, r"expected at least 2 views, got 0 \(none\)"),
        ([ARRAY, ARRAY], ValueError, r"a list of views is taken as text, visual, audio, got 2 view\(s\); pass a dict"),
        ({"": ARRAY, "text": ARRAY}, ValueError, r"a view's name must be a non-empty string, got ''"),
        ({0: ARRAY, "text": ARRAY}, ValueError, r"a view's name must be a non-empty string, got 0"),
        (ARRAY, TypeError, r"views must be a dict of name -> \(N, D\) array or a list of arrays, got ndarray"),
        (None, TypeError, r"views must be a dict of name -> \(N, D\) array or a list of arrays, got NoneType"),
    ],
)
def test_views_that_are_no_views(views: Any, error: type[Exception], message: str) -> None:
    refused(error, message, views)


def test_one_view_of_a_list_of_any_number() -> None:
    refused(ValueError, r"expected at least 2 views, got 1 \(view_0\); one view alone is", [ARRAY], list_names=None)


def test_a_view_no_clip_has() -> None:
    check_trainable(checked({"text": np.array([[NAN], [1.0], [1.0]]), "audio": ARRAY}))
    with pytest.raises(ValueError, match=r"view 'audio' is missing for every clip \(all NaN\); leave it out"):
        check_trainable(checked({"text": ARRAY, "audio": np.full((3, 2), NAN)}))


def test_views_that_no_clip_has_two_of() -> None:
    with pytest.raises(ValueError, match="no clip has two of the views: .* cluster each view by itself"):
        check_trainable(checked({"text": np.array([[NAN], [1.0], [1.0]]), "audio": np.array([[1.0], [NAN], [NAN]])}))


def test_more_clusters_than_clips() -> None:
    check_n_clusters(3, 3)
    with pytest.raises(ValueError, match=r"n_clusters=4 is more than the 3 clip\(s\) given; ask for fewer clusters"):
        check_n_clusters(4, 3)
    with pytest.raises(ValueError, match=r"Found array with 1 sample\(s\) while a minimum of 2 is required: one clip"):
        check_n_clusters(2, 1)


def test_a_view_of_equal_rows_is_warned_of_and_a_constant_column_is_not() -> None:
    for equal in (np.ones((3, 2)), np.array([[1.0, 2.0], [NAN, NAN], [1.0, 2.0]])):
        with pytest.warns(UserWarning, match=r"view 'visual' is the same for every clip"):
            warn_of_constant_views(checked({"text": ARRAY, "visual": equal}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_constant_views(checked({"text": np.array([[1.0, 0.0], [1.0, 1.0]]), "one clip": ARRAY[:1]}))


# ------------------------------------------------------------------------------------------- MultiView


def test_rows_are_chosen_of_all_views_and_ids() -> None:
    views = MultiView({"text": ARRAY, "visual": ARRAY + 1}, ["a", "b", "c"])
    assert (views.shape, len(views), list(views), bool(views)) == ((3, 2), 3, ["text", "visual"], True)
    for rows in ([2, 0], np.array([2, 0]), (np.array([2, 0]), Ellipsis), slice(None, None, -2)):
        chosen = views[rows]
        assert isinstance(chosen, MultiView)
        assert chosen.clip_ids.tolist() == ["c", "a"]
        assert chosen["visual"].tolist() == (ARRAY + 1)[[2, 0]].tolist()
    assert views[np.array([True, False, True])]["text"].tolist() == ARRAY[[0, 2]].tolist()
    assert views[1]["text"].tolist() == ARRAY[1:2].tolist()  # one clip is still a row
    assert dict(views)["text"].tolist() == ARRAY.tolist()
    assert [name for name, _ in views.items()] == list(views.keys())
    assert len(list(views.values())) == 2
    assert MultiView({"text": ARRAY})[[0]].clip_ids is None
    with pytest.raises(KeyError):
        views["audio"]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_can_be_chosen_of_every_kind(kind: str) -> None:
    chosen = MultiView({"text": KINDS[kind](ARRAY), "visual": ARRAY})[np.array([2, 0])]
    text = check_views(chosen, list_names=None, dtype="float64", may_miss=True)["text"]
    assert text[:].tolist() == [[5, 6], [1, 2]]


@pytest.mark.parametrize(
    ("views", "clip_ids", "message"),
    [
        ({"text": ARRAY, "": ARRAY}, None, r"a view's name must be a non-empty string, got ''"),
        ({"text": ARRAY, "audio": ARRAY[:2]}, None, r"inconsistent numbers of samples: text 3, audio 2; align"),
        ({"text": ARRAY}, ["a", "b"], r"inconsistent numbers of samples: text 3, clip_ids 2; align"),
        ({"text": ARRAY}, ["a", "", "c"], r"a clip's id must be a non-empty string, got '' for row 1"),
        ({"text": ARRAY}, ["a", "b", None], r"a clip's id must be a non-empty string, got None for row 2"),
        ({"text": ARRAY[0]}, None, r"view 'text': Expected 2D array, got 1D array instead"),
    ],
)
def test_views_that_are_no_rows_of_clips(views: Any, clip_ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiView(views, clip_ids)
