"""The clusters of a run's clips on disk, written and read a row at a time: of a clip numbers are held and no more.

assignments.csv    clip_id, cluster, confidence, agreement
restarts.csv       clip_id, restart_0, ...: what each restart alone would have said
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.tables import iter_records, table_chunks
from pipeline.errors import PipelineError
from pipeline.files import write_chunks
from pipeline.views import ClipIds

ASSIGNMENTS, RESTARTS = "assignments.csv", "restarts.csv"  # in the run's folder
COLUMNS = ("clip_id", "cluster", "confidence", "agreement")


@dataclass(frozen=True, slots=True)
class Assignments:
    """What a run says of its N clips.

    Attributes:
        clip_ids: in the order written, read anew each time.
        cluster: (N,) int32.
        confidence, agreement: (N,) float32, 0..1.
    """

    clip_ids: Collection[str]
    cluster: NDArray[np.int32]
    confidence: NDArray[np.float32]
    agreement: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.cluster)


def write_assignments(path: Path, rows: Iterable[tuple[str, int, float, float]]) -> None:
    """Writes what is said of clips, as it comes.

    Args:
        rows: clip_id, cluster, confidence, agreement.
    Raises:
        PipelineError: it cannot be written.
    """
    told = ((clip_id, str(k), f"{confidence:.6f}", f"{agreement:.6f}") for clip_id, k, confidence, agreement in rows)
    write_chunks(path, table_chunks(COLUMNS, told))


def write_restarts(folder: Path, clip_ids: Iterable[str], clusters: NDArray[np.signedinteger]) -> None:
    """Writes the clusters by each restart, (R, N).

    Raises:
        PipelineError: it cannot be written.
    """
    rows = ((clip_id, *map(str, said)) for clip_id, said in zip(clip_ids, clusters.T, strict=True))
    names = ("clip_id", *(f"restart_{restart}" for restart in range(len(clusters))))
    write_chunks(folder / RESTARTS, table_chunks(names, rows))


def read_assignments(path: Path) -> Assignments:
    """What was said of clips.

    Raises:
        PipelineError: no assignments there, or not as they are written.
    """
    cluster, confidence, agreement = array("i"), array("f"), array("f")
    for row in _rows(path):
        try:
            row["clip_id"]
            cluster.append(int(row["cluster"]))
            confidence.append(float(row["confidence"]))
            agreement.append(float(row["agreement"]))
        except (KeyError, ValueError, OverflowError) as error:
            raise _unreadable(path, error) from None
    if not cluster:
        raise _unreadable(path, ValueError("it names no clip"))
    ids = ClipIds(len(cluster), lambda: (row["clip_id"] for row in _rows(path)))
    return Assignments(ids, np.array(cluster), np.array(confidence), np.array(agreement))


def read_restarts(folder: Path, clip_ids: Iterable[str]) -> NDArray[np.int32]:
    """The clusters by each restart alone, (R, N).

    Args:
        clip_ids: of the assignments.
    Raises:
        PipelineError: no such file, or not as `train` writes it; or it is of other clips.
    """
    path, said, n_restarts = folder / RESTARTS, array("i"), 0
    for row, clip_id in zip_longest(_rows(path), clip_ids):
        if row is None or row.get("clip_id") != clip_id:
            raise PipelineError(f"{folder}: {ASSIGNMENTS} and {RESTARTS} name other clips; run `train` again")
        del row["clip_id"]
        try:
            said.extend(map(int, row.values()))
        except (ValueError, OverflowError) as error:
            raise _unreadable(path, error) from None
        n_restarts = len(row)
    return np.array(said, dtype=np.int32).reshape(-1, max(n_restarts, 1)).T


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from iter_records(path)
    except FileNotFoundError:
        raise PipelineError(f"no {path.name} in {path.parent}; run `train` first") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> PipelineError:
    why = f"it has no column {error.args[0]}" if isinstance(error, KeyError) else str(error)
    return PipelineError(f"cannot read {path} ({why}); run `train` again")
