"""Reading and writing text and CSV: encodings, delimiters, broken rows, cells that must survive."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpora.tables import (
    decode_text,
    format_table,
    parse_number,
    read_columns,
    read_table,
    split_lines,
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


@given(st.lists(st.tuples(st.text(), st.text())))
def test_format_table_keeps_every_cell(rows: list[tuple[str, str]]) -> None:
    text = format_table(("a", "b"), rows)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [["a", "b"], *map(list, rows)]


def test_format_table_leaves_spreadsheet_signs_alone() -> None:
    assert format_table(("clip_id", "label"), [("-a_1", "-3"), ("=b", "+1")]) == "clip_id,label\n-a_1,-3\n=b,+1\n"
