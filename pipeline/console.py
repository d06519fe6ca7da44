"""What a person sees: plain lines, tables and a progress bar. Results go to stdout, bars to stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm


def say(text: str = "") -> None:
    """One line to stdout, above a running progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table to stdout; every column but the first is a number, set to the right."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width, highlight=False, markup=False, emoji=False).print(grid)


def progress(total: int, label: str, unit: str) -> "tqdm[Any]":
    """A tqdm bar on stderr: live on a terminal, a line now and then elsewhere."""
    interval_s = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=label, unit=unit, mininterval=interval_s, file=sys.stderr, dynamic_ncols=True)
