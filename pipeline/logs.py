"""The log of a command: all that it said, with the settings and versions behind it and the traceback of an error.

<workdir>/logs/<UTC time>-<stage>.log, the last 20 of them. A log that cannot be written stops no command. It is made to
be sent to others: it holds no password of a URL, and nothing that their terminals obey.
"""

import re
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pipeline.console import printable
from pipeline.provenance import redacted

KEPT = 20  # logs in a folder
ELSEWHERE = "tib-pipeline-logs"  # among the temporary files, for an error that no workdir is known of
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Log:
    """One command's log. It waits in memory until there is a folder for it: a mistyped one is not made for a log.

    Args:
        stage: named in the file's name.
    """

    def __init__(self, stage: str) -> None:
        self.path: Path | None = None  # of the file, once there is one
        self._name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{stage}"
        self._folder: Path | None = None
        self._header: Callable[[], str] = str
        self._lines: list[str] = []
        self._file: TextIO | None = None

    def belongs_to(self, workdir: Path, header: Callable[[], str]) -> None:
        """Says where the log goes, as soon as that folder is there, and what stands at its top."""
        self._folder, self._header = workdir / "logs", header
        self._write_out()

    def line(self, text: str) -> None:
        """Adds lines, each with the time of day in UTC; never fails."""
        lines = redacted(text.removesuffix("\n")).split("\n")
        self._lines += [f"{datetime.now(UTC):%H:%M:%S} {printable(line)}\n" for line in lines]
        self._write_out()

    def traceback_of(self, error: BaseException) -> None:
        self.line("".join(traceback.format_exception(error)))

    def keep(self) -> Path | None:
        """Opens the file whether its folder is there or not, if need be among the temporary files; None if nowhere."""
        for folder in (self._folder, Path(tempfile.gettempdir()) / ELSEWHERE):
            if self._file is None and folder is not None:
                self._open(folder)
        self._write_out()
        return self.path

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk refuses what is still held
                self._file.close()
            self._file = None

    def _write_out(self) -> None:
        if self._file is None and self._folder is not None and self._folder.parent.is_dir():
            self._open(self._folder)
        if self._file is None:
            return
        lines, self._lines = self._lines, []
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError:  # a full disk: the command says so itself where it matters
            pass

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = _free_name(folder, self._name)
            self._file = path.open("x", encoding="utf-8", errors="backslashreplace")
            self.path = path
            self._file.write(redacted(self._header()))
            _keep_the_last(folder)
        except Exception:  # a disk that refuses, a package without a version
            self._folder = None  # not tried again with every line


def _free_name(folder: Path, name: str) -> Path:
    path, number = folder / f"{name}.log", 1
    while path.exists():  # another command of the same second
        number += 1
        path = folder / f"{name}-{number}.log"
    return path


def _keep_the_last(folder: Path) -> None:
    """By name, which begins with the time."""
    for stale in sorted(folder.glob("*Z-*.log"))[:-KEPT]:
        stale.unlink(missing_ok=True)


class Tee:
    """A stream whose lines are in the log too, without colours; of a bar drawn over itself only its last state.

    It is for the time of a command in the place of sys.stdout or sys.stderr, for whoever writes there.
    """

    def __init__(self, stream: TextIO, log: Log) -> None:
        self._stream, self._log, self._rest = stream, log, ""

    def write(self, text: str) -> int:
        count = self._stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.line(_as_left_on_screen(line))
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _as_left_on_screen(line: str) -> str:
    drawn = [part for part in _COLOURS.sub("", line).split("\r") if part.strip()]
    return drawn[-1].rstrip() if drawn else ""
