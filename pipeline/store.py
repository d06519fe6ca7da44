"""Embeddings on disk: Parquet parts, each written whole or not at all, and the failures beside them.

    features/<modality>/<fingerprint>/
        recipe.json           what made these embeddings; the fingerprint is its hash
        part-<hash>.parquet   clip_id, source, embedding (fixed-size list of float32), n_units
                              and, under a recipe with keep_sequence, sequence: a list of such of float16, one a step
        failures.csv, failed-<hash>.parquet    the clips that have none: see failures.py
        made_with.json        on what they were computed, in what batches: a list, as several runs may have part in it
        compaction.json       only while `pipeline/compact.py` is at work: which parts stand for which

The folder may lie in an object store (see `pipeline/storage.py`).

`source` is a stamp of what the embedding was made from (the media file's size and time, or the transcript): a clip
whose file or words have changed counts as not done, and its old row is not read. A part is named by the clips it
holds, so that a chunk made again after a crash replaces itself. Of a clip that is here twice the newest row counts.

What works on millions of clips takes them as a stream (`iter_done`, `failed.stream`, `batches`; pipeline/joins.py);
what gives a list or a dict (`done`, `read`, `failed.read`) holds all of it in memory.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import StringConstraints

from extractors.base import Embedding
from pipeline.arrow import are_strings, as_parquet, integers, row_groups
from pipeline.errors import PipelineError
from pipeline.failures import FailureLog
from pipeline.files import write_atomic
from pipeline.provenance import stable_hash
from pipeline.records import Shape, Store, read_record
from pipeline.storage import listed

PARTS = "part-*.parquet"
COMPACTION = "compaction.json"
_MADE_WITH = "made_with.json"
_HALF_MAX = float(np.finfo(np.float16).max)  # 65504
Steps = NDArray[np.float16] | NDArray[np.float32]  # (T, D), as `as_float16` gives them


class EmbeddingStore:
    """The embeddings of one modality under one recipe."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.failed = FailureLog(folder)
        self.fingerprint = folder.name
        self.keeps_sequences = bool(recipe.get("keep_sequence"))

    @classmethod
    def create(cls, features: Path, modality: str, recipe: Mapping[str, Any], request: str) -> "EmbeddingStore":
        """Opens the store of this recipe to write in it, made if there is none; ends a compaction that was killed.

        Args:
            features: the workdir's `features` folder.
            recipe: everything that determines the numbers; its hash names the folder.
            request: hash of the settings that led to the recipe (see `find`).
        """
        folder = features / modality / stable_hash(recipe)
        end_compaction(folder)
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
        paths = sorted((features / modality).glob("*/recipe.json"), key=str)
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
        for _, table in self.batches([]):
            done += zip(table["clip_id"].to_pylist(), table["source"].to_pylist(), strict=True)
        return done

    def iter_done(self) -> Iterator[pa.RecordBatch]:
        """The same as a stream: place (see `batches`), clip_id, source."""
        for place, table in self.batches([]):
            for batch in table.combine_chunks().to_batches():
                yield batch.add_column(0, "place", integers(np.arange(place, place + len(batch))))

    def batches(self, columns: Sequence[str], parts: Sequence[Path] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """The rows of the parts, a row group at a time in memory, the newest last.

        Args:
            columns: beside clip_id and source.
            parts: these alone; None takes all.
        Yields:
            (place of the first row, table). A row's place is its number among all the rows here: it holds for as long
            as no part is written, and the newer of two rows has the higher one.
        Raises:
            PipelineError: a part that cannot be read; says which, and what to do.
        """
        place = 0
        for path in self.parts() if parts is None else parts:
            for table in _read_part(path, ["clip_id", "source", *columns], int(self.recipe["dim"])):
                yield place, table
                place += len(table)

    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(place of the first row, (n, D) embeddings), a row group at a time."""
        for place, table in self.batches(["embedding"]):
            yield place, self.matrix(table)

    def matrix(self, table: pa.Table) -> NDArray[np.float32]:
        """(n, D) embeddings of a table with that column."""
        column = table["embedding"].combine_chunks()
        vectors: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), int(self.recipe["dim"]))
        return vectors

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
        clip_ids = [e.clip_id for e in embeddings]
        return self.write_rows(
            clip_ids,
            [sources[clip_id] for clip_id in clip_ids],
            np.stack([e.vector for e in embeddings]),
            [e.n_units for e in embeddings],
            _sequences_column(embeddings, int(self.recipe["dim"])) if self.keeps_sequences else None,
        )

    def write_rows(
        self,
        clip_ids: Sequence[str],
        sources: Sequence[str],
        vectors: NDArray[np.float32],
        n_units: Sequence[int],
        sequences: pa.Array | None = None,
    ) -> Path:
        """The same from columns of n rows.

        Args:
            vectors: (n, D) float32.
            n_units: what each was pooled from: frames, tokens, 10 ms of sound.
            sequences: n lists of (T, D), where the recipe keeps them.
        Raises:
            ValueError: another D than the recipe's.
        """
        dim = int(self.recipe["dim"])
        if vectors.shape[1] != dim:
            raise ValueError(f"{self.folder}: expected {dim}-d embeddings, got {vectors.shape[1]}-d")
        columns = {
            "clip_id": pa.array(clip_ids, pa.string()),
            "source": pa.array(sources, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
            "n_units": pa.array(n_units, pa.int32()),
        }
        if sequences is not None:
            columns["sequence"] = sequences
        rows = list(zip(clip_ids, sources, strict=True))
        path = self.folder / f"part-{stable_hash(rows, 20)}.parquet"
        write_atomic(path, as_parquet(pa.table(columns)))
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
        for kept, table in self._wanted("embedding", sources):
            vectors = self.matrix(table)
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
        for kept, table in self._wanted("sequence", sources):
            column = table["sequence"].combine_chunks()
            offsets = column.offsets.to_numpy()
            steps = column.flatten().flatten().to_numpy().reshape(-1, int(self.recipe["dim"]))
            for row, clip_id in kept:
                yield clip_id, steps[offsets[row] : offsets[row + 1]]

    def _wanted(
        self, column: str, sources: Mapping[str, str] | None
    ) -> Iterator[tuple[list[tuple[int, str]], pa.Table]]:
        """The row groups with one column, and the (row, clip_id) of the wanted clips in each."""
        for _, table in self.batches([column]):
            keys = zip(table["clip_id"].to_pylist(), table["source"].to_pylist(), strict=True)
            kept = [
                (row, clip_id)
                for row, (clip_id, source) in enumerate(keys)
                if sources is None or sources.get(clip_id) == source
            ]
            yield kept, table

    def parts(self) -> list[Path]:
        """The parts, the newest last; while a compaction is under way, those that count."""
        compaction = read_compaction(self.folder)
        return [path for path in listed(self.folder, PARTS) if path.name not in compaction.void()]


PartName = Annotated[str, StringConstraints(pattern=r"^part-[0-9a-f]+\.parquet$")]  # no path out of the folder


class Compaction(Shape):
    """What compaction.json holds: parts that stand for others. Until `committed` the others count, then the new ones.

    One small file turns many parts into few at once: whoever reads the folder, at any moment and after any crash,
    finds every row once.
    """

    parts: list[PartName]
    replaces: list[PartName]
    committed: bool

    def void(self) -> list[PartName]:
        """Names of the parts that do not count."""
        return self.replaces if self.committed else self.parts


def read_compaction(folder: Path) -> Compaction:
    """What was begun in this folder and not ended; without any parts where nothing was.

    Raises:
        PipelineError: it is not whole.
    """
    path = folder / COMPACTION
    try:
        return Compaction(**read_record(path, Compaction))
    except FileNotFoundError:
        return Compaction(parts=[], replaces=[], committed=False)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"cannot read {path} ({error}); bring it back, or delete {folder} and extract again"
        ) from None


def write_compaction(folder: Path, compaction: Compaction) -> None:
    """Replaces compaction.json, whole."""
    write_atomic(folder / COMPACTION, compaction.model_dump_json(indent=2) + "\n")


def end_compaction(folder: Path) -> None:
    """Deletes the parts that do not count and then what says so; does nothing where no compaction is under way."""
    void = read_compaction(folder).void()
    for name in void:
        (folder / name).unlink(missing_ok=True)
    if void:
        (folder / COMPACTION).unlink(missing_ok=True)


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
        return are_strings(name, column)
    if name == "n_units":
        return bool(column.type == pa.int32() and not column.null_count)
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


def _read_part(path: Path, columns: Sequence[str], dim: int) -> Iterator[pa.Table]:
    def as_written(name: str, column: pa.ChunkedArray) -> bool:
        return _is_as_written(name, column, dim)

    return row_groups(path, columns, as_written)
