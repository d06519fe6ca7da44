"""Embeddings on disk: Parquet parts, each written whole or not at all, and the failures beside them.

    features/<modality>/<fingerprint>/
        recipe.json           what made these embeddings; the fingerprint is its hash
        part-<hash>.parquet   clip_id, source, embedding (fixed-size list of float32), n_units
                              and, under a recipe with keep_sequence, sequence: a list of such of float16, one a step
        failures.csv          clip_id, stage, cause, message, source
        made_with.json        on what they were computed, in what batches: a list, as several runs may have part in it

`source` is a stamp of what the embedding was made from (the media file's size and time, or the transcript): a clip
whose file or words have changed counts as not done, and its old row is not read. A part is named by the clips it
holds, so that a chunk made again after a crash replaces itself.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from extractors.base import Embedding
from pipeline.corpora.tables import format_table, read_records
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.provenance import stable_hash
from pipeline.records import Store, read_record

_MADE_WITH = "made_with.json"
FAILURE_COLUMNS = ("clip_id", "stage", "cause", "message", "source")
_HALF_MAX = float(np.finfo(np.float16).max)  # 65504
Steps = NDArray[np.float16] | NDArray[np.float32]  # (T, D), as `as_float16` gives them


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that has no embedding in one modality, and why. `source` is what was tried."""

    clip_id: str
    stage: str
    cause: str
    message: str
    source: str


class EmbeddingStore:
    """The embeddings of one modality under one recipe."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.fingerprint = folder.name
        self.keeps_sequences = bool(recipe.get("keep_sequence"))

    @classmethod
    def create(cls, features: Path, modality: str, recipe: Mapping[str, Any], request: str) -> "EmbeddingStore":
        """Opens the store of this recipe, made if there is none.

        Args:
            features: the workdir's `features` folder.
            recipe: everything that determines the numbers; its hash names the folder.
            request: hash of the settings that led to the recipe (see `find`).
        """
        folder = features / modality / stable_hash(recipe)
        requests = [request]
        for other, known in cls.all(features, modality):
            if other.folder == folder:
                requests = sorted({request, *known})
            elif request in known:  # the same settings led elsewhere before: weights on a hub can change
                _write_recipe(other.folder, other.recipe, [r for r in known if r != request])
        _write_recipe(folder, recipe, requests)
        return cls(folder, recipe)

    @classmethod
    def all(cls, features: Path, modality: str) -> list[tuple["EmbeddingStore", list[str]]]:
        """Every store of a modality with the requests that led to it, by fingerprint."""
        paths = sorted((features / modality).glob("*/recipe.json"))
        records = [(path.parent, _read_recipe(path)) for path in paths]
        return [(cls(folder, record["recipe"]), record["requests"]) for folder, record in records]

    @classmethod
    def of_recipe(cls, features: Path, modality: str, recipe: Mapping[str, Any]) -> "EmbeddingStore":
        """The store of a recipe, there or not; nothing is written."""
        return cls(features / modality / stable_hash(recipe), recipe)

    @classmethod
    def find(cls, features: Path, modality: str, request: str) -> "EmbeddingStore | None":
        """The store that a request led to before: known without loading weights or hashing them again."""
        for store, requests in cls.all(features, modality):
            if request in requests:
                return store
        return None

    def done(self) -> list[tuple[str, str]]:
        """(clip_id, source) of every embedding here, the newest part last."""
        done: list[tuple[str, str]] = []
        for path in self._parts():
            table = _read_part(path, ["clip_id", "source"], int(self.recipe["dim"]))
            done += zip(table["clip_id"].to_pylist(), table["source"].to_pylist(), strict=True)
        return done

    def failures(self) -> dict[str, Failure]:
        """The clips that failed, by clip_id."""
        path = self.folder / "failures.csv"
        if not path.exists():
            return {}
        try:
            rows = read_records(path)
            return {row["clip_id"]: Failure(**row) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:  # of Failure: other columns
            told = str(error) if isinstance(error, (OSError, ValueError)) else f"expected {', '.join(FAILURE_COLUMNS)}"
            raise PipelineError(f"cannot read {path} ({told}); delete it to try again") from None

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Replaces failures.csv by these rows; none leaves no file."""
        rows = [astuple(failure) for failure in failures]
        path = self.folder / "failures.csv"
        if not rows:
            path.unlink(missing_ok=True)
            return
        write_atomic(path, format_table(FAILURE_COLUMNS, rows))

    def made_with(self) -> list[dict[str, Any]]:
        """What `add_made_with` was told, each once; [] of a store from before it was kept, or where it is not whole."""
        try:
            found = json.loads((self.folder / _MADE_WITH).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a remark, which no embedding hangs on
            return []
        return found if isinstance(found, list) else []

    def add_made_with(self, conditions: dict[str, Any]) -> None:
        """Notes what does not belong to the recipe, as it changes no more than the last digits: threads, batches."""
        known = self.made_with()
        if conditions not in known:
            write_atomic(self.folder / _MADE_WITH, json.dumps([*known, conditions], indent=2) + "\n")

    def write_part(self, embeddings: list[Embedding], sources: Mapping[str, str]) -> Path:
        """Writes one part: under a temporary name first, then renamed, so that it is whole or not there.

        Sequences become float16, or stay float32 where a value does not fit (see `as_float16`). For MOSI (2,199 clips
        of 4 s) that is 0.3 GB before compression: 8 frames of VGG16, 15 tokens of BERT and 26 steps of DAVEnet a clip.
        """
        dim = int(self.recipe["dim"])
        vectors = np.stack([e.vector for e in embeddings])  # (n, D)
        if vectors.shape[1] != dim:
            raise ValueError(f"{self.folder}: expected {dim}-d embeddings, got {vectors.shape[1]}-d")
        rows = [(e.clip_id, sources[e.clip_id]) for e in embeddings]
        columns = {
            "clip_id": pa.array([clip_id for clip_id, _ in rows], pa.string()),
            "source": pa.array([source for _, source in rows], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
            "n_units": pa.array([e.n_units for e in embeddings], pa.int32()),
        }
        if self.keeps_sequences:
            columns["sequence"] = _sequences_column(embeddings, dim)
        buffer = io.BytesIO()
        # Vectors hardly repeat a number: a dictionary of them is space spent.
        pq.write_table(pa.table(columns), buffer, compression="zstd", use_dictionary=False)
        path = self.folder / f"part-{stable_hash(rows, 20)}.parquet"
        write_atomic(path, buffer.getvalue())
        return path

    def read(self, sources: Mapping[str, str] | None = None) -> dict[str, NDArray[np.float32]]:
        """Embeddings by clip_id.

        Args:
            sources: the wanted clips with their present stamps; None takes every clip (the newest row of each).
        Returns:
            clip_id -> (D,) float32.
        Raises:
            PipelineError: a part that cannot be read; says which, and what to do.
        """
        found: dict[str, NDArray[np.float32]] = {}
        for kept, column in self._columns("embedding", sources):
            vectors = column.flatten().to_numpy().reshape(len(column), int(self.recipe["dim"]))
            found |= {clip_id: vectors[row] for row, clip_id in kept}
        return found

    def read_sequences(self, sources: Mapping[str, str] | None = None) -> dict[str, Steps]:
        """What the embeddings were pooled from, by clip_id; all of it in memory.

        Args:
            sources: as for `read`.
        Returns:
            clip_id -> (T, D) float16, or float32 as `write_part` says and as older parts have it. Add up in float32.
        Raises:
            PipelineError: this store keeps no sequences, or a part that cannot be read.
        """
        return dict(self.iter_sequences(sources))

    def iter_sequences(self, sources: Mapping[str, str] | None = None) -> Iterator[tuple[str, Steps]]:
        """The same one by one, a part at a time in memory; a clip that is here twice comes twice, the newest last."""
        if not self.keeps_sequences:
            raise PipelineError(f"{self.folder} holds no sequences; extract with extract.keep_sequence=true")
        for kept, column in self._columns("sequence", sources):
            offsets = column.offsets.to_numpy()
            steps = column.flatten().flatten().to_numpy().reshape(-1, int(self.recipe["dim"]))
            for row, clip_id in kept:
                yield clip_id, steps[offsets[row] : offsets[row + 1]]

    def _columns(
        self, name: str, sources: Mapping[str, str] | None
    ) -> Iterator[tuple[list[tuple[int, str]], pa.Array]]:
        """One column of each part, with the (row, clip_id) of the wanted clips in it."""
        for path in self._parts():
            table = _read_part(path, ["clip_id", "source", name], int(self.recipe["dim"])).combine_chunks()
            keys = zip(table["clip_id"].to_pylist(), table["source"].to_pylist(), strict=True)
            kept = [
                (row, clip_id)
                for row, (clip_id, source) in enumerate(keys)
                if sources is None or sources.get(clip_id) == source
            ]
            yield kept, table[name].combine_chunks()

    def _parts(self) -> list[Path]:
        """The parts, the newest last."""
        return sorted(self.folder.glob("part-*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _sequences_column(embeddings: Iterable[Embedding], dim: int) -> pa.Array:
    sequences = []
    for embedding in embeddings:
        if embedding.sequence is None:
            raise ValueError(f"clip {embedding.clip_id!r}: expected a sequence, as the recipe keeps them; got none")
        sequences.append(embedding.sequence)
    offsets = np.cumsum([0, *(len(sequence) for sequence in sequences)], dtype=np.int32)
    steps = pa.FixedSizeListArray.from_arrays(pa.array(as_float16(np.concatenate(sequences)).ravel()), dim)
    return pa.ListArray.from_arrays(pa.array(offsets), steps)


def as_float16(rows: NDArray[np.float32]) -> Steps:
    """(T, D), T >= 1, as float16, off by at most a 2000th of a value (or 3e-8); as it came where one is beyond 65504.

    So nothing becomes Inf, nothing is cut, and no clip fails for the precision that its sequence is kept in.
    """
    return rows.astype(np.float16) if max(rows.max(), -rows.min()) <= _HALF_MAX else rows


def _write_recipe(folder: Path, recipe: Mapping[str, Any], requests: list[str]) -> None:
    record = {"fingerprint": folder.name, "recipe": recipe, "requests": requests}
    write_atomic(folder / "recipe.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        return read_record(path, Store)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}); delete {path.parent} and extract again") from None


def _is_as_written(name: str, column: pa.ChunkedArray, dim: int) -> bool:
    """Whether a column is of the type that `write_part` gives it, without gaps and with finite numbers."""
    if name in ("clip_id", "source"):
        return bool(column.type == pa.string() and not column.null_count)
    steps = [pa.list_(kind(), dim) for kind in (pa.float32, pa.float16)]
    if column.type not in (steps[:1] if name == "embedding" else [pa.list_(step) for step in steps]):
        return False
    for values in column.chunks:
        while not pa.types.is_floating(values.type):
            if values.null_count:
                return False
            values = values.flatten()
        if values.null_count or not np.isfinite(values.to_numpy()).all():
            return False
    return True


def _read_part(path: Path, columns: list[str], dim: int) -> pa.Table:
    """Not by `pq.read_table`: that imports `pyarrow.dataset`, and pandas with it, which takes longer than all parts."""
    try:
        with pq.ParquetFile(path) as file:
            # Without threads, as a part is small; and a column that is not there is left out, so `select` looks.
            table = file.read(columns, use_threads=False).select(columns)
        for name in columns:
            if not _is_as_written(name, table[name], dim):
                raise ValueError(f"its column {name} is not as it was written: {table[name].type}")
        return table
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PipelineError(f"cannot read {path} ({reason}); delete this file and extract again") from None
