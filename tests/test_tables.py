"""Reading and writing text and CSV: encodings, delimiters, broken rows, cells that must survive."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpora import tables
from pipeline.corpora.tables import (
    decode_text,
    format_table,
    parse_number,
    parse_rows,
    read_columns,
    read_records,
    read_table,
    split_lines,
    table_chunks,
)
from pipeline.errors import PipelineError


@pytest.mark.parametrize(
    ("data", "text", "note"),
    [
        (b"", "", None),
        ("é\u2028".encode(), "é\u2028", None),
        ("é".encode("utf-8-sig"), "é", None),
        ("é".encode("utf-16"), "é", "byte-order mark"),
        (b"\xfe\xff" + "é".encode("utf-16-be"), "é", "byte-order mark"),
        ("é".encode("utf-32"), "é", "byte-order mark"),
        ("é".encode("utf-16") + b"x", "é\ufffd", "byte-order mark"),  # half a character at the end
        (b"\x80\x85", "€…", "1 of its lines .* Windows-1252"),
        ("é\n".encode() + b"\xe9\n" + "好".encode(), "é\né\n好", r"1 of its lines \(first: 2\)"),
        ("créée, naïve «où»".encode("cp1252"), "créée, naïve «où»", "Windows-1252"),
        ("id,1\n好的，“我”".encode("gbk"), "id,1\n好的，“我”", "GBK"),
        ("我\n".encode("gbk") * 20 + b"\xce", "我\n" * 20 + "\ufffd", "GBK"),  # half a character at the end
        ("我\n".encode() * 20 + b"\xe6\x88\n", "我\n" * 20 + "æˆ\n", r"1 of its lines \(first: 21\)"),
        (b"a\0b\0", "ab", "2 NUL characters dropped"),
    ],
)
def test_decode_text(data: bytes, text: str, note: str | None) -> None:
    got, said = decode_text(data)
    assert got == text
    assert re.search(note or "^none$", said or "none")


@given(st.binary())
def test_decode_text_takes_any_bytes(data: bytes) -> None:
    text, _ = decode_text(data)
    text.encode("utf-8")
    assert "\0" not in text


def test_split_lines_cuts_at_line_ends_alone() -> None:
    assert split_lines("a\rb\r\nc\u2028\x85\x0cd\n\n") == ["a\r", "b\r\n", "c\u2028\x85\x0cd\n", "\n"]


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), (" -2.5 ", -2.5), ("1e3", 1000.0), ("0x1", None)])
def test_parse_number(text: str, number: float | None) -> None:
    if number is None:
        with pytest.raises(ValueError, match="expected a number, got '0x1'"):
            parse_number(text)
    else:
        assert parse_number(text) == number


def table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_cells_are_trimmed_and_a_quoted_cell_may_hold_anything(tmp_path: Path) -> None:
    path = table(tmp_path, '\n a , b \r\n x ,"1, ""2""\nand 3"\r\n\r\n,\r\n y, "z"')
    read = read_table(path, "t.csv")
    assert read.columns == ["a", "b"]
    assert [(row.line, row.cells) for row in read.rows] == [
        (3, {"a": "x", "b": '1, "2"\nand 3'}),
        (7, {"a": "y", "b": "z"}),
    ]
    assert read.problems == []


def test_a_quote_that_is_never_closed_costs_its_own_row_alone(tmp_path: Path) -> None:
    rows = ["id,text", '1,"open', "2,fine", '3,"quoted"', '4,"he said "hi" twice"', "5,fine", '6,"open again']
    read = read_table(table(tmp_path, "\n".join(rows)), "t.csv")
    assert [row.cells["id"] for row in read.rows] == ["2", "3", "5"]
    assert [problem.where for problem in read.problems] == ["t.csv:2", "t.csv:5", "t.csv:7"]
    assert all(problem.message.startswith("broken quoting: ") for problem in read.problems)


def test_a_cell_too_long_to_be_text_is_a_problem(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, "id,text\n1," + "x" * 200_000 + "\n2,fine\n"), "t.csv")
    assert [row.cells["id"] for row in read.rows] == ["2"]
    assert read.problems[0].where == "t.csv:2"


def test_a_table_in_another_encoding_is_read_and_reported(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, "id;text\n1;é\n".encode("utf-16")), "t.csv")
    assert read.rows[0].cells == {"id": "1", "text": "é"}
    assert [(problem.kind, problem.where) for problem in read.problems] == [("not_utf8", "t.csv")]


def test_tables_without_a_usable_header_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"t\.csv is empty; expected a header line"):
        read_table(table(tmp_path, "\ufeff\n ,\n"), "t.csv")
    with pytest.raises(PipelineError, match=r"t\.csv: the header repeats a, b; name each column once"):
        read_table(table(tmp_path, "a,b,a,b,,\n"), "t.csv")
    with pytest.raises(PipelineError, match=r"cannot read t\.csv: Is a directory"):
        read_table(tmp_path, "t.csv")


def test_require_names_the_remedy(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, "a,b\n"), "t.csv")
    read.require("a")
    with pytest.raises(PipelineError, match=r"expected a column 'c', got 'a', 'b'; add it"):
        read.require("c")
    with pytest.raises(PipelineError, match=r"got 'a', 'b'; set corpus\.x to one of them"):
        read.require("c", "corpus.x")


def test_read_columns_reads_the_header_alone(tmp_path: Path) -> None:
    assert read_columns(table(tmp_path, "a\tb\n" + "x\ty\n" * 100_000)) == ["a", "b"]
    assert read_columns(table(tmp_path, "")) == []
    assert read_columns(table(tmp_path, bytes(range(256)) * 1000)) != ["a", "b"]  # no CSV, and no crash


CELLS = st.text() | st.text(alphabet="'=+-@\t\r\n\uff1d(a1")


@given(st.lists(st.tuples(CELLS, CELLS)))
def test_format_table_keeps_every_cell(rows: list[tuple[str, str]]) -> None:
    read = parse_rows(format_table(("a", "b"), rows))
    assert [cells for _, cells in read] == [["a", "b"], *map(list, rows)]


def test_format_table_leaves_numbers_and_names_alone() -> None:
    assert format_table(("clip_id", "label"), [("-a_1", "-3"), ("-b[0]", "+1")]) == (
        "clip_id,label\n-a_1,-3\n-b[0],+1\n"
    )


@pytest.mark.parametrize(
    "cell", ["=1+1", "@SUM(A1)", "-2+cmd|' /C calc'!A0", "+A1 B1", "\t=1", "\r=1", "\n=1", "\uff1d1+1"]
)
def test_format_table_marks_what_a_spreadsheet_would_compute(cell: str) -> None:
    text = format_table(("id", "text"), [("1", cell), ("2", f"'{cell}")])
    _, first, second = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert (first, second) == (["1", f"'{cell}"], ["2", f"''{cell}"])


def test_a_table_of_our_own_that_is_damaged_is_told_by_its_line(tmp_path: Path) -> None:
    assert read_records(table(tmp_path, "a,b\n1,2\n")) == [{"a": "1", "b": "2"}]
    assert read_records(table(tmp_path, "")) == []
    with pytest.raises(ValueError, match=r"line 3: expected 2 cells, got 1"):
        read_records(table(tmp_path, "a,b\n1,2\n3\n"))
    with pytest.raises(ValueError, match=r"line 2: unexpected end of data"):
        read_records(table(tmp_path, 'a,b\n1,"2\n'))


def test_our_own_long_texts_are_read_back_and_endless_ones_refused() -> None:
    limit = csv.field_size_limit()
    assert parse_rows(format_table(("text",), [("x" * 900_000,)]))[1][1] == ["x" * 900_000]
    with pytest.raises(ValueError, match=r"line 2: field larger than field limit"):
        parse_rows(format_table(("text",), [("x" * 1_100_000,)]))
    assert csv.field_size_limit() == limit


def test_a_long_table_in_pieces_is_the_same_table(monkeypatch):
    rows = [(f"c{n}", "=1" if n % 3 else "a\rb") for n in range(25)]
    whole = format_table(("clip_id", "x"), rows)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 4)
    pieces = list(table_chunks(("clip_id", "x"), iter(rows)))
    assert len(pieces) == 7
    assert [cells for _, cells in parse_rows("".join(pieces))] == [cells for _, cells in parse_rows(whole)]
    assert "".join(table_chunks(("clip_id",), [])) == "clip_id\n"
