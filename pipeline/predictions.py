"""A model's clusters for clips that come in blocks: written as they are made, and what is told of them added up."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.assignments import write_assignments
from pipeline.console import progress, say, table
from pipeline.drift import DRIFT, Tally, Trained, drift, in_words
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.reduce import untrained
from pipeline.run import Run
from pipeline.views import Views, let_go, row_slices

if TYPE_CHECKING:
    from tib import TIB

LOW_CONFIDENCE = 0.5  # below it no cluster has the most of the probability
NAMED = 10  # clips named in one line
BLOCK = 8192  # clips that are predicted together

# View -> what gives some clips' rows of it, (n, D), as the model takes them.
Readers = Mapping[str, Callable[[slice], NDArray[np.float32]]]


def readers_of(views: Views) -> Readers:
    """Of views that are as the model takes them."""
    return {name: reader(view) for name, view in views.arrays.items()}


def reader(
    view: NDArray[np.float32], change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.array
) -> Callable[[slice], NDArray[np.float32]]:
    """What gives some rows of a view, a copy; a mapped file's pages are let go of.

    Args:
        change: of (n, D) rows into those that the model takes.
    """

    def read(rows: slice) -> NDArray[np.float32]:
        found = change(view[rows])
        let_go(view)
        return found

    return read


def predict_and_write(run: Run, clip_ids: Collection[str], readers: Readers, out: Path) -> int:
    """Predicts the clips that can be, writes and tells; returns how many could not."""
    told = _Told(run.model)
    with progress(len(clip_ids), "predict", "clip") as bar:
        write_assignments(out, _predicted(run.model, clip_ids, readers, told, bar.update))
    drifted = drift(told.tally)
    write_atomic(out.with_name(DRIFT), json.dumps(drifted.values, indent=2) + "\n")
    told.say(run, out)
    for line in in_words(drifted):
        say(line)
    return len(clip_ids) - told.n_clips


def _predicted(
    model: "TIB", clip_ids: Collection[str], readers: Readers, told: "_Told", on_clips: Callable[[int], object]
) -> Iterator[tuple[str, int, float, float]]:
    """Clip by clip what is said of it: clip_id, cluster, confidence, agreement; those it says nothing of left out.

    Args:
        on_clips: told how many have been looked at, block by block.
    Raises:
        PipelineError: that is all of them, or the model refuses the values.
    """
    from tib.estimator import agreement_of

    ids = iter(clip_ids)
    for rows in row_slices(len(clip_ids), BLOCK):
        views = {name: read(rows) for name, read in readers.items()}
        has = {name: np.asarray(np.isfinite(view).all(axis=1)) for name, view in views.items()}
        for name, view in views.items():
            told.n_in_part[name] += int((~has[name] & np.isfinite(view).any(axis=1)).sum())
            view[~has[name]] = np.nan
        enough = np.asarray((np.any if _takes_missing(model) else np.all)(list(has.values()), axis=0))
        batch = list(islice(ids, len(enough)))
        told.leave_out(batch, has, enough)
        on_clips(len(batch))
        if not enough.any():
            continue
        of_batch = iter([clip_id for clip_id, kept in zip(batch, enough, strict=True) if kept])
        try:
            for _, proba, alone in model.iter_posteriors({name: view[enough] for name, view in views.items()}):
                cluster, confidence = proba.argmax(axis=1), proba.max(axis=1)  # (n,), each
                some = list(islice(of_batch, len(cluster)))
                told.add(some, cluster, confidence)
                yield from zip(some, cluster, confidence, agreement_of(cluster, alone), strict=True)
        except ValueError as error:
            raise PipelineError(f"predict: {error}") from None
    if not told.n_clips:
        there = ", ".join(f"{name} of {n}" for name, n in told.n_with.items())
        need = "any view" if _takes_missing(model) else f"every view, as objective {model.objective!r} needs"
        raise PipelineError(f"none of {len(clip_ids)} clips has {need}: there is {there}; add what is missing")


def _takes_missing(model: "TIB") -> bool:
    """Whether the model says something of a clip that lacks a modality: the reference network has no place for it."""
    return bool(model.objective != "reference")


class _Told:
    """What is told of the clips in the end, added up as they come.

    Attributes:
        n_clips: with a prediction.
        n_with, n_in_part: view -> clips that have it, and that have NaN beside numbers, which is as good as none.
        tally: against the training.
    """

    def __init__(self, model: "TIB") -> None:
        self.tally = Tally(Trained.of(model.labels_, model.confidence_, model.n_clusters_))
        self.n_with, self.n_in_part = (dict.fromkeys(model.view_names_, 0) for _ in range(2))
        self._confidence = np.zeros(model.n_clusters_)
        self._n_low = np.zeros(model.n_clusters_, dtype=np.int64)
        self._low, self._left_out = list[str](), list[str]()  # the first few
        self._n_left_out = 0

    @property
    def n_clips(self) -> int:
        return int(self.tally.sizes.sum())

    def add(self, clip_ids: Sequence[str], cluster: NDArray[np.int64], confidence: NDArray[np.floating]) -> None:
        """Counts (n,) predictions."""
        self.tally.add(cluster, confidence)
        low, n = confidence < LOW_CONFIDENCE, len(self._n_low)
        self._confidence += np.bincount(cluster, weights=confidence, minlength=n)
        self._n_low += np.bincount(cluster[low], minlength=n)
        self._low += [clip_ids[row] for row in np.flatnonzero(low)[: NAMED - len(self._low)]]

    def leave_out(
        self, clip_ids: Sequence[str], has: Mapping[str, NDArray[np.bool_]], enough: NDArray[np.bool_]
    ) -> None:
        """Counts the (n,) clips that are not `enough`."""
        for name, rows in has.items():
            self.n_with[name] += int(rows.sum())
        lacking = np.flatnonzero(~enough)
        self._n_left_out += len(lacking)
        for row in lacking[: NAMED - len(self._left_out)]:
            without = [name for name, rows in has.items() if not rows[row]]
            why = f"no {', '.join(without)}" if len(without) < len(has) else "nothing to go by"
            self._left_out.append(f"{clip_ids[row]} ({why})")

    def say(self, run: Run, out: Path) -> None:
        """Prints it."""
        sizes, n_clips = self.tally.sizes, self.n_clips
        rows: list[tuple[str, int, str, int]] = [
            (str(k), int(sizes[k]), f"{self._confidence[k] / sizes[k]:.3f}", int(self._n_low[k]))
            for k in np.flatnonzero(sizes)
        ]
        columns = ("cluster", "clips", "mean confidence", f"below {LOW_CONFIDENCE}")
        table(f"predict: {n_clips} clips by {run.folder}", columns, rows)
        for modality in untrained(run.encoders):
            say(f"predict: {modality}: RANDOM weights, untrained")
        for name, n in self.n_in_part.items():
            if n:
                say(f"predict: {name}: {n} clips have NaN beside numbers and are taken as lacking it")
        n_low = int(self._n_low.sum())
        if n_low:
            say(f"predict: {n_low} of low confidence, below {LOW_CONFIDENCE}: {_named(self._low, n_low)}")
        if self._n_left_out:
            named = _named(self._left_out, self._n_left_out)
            say(f"predict: {self._n_left_out} clips have no prediction: {named}")
        mean = self._confidence.sum() / n_clips
        say(f"predict: wrote {out}: {n_clips} clips, {len(rows)} clusters, mean confidence {mean:.3f}")


def _named(first: Sequence[str], n: int) -> str:
    more = n - len(first)
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
