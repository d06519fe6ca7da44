"""Where a store lies: a folder of this machine, or one of an object store by its URL (`s3://`, `gs://`, `memory://`).

Both are handled by pathlib's interface: a local place is a `Path`, any other a `UPath` of universal-pathlib, which has
the same methods over fsspec. The few things in which they differ are here and in `pipeline/files.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from upath import UPath


def location(where: str | Path) -> Path:
    """A folder from what a person gave: a path, `file://...`, or the URL of any file system that fsspec knows.

    Raises:
        PipelineError: no such kind of URL, or the package for it is not installed; says which.
    """
    text = str(where)
    protocol, colon, path = text.partition("://")
    if not colon:
        return Path(where)
    if protocol == "file":
        return Path(path)
    from upath import UPath

    try:
        remote = UPath(text)
        remote.fs.invalidate_cache()  # finds the package
    except (ImportError, ValueError) as error:
        raise PipelineError(f"{text}: no access to {protocol}:// ({error}); install what is missing") from None
    return cast("Path", remote)


def is_local(path: Path) -> bool:
    """Whether files there can be renamed, locked and mapped into memory."""
    return isinstance(path, Path)


def put_bytes(path: Path, content: bytes) -> None:
    """Writes an object by one request: whoever reads it finds the old content or the new.

    Raises:
        OSError: refused.
    """
    _remote(path).fs.pipe_file(_remote(path).path, content)


def put_file(source: Path, path: Path) -> None:
    """The same from a file of this machine; it is seen only when all of it is there.

    Raises:
        OSError: refused.
    """
    _remote(path).fs.put_file(str(source), _remote(path).path)


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names match, the newest last; as the file system has them now, not as once seen."""
    if is_local(folder):
        return sorted(folder.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name))
    remote = _remote(folder)
    remote.fs.invalidate_cache(remote.path)
    return sorted(folder.glob(pattern), key=lambda path: (remote.fs.modified(_remote(path).path), path.name))


def _remote(path: Path) -> "UPath":
    return cast("UPath", path)
