"""Writing files whole or not at all."""

import filecmp
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PipelineError
from pipeline.storage import is_local, put_bytes, put_file

# What a killed write leaves has such a name; nothing reads it, and the next command that holds the folder deletes it.
TEMPORARY_PREFIX = ".writing-"


def write_atomic(path: Path, data: bytes | str) -> bool:
    """Writes a file under a temporary name in its own folder, flushes it to the disk and renames it.

    Whoever reads `path`, at any moment and after any crash, finds the old content or the new, never a part. Missing
    parent folders are made. A file that holds `data` already is left alone, with its modification time.

    Args:
        path: in an object store it is written by one request, which is as whole.
        data: the whole content; text is written as UTF-8, line ends as they are. Half a surrogate pair, which JSON may
            hold and UTF-8 has no form for, becomes a question mark.
    Returns:
        True if the file was written, False if it held this content already.
    Raises:
        PipelineError: the disk is full, read-only, or otherwise refuses; the temporary file is removed.
    """
    content = data.encode("utf-8", "replace") if isinstance(data, str) else data
    try:
        if _holds(path, content):
            return False
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        else:
            put_bytes(path, content)
    except OSError as error:
        raise _refused(path, error) from error
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file for what does not fit into memory: written to at will, and at `path` only once the block has ended well.

    For an object store it is written on this machine first.

    Raises:
        PipelineError: as `write_atomic`; the temporary file is removed.
    """
    local = is_local(path)
    folder = path.parent if local else Path(tempfile.gettempdir())
    temporary = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if local:
            os.replace(temporary, path)
        else:
            put_file(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)  # gone already when the rename went through


def write_chunks(path: Path, chunks: Iterable[str]) -> bool:
    """Writes a text that comes in pieces, as UTF-8, whole or not at all.

    Returns:
        True if the file was written, False if it held this content already and was left alone.
    Raises:
        PipelineError: as `write_atomic`.
    """
    try:
        with whole_file(path) as file:
            for chunk in chunks:
                file.write(chunk.encode("utf-8", "replace"))
            file.flush()
            if is_local(path) and path.is_file() and filecmp.cmp(file.name, path, shallow=False):
                raise _Unchanged
    except _Unchanged:
        return False
    return True


class _Unchanged(Exception):
    """What was written is what is there."""


def _refused(path: Path, error: OSError) -> PipelineError:
    reason = error.strerror or str(error)
    return PipelineError(f"cannot write {path}: {reason}; free some space, or choose a folder that may be written")


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` a second name of a file that is never changed in place; a copy where the disk knows no such thing.

    Raises:
        PipelineError: the file cannot be read, or the target not be written.
    """
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        if target.exists() and target.samefile(source):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PipelineError(f"cannot write {target}: {reason}; free some space, or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes the folder where it is missing and tries to write in it; nothing stays behind.

    Raises:
        PipelineError: it cannot be made, or not be written in.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise PipelineError(f"cannot write in {folder}: {reason}; choose a folder that may be written") from error


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def _replace(path: Path, content: bytes) -> None:
    # A name of its own for each write: two writers never share a temporary file, however long `path.name` is.
    with whole_file(path) as file:
        file.write(content)
