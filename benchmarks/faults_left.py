"""What a stage left in a folder, and in what two such folders differ."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

# What differs between two runs that did the same: when, and how long it took.
_TIMES = re.compile(r"finished|date|made|seconds|started")


def left(folder: Path) -> dict[str, Any]:
    """What is in a folder, without times: embeddings by modality and clip, every other file by its digest."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "/logs/" in f"/{name}" or path.name == ".lock":
            continue
        if path.name.startswith("part-") and "features" in path.parts:
            store = found.setdefault(path.parent.relative_to(folder).as_posix(), {})
            for row in pq.read_table(path).to_pylist():
                store.setdefault(row["clip_id"], []).append(_digest(json.dumps(row).encode()))
        else:
            found[name] = _digest(_without_times(path))
    return found


def _without_times(path: Path) -> bytes:
    """A file's content; of the page, which shows them here and there, all but its figures: they are in other files."""
    if path.suffix == ".html":
        return re.sub(rb"[0-9]+", b"", path.read_bytes())
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps(_timeless(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()


def _timeless(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _timeless(value) for name, value in values.items() if not _TIMES.search(name)}
    return [_timeless(value) for value in values] if isinstance(values, list) else values


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Clips lost, there twice or changed; files missing, left over or changed."""
    for name in wanted.keys() | found.keys():
        of, to = wanted.get(name), found.get(name)
        if isinstance(of, dict) or isinstance(to, dict):
            before, after = of or {}, to or {}
            yield from (f"lost: {name} {clip}" for clip in before.keys() - after.keys())
            yield from (f"duplicated: {name} {clip}" for clip, rows in after.items() if len(rows) > 1)
            kept = before.keys() & after.keys()
            yield from (f"changed: {name} {clip}" for clip in kept if before[clip] != after[clip])
        elif of != to:
            yield f"{'left over' if of is None else 'missing' if to is None else 'changed'}: {name}"


def torn(folder: Path) -> list[str]:
    """Files under their final name that cannot be read to their end."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": pq.read_table,
        ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        ".npy": np.load,
        ".html": _read_page,
    }
    broken = []
    for path in folder.rglob("*"):
        if path.suffix in readers and not path.name.startswith("."):
            try:
                readers[path.suffix](path)
            except Exception as error:
                broken.append(f"{path.relative_to(folder)} ({type(error).__name__})")
    return broken


def _read_page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError(path)
