"""Writing folders whole or not at all: an export, an import."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.files import check_writable, write_atomic
from pipeline.records import read_record
from pipeline.views import has_no_nan

_UNFINISHED = ".writing-folder"


@contextmanager
def whole_folder(out: Path, record: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder to fill and a record to complete; they take the place of what `out` held when the block ends.

    The files are written in a folder inside `out` and moved up when all are there, the record last. What an earlier
    block of the same record left is replaced; files of anybody else stay. A block that fails leaves no folder that was
    made for it.

    Args:
        record: name of the JSON file that says what is in the folder; it makes the folder known as one of ours.
    Yields:
        the folder to write in, and the record, to which `files` is added.
    Raises:
        PipelineError: `out` holds something else, or cannot be written.
    """
    earlier = _earlier_files(out, record)
    made_here = [folder for folder in (out, *out.parents) if not folder.exists()]
    check_writable(out)
    temporary = out / _UNFINISHED
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    content: dict[str, Any] = {}
    try:
        yield temporary, content
        files = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        not_ours = {*files} - earlier
        in_the_way = [
            name for name in files if (name in not_ours and (out / name).exists()) or not _is_inside(out, name)
        ]
        if in_the_way:
            raise PipelineError(
                f"{out} holds {in_the_way[0]}, which is not of {record}; move it, or give another --out"
            )
        content["files"] = files
        write_atomic(temporary / record, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        for name in earlier - set(files):
            (out / name).unlink(missing_ok=True)
        for name in [*files, record]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, out / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # they are not empty: all went well
            for folder in made_here:
                folder.rmdir()


def accounts_of(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, dict[str, Any]]:
    """What a record says of its arrays, (N, D) each: their shapes, and how many clips lack each."""
    return {
        "views": {name: list(array.shape) for name, array in arrays.items()},
        "missing": {name: int((~has_no_nan(array)).sum()) for name, array in arrays.items()},
    }


def _earlier_files(out: Path, record: str) -> set[str]:
    """The files that an earlier folder of this record holds here; refuses a folder of anything else."""
    if out.exists() and not out.is_dir():
        raise PipelineError(f"--out {out} is a file; give a folder")
    path = out / record
    if not out.is_dir() or not any(item.name != _UNFINISHED for item in out.iterdir()):
        return set()
    if not path.is_file():
        raise PipelineError(f"--out {out} holds other files and no {record}; give a new or an empty folder")
    try:
        names = read_record(path)["files"]
        if not all(_is_inside(out, name) for name in names):
            raise ValueError("it names files outside its folder")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"cannot read {path} ({error}); delete the folder, or give another --out") from None
    return set(names)


def _is_inside(out: Path, name: Any) -> bool:
    """Whether a name in a record is of a file in its folder; one that a link in it leads out of is not."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        return False
    return (out / name).parent.resolve().is_relative_to(out.resolve())
