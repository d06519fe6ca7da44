"""csd: CMU-MultimodalSDK's computational sequences, one HDF5 file each.

    <name>/data/<video> or <video>[<segment>]/features    (T, D), or (T, 1) of words
                                              intervals   (T, 2) seconds
Where a file holds labels, its intervals cut the videos into clips, as the SDK's `align` does: clip `<video>[<n>]`
has the steps that overlap interval n. Otherwise each key is a clip.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.console import progress
from pipeline.errors import PipelineError
from pipeline.ingest.content import Features, Floats, classes_of, floats, mean_of, modality_of, view_name

MAX_BYTES = 4 << 30  # of one video's features; what is stored compressed may claim any size
_EPSILON_S = 1e-5  # an overlap shorter than this is none, as in the SDK
_PAUSE = "sp"  # what the SDK's words hold between words
_SUFFIXES = (".csd", ".h5", ".hdf5")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One key: features (T, D) of numbers or text, intervals (T, 2) in seconds."""

    features: NDArray[Any]
    intervals: NDArray[np.float64]

    def between(self, start_s: float, end_s: float) -> NDArray[Any]:
        """The rows that overlap a span."""
        starts, ends = self.intervals.T
        rows: NDArray[Any] = self.features[(ends > start_s + _EPSILON_S) & (starts < end_s - _EPSILON_S)]
        return rows


@dataclass(frozen=True, slots=True)
class _Clip:
    """A key, or an interval of one."""

    clip_id: str
    key: str
    span_s: tuple[float, float] | None = None
    label: float = float("nan")


class _Sequence:
    """One file's entries, read as they are asked for: together they may not fit in memory."""

    def __init__(self, name: str, path: Path, data: Any) -> None:
        self.name, self.path, self.data = name, path, data
        self._last: tuple[str, _Entry] | None = None

    def names(self) -> list[str]:
        """The videos, or the segments of them."""
        try:
            return list(self.data)
        except (OSError, RuntimeError, ValueError) as error:
            raise PipelineError(f"{self.path}: cannot read its keys ({error}); get the file again") from None

    def entry(self, key: str) -> _Entry:
        """One key's content; the last one is kept, as a video's clips come one after the other."""
        if self._last is None or self._last[0] != key:
            self._last = (key, self._read(key))
        return self._last[1]

    def _read(self, key: str) -> _Entry:
        try:
            group = _local(self.data, key)
            features, intervals = (_array(group, name) for name in ("features", "intervals"))
            spans = intervals.astype(np.float64)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise PipelineError(f"{self.path}: cannot read {key[:60]!r} ({error}); get the file again") from None
        rows = features.reshape(len(features), -1) if features.ndim and features.size else features.reshape(0, 1)
        if spans.shape != (len(rows), 2):
            raise PipelineError(
                f"{self.path}: {key[:60]!r} has {len(rows)} features and intervals of shape {spans.shape}; "
                "expected a start and an end for each"
            )
        return _Entry(rows, spans)

    def rows_of(self, clip: _Clip) -> NDArray[Any]:
        """(T, D) of a clip: its own key's, else those in its span of the video's; none where it has neither."""
        if clip.clip_id in self.data:
            return self.entry(clip.clip_id).features
        if clip.span_s is None or clip.key not in self.data:
            return np.empty((0, 1), np.float32)
        return self.entry(clip.key).between(*clip.span_s)

    def is_text(self) -> bool:
        return any(self.entry(key).features.dtype.kind in "USO" for key in self.names()[:1])


def _local(group: Any, name: str) -> Any:
    import h5py  # type: ignore[import-untyped]

    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{name} lies in another file, which is not read")
    return group[name]


def _array(group: Any, name: str) -> NDArray[Any]:
    """A dataset's content, from this file alone and of no absurd size."""
    dataset = _local(group, name)
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} lies in another file, which is not read")
    if dataset.nbytes > MAX_BYTES:
        raise ValueError(f"{name} claims {dataset.nbytes / 1e9:.0f} GB")
    return np.asarray(dataset.asstr()[()] if dataset.dtype.kind == "O" else dataset[()])


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[_Sequence]]:
    try:
        import h5py
    except ImportError:
        raise PipelineError(
            "reading .csd needs the package h5py: .venv/bin/uv pip install h5py, or pip install 'tib-pipeline[csd]'"
        ) from None
    with ExitStack() as stack:
        sequences = []
        for path in paths:
            try:
                file = stack.enter_context(h5py.File(path, "r"))
                named = {name: _local(file, name) for name in file}
                found = {name: _local(root, "data") for name, root in named.items() if "data" in root}
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:120]
                raise PipelineError(f"cannot read {path} as HDF5 ({reason}); get it again") from None
            if not found or not all(isinstance(data, h5py.Group) for data in found.values()):
                raise PipelineError(
                    f"{path}: no computational sequence of the CMU-MultimodalSDK: expected "
                    f"<name>/data/<video>/features, got {', '.join(named)[:120] or 'an empty file'}"
                )
            sequences += [_Sequence(name, path, data) for name, data in found.items()]
        yield sequences


def read_csd(source: Path) -> Features:
    """A .csd file, or a folder of them: features, labels and words of the same videos.

    Raises:
        PipelineError: h5py is not installed, a file that is no computational sequence, or none with features.
    """
    paths = sorted(p for p in source.iterdir() if p.suffix in _SUFFIXES) if source.is_dir() else [source]
    with _opened(paths) as sequences:
        notes: list[str] = []
        labels = next((s for s in sequences if "label" in f"{s.name} {s.path.stem}".lower()), None)
        others = [s for s in sequences if s is not labels]
        textual = [s for s in others if s.is_text()]
        words = next((s for s in textual if "word" in f"{s.name} {s.path.stem}".lower()), None)
        notes += [f"{s.name}: text that is no words; left out" for s in textual if s is not words]
        views = _named([s for s in others if s not in textual], notes)
        if not views:
            raise PipelineError(f"{source}: no features in it, which would be <name>/data/<video>/features of numbers")
        clips = _clips(labels, list(views.values()), notes)
        features = Features([clip.clip_id for clip in clips], {}, notes=notes)
        with progress(len(views) * len(clips), "import", "clip") as bar:
            for name, sequence in views.items():
                features.arrays[name] = _vectors(sequence, clips, bar)
        features.labels = classes_of({clip.clip_id: clip.label for clip in clips}, notes)
        if words:
            features.transcripts = {clip.clip_id: _sentence(words.rows_of(clip)) for clip in clips}
    return features


def _named(sequences: Sequence[_Sequence], notes: list[str]) -> dict[str, _Sequence]:
    """view -> its sequence: the modality that the names tell, for the first that tells it."""
    views: dict[str, _Sequence] = {}
    for sequence in sequences:
        guess = modality_of(f"{sequence.name} {sequence.path.stem}")
        name = guess if guess and guess not in views else view_name(sequence.name)
        if name in views:
            raise PipelineError(f"{sequence.path}: a second file of {sequence.name!r}; keep one of them there")
        views[name] = sequence
        notes.append(f"{sequence.path.name} ({sequence.name}): taken for the view {name}")
    return views


def _clips(labels: _Sequence | None, views: Sequence[_Sequence], notes: list[str]) -> list[_Clip]:
    """The clips: what the labels' intervals cut out of whole videos, else the keys as they are."""
    values = {key: labels.entry(key) for key in labels.names()} if labels else {}
    widest = max((entry.features.shape[1] for entry in values.values()), default=1)
    if widest > 1:
        notes.append(f"labels: the first of {widest} columns")
    if any(len(entry.intervals) > 1 for key, entry in values.items() if "[" not in key):
        notes.append("clips: whole videos, cut at the labels' intervals")
        return [
            _Clip(f"{key}[{n}]", key, (float(start_s), float(end_s)), _number(entry, n))
            for key, entry in values.items()
            for n, (start_s, end_s) in enumerate(entry.intervals)
            if end_s - start_s > _EPSILON_S
        ]
    keys = dict.fromkeys(key for sequence in views for key in sequence.names())
    return [_Clip(key, key, label=_number(values[key], 0) if key in values else float("nan")) for key in keys]


def _number(entry: _Entry, row: int) -> float:
    kind = entry.features.dtype.kind
    return float(entry.features[row, 0]) if kind in "fiub" and row < len(entry.features) else float("nan")


def _vectors(sequence: _Sequence, clips: Sequence[_Clip], bar: Any) -> Floats:
    rows: dict[int, Floats] = {}
    for n, clip in enumerate(clips):
        steps = sequence.rows_of(clip)
        if len(steps):
            rows[n] = mean_of(floats(steps, f"{sequence.path}: {clip.clip_id}"))
        bar.update(1)
    dims = sorted({len(vector) for vector in rows.values()})
    if len(dims) > 1:
        raise PipelineError(
            f"{sequence.path}: features of {dims[0]} to {dims[-1]} dims; expected the same for every key"
        )
    array = np.full((len(clips), dims[0] if dims else 0), np.nan, dtype=np.float32)
    for n, vector in rows.items():
        array[n] = vector
    return array


def _sentence(rows: NDArray[Any]) -> str:
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in rows.ravel()]
    return " ".join(word for word in words if word and word != _PAUSE)
