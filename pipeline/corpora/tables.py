"""Tolerant reading of other people's text and CSV: any encoding, any of three delimiters, one bad row at a time."""

import codecs
import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipeline.corpora.base import MAX_TRANSCRIPT, Corpus, Problem
from pipeline.errors import PipelineError

DELIMITERS = (",", ";", "\t")
CHUNK_ROWS = 50_000  # of a table that is written
# A quote that is never closed is looked for over this many lines; then the row that opened it is given up alone.
_MAX_LINES_PER_ROW = 1000
_HEAD_BYTES = 65536  # enough for any header, and under the csv module's limit for one cell
# What a formula begins with, also as East Asian keyboards write it; and what begins alike and does nothing.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_HARMLESS = re.compile(r"[+-][A-Za-z0-9_.$/\[\]+-]*")
# The 4-byte mark first: UTF-32's little-endian one begins with UTF-16's.
_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes that are not UTF-8 are Chinese where so many of their characters are GB2312's, the everyday ones. Accented
# letters read as Chinese give rare ones.
_CHINESE_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: the line it begins on (the header is line 1) and its cells by column, blanks trimmed."""

    line: int
    cells: dict[str, str]


@dataclass(slots=True)
class Table:
    """A CSV file as it was read.

    Attributes:
        name: how messages call it.
        columns: the header's names, blanks trimmed.
        rows: those with a cell for every column.
        problems: rows that were left out, and an encoding other than UTF-8.
    """

    name: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def require(self, column: str, setting: str | None = None) -> None:
        """Refuses a table that lacks a column.

        Args:
            setting: the setting that names the column, where there is one.
        Raises:
            PipelineError: no such column; lists those there are.
        """
        if column not in self.columns:
            remedy = f"set {setting} to one of them" if setting else "add it"
            raise PipelineError(
                f"{self.name}: expected a column {column!r}, got {', '.join(map(repr, self.columns))}; {remedy}"
            )


def parse_number(text: str) -> float:
    """A finite number.

    Raises:
        ValueError: anything else: words, blanks, nan, inf, Python's 1_000.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise ValueError(f"expected a number, got {text!r}")
    return number


def decode_text(data: bytes) -> tuple[str, str | None]:
    """Bytes to text, whatever they are.

    Returns:
        The text without byte-order mark and NULs; how it was read if that is not plain UTF-8, else None.
    """
    notes: list[str] = []
    text = _decode_unicode(data)
    if text is None:
        text, notes = _decode_chinese(data) or _decode_lines(data)
    elif data.startswith(tuple(mark for mark, _ in _WIDE_MARKS)):
        notes = ["read as UTF-16 or UTF-32 by its byte-order mark"]
    if "\0" in text:
        notes.append(f"{text.count(chr(0))} NUL characters dropped, so it may be no text at all")
        text = text.replace("\0", "")
    return text, "; ".join(notes) or None


def _decode_unicode(data: bytes) -> str | None:
    for mark, codec in _WIDE_MARKS:
        if data.startswith(mark):
            return data.decode(codec, errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _decode_chinese(data: bytes) -> tuple[str, list[str]] | None:
    """GBK and GB18030, as Chinese spreadsheets save; None where the bytes are none of it."""
    text = data.decode("gb18030", errors="replace")
    beyond_ascii = "".join(character for character in text if character > "\x7f")
    n_everyday = len(beyond_ascii.encode("gb2312", errors="ignore")) // 2
    if n_everyday < _CHINESE_SHARE * len(beyond_ascii):
        return None
    return text, ["read as GBK, a Chinese encoding"]


def _decode_lines(data: bytes) -> tuple[str, list[str]]:
    """Line by line, so that one odd byte in a UTF-8 file spoils the accents of its own line alone."""
    lines, odd = [], []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            lines.append(line.decode("cp1252", errors="replace"))
            odd.append(number)
    return "\n".join(lines), [f"{len(odd)} of its lines (first: {odd[0]}) read as Windows-1252"]


def split_lines(text: str) -> list[str]:
    r"""Lines with their ends, at \n, \r\n or \r and nothing else: str.splitlines also cuts at U+2028 and U+0085."""
    return list(io.StringIO(text, newline=""))


def read_text(corpus: Corpus, path: str, *, if_unreadable: str = "unreadable_row") -> str | None:
    """The text of a corpus' file; what it is not, is told, and None where it cannot be read.

    Args:
        path: relative to the corpus root.
        if_unreadable: the kind of problem that an unreadable file is.
    """
    try:
        text, note = decode_text((corpus.root / path).read_bytes())
    except OSError as error:
        corpus.report(if_unreadable, path, f"cannot be read: {error.strerror or error}")
        return None
    if note:
        corpus.report("not_utf8", path, f"not UTF-8: {note}")
    return text


def read_table(path: Path, name: str, *, mend: Callable[[str], tuple[str, str | None]] | None = None) -> Table:
    """Reads a CSV file with a header; a row that cannot be read is a problem and costs no other row.

    Args:
        name: how messages call the file; problems are at name:line.
        mend: what rights the text before it is cut into cells, and says what it did, None where that is nothing.
    Raises:
        PipelineError: the file cannot be opened, is empty, or repeats a column.
    """
    try:
        text, note = decode_text(path.read_bytes())
    except OSError as error:
        raise PipelineError(f"cannot read {name}: {error.strerror or error}") from error
    table = Table(name, [])
    if note:
        table.problems.append(Problem("not_utf8", name, f"not UTF-8: {note}"))
    if mend is not None:
        text, note = mend(text)
        if note:
            table.problems.append(Problem("not_utf8", name, note))
    lines = split_lines(text)
    delimiter = _sniff_delimiter(lines)
    for line, cells in _records(lines, delimiter):
        if isinstance(cells, csv.Error):
            table.problems.append(Problem("unreadable_row", f"{name}:{line}", f"broken quoting: {cells}"))
        elif not any(cells):
            continue
        elif not table.columns:
            table.columns = cells
            _refuse_repeats(table)
        elif len(cells) != len(table.columns):
            table.problems.append(_wrong_length(table, line, cells, delimiter))
        else:
            table.rows.append(Row(line, dict(zip(table.columns, cells, strict=True))))
    if not table.columns:
        raise PipelineError(f"{name} is empty; expected a header line with the names of the columns")
    return table


def read_columns(path: Path) -> list[str]:
    """The header of a CSV file, [] for an empty file; reads its beginning alone.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        lines = split_lines(decode_text(file.read(_HEAD_BYTES))[0])
    records = (cells for _, cells in _records(lines, _sniff_delimiter(lines)))
    return next((cells for cells in records if not isinstance(cells, csv.Error) and any(cells)), [])


def _sniff_delimiter(lines: list[str]) -> str:
    """The delimiter that cuts the header into most columns; the comma where none does."""
    header = next(([line[:_HEAD_BYTES]] for line in lines if line.strip()), [""])
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader(header, delimiter=delimiter))))


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """(line, cells) of each record, or (line, why not).

    A reader of its own for each record: after a quote that was never closed, reading goes on at the very next line
    instead of swallowing the rows up to the next quote.
    """
    at = 0
    while at < len(lines):
        ahead = (lines[i] for i in range(at, min(at + _MAX_LINES_PER_ROW, len(lines))))
        reader = csv.reader(ahead, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            yield at + 1, error
            at += 1
        else:
            yield at + 1, [cell.strip() for cell in cells]
            at += reader.line_num


def _refuse_repeats(table: Table) -> None:
    named = [column for column in table.columns if column]
    repeated = sorted({column for column in named if named.count(column) > 1})
    if repeated:
        raise PipelineError(f"{table.name}: the header repeats {', '.join(repeated)}; name each column once")


def _wrong_length(table: Table, line: int, cells: list[str], delimiter: str) -> Problem:
    expected, got = len(table.columns), len(cells)
    hint = f"; a text that holds {delimiter!r} needs quotes around it" if got > expected else ""
    columns = ", ".join(table.columns)
    message = f"expected {expected} fields ({columns}), got {got}{hint}"
    return Problem("unreadable_row", f"{table.name}:{line}", message)


def format_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    r"""CSV text with \n line ends that `parse_rows` reads back to the same cells, and a spreadsheet to text.

    A cell that a spreadsheet would take for a formula is marked (see `mark_cell`).
    """
    return "".join(table_chunks(columns, rows))


def table_chunks(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The text of `format_table` in pieces, for tables that are not to be held."""
    records = (tuple(map(mark_cell, cells)) for cells in rows)
    some = [columns, *islice(records, CHUNK_ROWS)]
    while some:
        # csv quotes a cell for \n, its line end here, but not for a lone \r, at which a reader would cut it in two.
        alone = any("\r" in cell for cells in some for cell in cells)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if alone else csv.QUOTE_MINIMAL)
        writer.writerows(some)
        yield text.getvalue()
        some = list(islice(records, CHUNK_ROWS))


def parse_rows(text: str) -> list[tuple[int, list[str]]]:
    """What `format_table` wrote: each row, the header's first, with the line that it ends on.

    Raises:
        ValueError: it is not CSV; says on which line.
    """
    return list(iter_rows(split_lines(text)))


def iter_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The same of lines with their ends, a row at a time."""
    reader = csv.reader(lines, strict=True)
    while True:
        # Set and set back around each row, as whoever takes the rows may read other tables in between.
        before = csv.field_size_limit(MAX_TRANSCRIPT)
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        yield reader.line_num, list(map(unmark_cell, cells))


def read_records(path: Path) -> list[dict[str, str]]:
    """The rows of a file that `format_table` wrote, each by its columns' names.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not UTF-8, not CSV, or has a row of another length than its header.
    """
    return list(iter_records(path))


def iter_records(path: Path) -> Iterator[dict[str, str]]:
    """The same, a row at a time in memory."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = iter_rows(file)
        _, columns = next(rows, (0, []))
        for line, cells in rows:
            if len(cells) != len(columns):
                raise ValueError(f"line {line}: expected {len(columns)} cells, got {len(cells)}")
            yield dict(zip(columns, cells, strict=True))


def mark_cell(cell: str) -> str:
    """The cell, with a ' before it where a spreadsheet would compute or fetch something instead of showing it.

    That is where it begins with one of = + - @, a tab or a line break. Numbers, and names such as -a_1, of which a
    data set's ids may be full, are left: a formula needs brackets or quotes to do anything.
    """
    return f"'{cell}" if _is_formula(cell.lstrip("'")) else cell


def unmark_cell(cell: str) -> str:
    """What `mark_cell` was given."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell.lstrip("'")) else cell


def _is_formula(cell: str) -> bool:
    return cell.startswith(_FORMULA_SIGNS) and not _HARMLESS.fullmatch(cell)
