"""What a person sees: plain lines, tables and a progress bar. Results go to stdout, bars and errors to stderr.

A stage says things; how much of it is shown is the command's affair (`output`). What is not shown is in the log. What
it says holds names and words of strangers: all of it is made `printable` here.
"""

import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

WIDTH = 120  # columns, where there is no terminal that has its own
LINE_EVERY_S = 30.0  # between two lines of progress, where there is no terminal for a bar
# What a terminal obeys instead of showing it: control characters, line breaks among them, and those that turn round the
# order in which a line is read.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text on one line, as a terminal can only show it: what it would obey becomes \\u001b and the like."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@dataclass(frozen=True, slots=True)
class Output:
    """How much is shown.

    Attributes:
        quiet: no lines, tables and bars; errors and what `result` is given alone.
        verbose: also what `detail` is given.
        unseen: takes what is not shown.
    """

    quiet: bool = False
    verbose: bool = False
    unseen: Callable[[str], None] = lambda text: None


_output = Output()


@contextmanager
def output(chosen: Output) -> Iterator[None]:
    """Shows as much as was chosen while it lasts."""
    global _output
    before, _output = _output, chosen
    try:
        yield
    finally:
        _output = before


def say(text: str = "") -> None:
    """One line to stdout, above a running progress bar."""
    if _output.quiet:
        _output.unseen(printable(text))
    else:
        result(text)


def detail(text: str) -> None:
    """A line that only --verbose shows."""
    if _output.verbose:
        result(text)
    else:
        _output.unseen(printable(text))


def trace(text: str) -> None:
    """A line that only --verbose shows, and only then is in the log: one of each clip would make that huge."""
    if _output.verbose:
        result(text)


def result(text: str) -> None:
    """A line that --quiet shows too."""
    tqdm.write(printable(text), file=sys.stdout)
    sys.stdout.flush()


def as_json(values: Any) -> str:
    """What JSON can hold, over several lines; what a terminal would obey is a JSON escape."""
    return "\n".join(map(printable, json.dumps(values, indent=2, ensure_ascii=False).split("\n")))


def error(text: str) -> None:
    """One line to stderr, an error or a warning; its first word is red or yellow on a terminal with colours."""
    line = Text(printable(text))
    line.highlight_regex(r"^(error|unexpected error)\b", "bold red")
    line.highlight_regex(r"^warning\b", "yellow")
    # Soft wrap leaves the line whole: whoever reads it in a file or copies a path from it wants no breaks.
    Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(line)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table to stdout; every column but the first is a number, set to the right."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*(printable(str(cell)) for cell in row))
    show(grid)


def show(grid: Any) -> None:
    """Anything that rich can print, to stdout."""
    file = io.StringIO() if _output.quiet else sys.stdout
    width = None if file.isatty() else WIDTH
    Console(file=file, width=width, highlight=False, markup=False, emoji=False).print(_Printable(grid))
    if isinstance(file, io.StringIO):
        _output.unseen(file.getvalue().rstrip())


@dataclass(frozen=True, slots=True)
class _Printable:
    """What rich prints, its text made printable; its own colours stand apart from that."""

    grid: Any

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.grid, options):
            is_own = segment.control or segment.text == "\n"
            yield segment if is_own else segment._replace(text=printable(segment.text))


def progress(total: int, label: str, unit: str, *, delay_s: float = 0.0, position: int | None = None) -> "tqdm[Any]":
    """A tqdm bar on stderr: live on a terminal, a whole line now and then elsewhere; none where it is quiet.

    Args:
        delay_s: for what may be over at once: no bar before that.
        position: its row, where several stand one below the other.
    """
    bar = _Bar if sys.stderr.isatty() else _Lines
    return bar(
        total=total,
        desc=printable(label),
        unit=unit,
        file=sys.stderr,
        dynamic_ncols=True,
        delay=delay_s,
        position=position,
        smoothing=0,  # what is left, by the mean pace: work is done in batches, whose last pace tells little
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",  # fits into 80 columns
        disable=_output.quiet,
    )


class _Bar(tqdm):
    """A bar whose remarks are printable."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        super().set_postfix_str(printable(s), refresh)


class _Lines(_Bar):
    """Progress for a file or a pipe, where a bar that is drawn over itself would be one endless line."""

    _shown: tuple[str, int] = ("", 0)
    _shown_t = -math.inf

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        now = time.monotonic()
        self._shown_t = max(self._shown_t, now - self.format_dict["elapsed"])  # the first line takes its time too
        if msg is None and now - self._shown_t >= LINE_EVERY_S:
            self._write(now)
        return False  # nothing is left on the screen to be cleared

    def _write(self, now: float) -> None:
        self._shown, self._shown_t = (self.desc, self.n), now
        elapsed = self.format_dict["elapsed"]
        togo_s = elapsed / self.n * (self.total - self.n) if self.n and self.total else 0
        left = f", about {self.format_interval(togo_s)} left" if togo_s else ""
        told = (
            f"{self.desc.removesuffix(': ')}: {self.n} of {self.total} {self.unit}s in {self.format_interval(elapsed)}"
        )
        self.fp.write(f"{told}{left}{', ' if self.postfix else ''}{self.postfix or ''}\n")
        self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """There is nothing to clear."""

    def close(self) -> None:
        if not self.disable and self.n and self._shown != (self.desc, self.n):
            self._write(time.monotonic())
        self.leave = False
        super().close()
