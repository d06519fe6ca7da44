"""The chunks of a run on Ray, in files beside the process that was started: of what is pending nothing is held.

Ray reads them as it comes to them, on the machine they lie on, so that no other machine's loss costs a chunk.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from extractors.clip import Clip
from pipeline.engines.jobs import Chunk
from pipeline.files import write_atomic
from pipeline.temporary import TemporaryFolder

CHUNKS_A_FILE = 256
READING = 2  # files at a time


class Plan:
    """Chunks on disk. A context manager, whose folder goes with it."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        """Takes them in.

        Raises:
            PipelineError: the disk for temporary files is full.
        """
        self._folder = TemporaryFolder("tib-plan-")
        self.n_chunks, self.files, waiting = 0, list[Path](), iter(chunks)
        while some := list(islice(waiting, CHUNKS_A_FILE)):
            path = self._folder.path / f"{len(self.files)}.jsonl"
            write_atomic(path, "".join(_as_line(chunk) for chunk in some))
            self.files.append(path)
            self.n_chunks += len(some)

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self._folder.cleanup()

    def dataset(self) -> Any:
        """A Ray dataset with a row for each chunk: its column "chunk" is for `chunk_of`."""
        import ray
        from ray.data.block import BlockMetadata
        from ray.data.datasource import Datasource, ReadTask

        files = self.files

        class Chunks(Datasource):
            def estimate_inmemory_data_size(self) -> int | None:
                return None

            def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
                # A task takes one file's path, not all of them.
                told = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
                return [ReadTask(_Reading(path), told) for path in files]

        return ray.data.read_datasource(
            Chunks(),
            override_num_blocks=len(files),
            concurrency=min(READING, len(files)),
            num_cpus=0,  # a moment's work, which must not wait until an actor is done
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
        )


class _Reading:
    """What a read task does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Iterator[pa.Table]:
        with self._path.open(encoding="ascii") as file:
            yield from (pa.table({"chunk": [line]}) for line in file)


def _as_line(chunk: Chunk) -> str:
    return json.dumps([[asdict(clip), stamps] for clip, stamps in chunk]) + "\n"


def chunk_of(line: str) -> Chunk:
    """The chunk of a row of `Plan.dataset`."""
    return [(Clip(**clip), stamps) for clip, stamps in json.loads(line)]
