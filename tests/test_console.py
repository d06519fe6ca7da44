"""What is shown: on a terminal, in a file, quiet and verbose."""

import io
import sys

import pytest
from terminal import on_a_terminal

from pipeline import console
from pipeline.console import Output, detail, output, progress, result, say, table, trace

CODE = "import sys; sys.path.insert(0, '.'); from pipeline import console; "


@pytest.mark.parametrize(
    ("quiet", "verbose", "shown"),
    [(False, False, ["said", "result"]), (False, True, ["said", "detail", "result"]), (True, False, ["result"])],
)
def test_each_line_is_shown_or_taken_by_the_log(capsys, quiet, verbose, shown):
    unseen = []
    with output(Output(quiet=quiet, verbose=verbose, unseen=unseen.append)):
        say("said")
        detail("detail")
        result("result")
    assert capsys.readouterr().out.splitlines() == shown
    assert {*shown, *unseen} == {"said", "detail", "result"}


@pytest.mark.parametrize(("verbose", "shown"), [(False, []), (True, ["of one clip"])])
def test_a_line_of_each_clip_is_for_verbose_alone_and_not_for_the_log(capsys, verbose, shown):
    unseen = []
    with output(Output(verbose=verbose, unseen=unseen.append)):
        trace("of one clip")
    assert (capsys.readouterr().out.splitlines(), unseen) == (shown, [])


def test_quiet_tables_are_in_the_log_and_ends_with_its_block(capsys):
    unseen = []
    with output(Output(quiet=True, unseen=unseen.append)):
        table("scores", ("", "ACC"), [("TIB", "0.5")])
    assert capsys.readouterr().out == ""
    assert "TIB" in unseen[0]
    table("scores", ("", "ACC"), [("TIB", "0.5")])
    assert "TIB" in capsys.readouterr().out


def test_progress_off_a_terminal_is_a_whole_line_now_and_then(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(100, "extract", "clip") as bar:
        for _ in range(100):
            bar.set_postfix_str("visual 7", refresh=False)
            bar.update(1)
    assert stream.getvalue() == "extract: 100 of 100 clips in 00:00, visual 7\n"


def test_a_long_wait_off_a_terminal_says_how_much_is_left(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    with progress(0, "train", "step") as bar:
        bar.reset(4)  # as training does, which knows its steps when it begins
        bar.set_description("train (free)")
        bar.update(1)
        bar.refresh()
        bar.update(3)
    lines = stream.getvalue().splitlines()
    assert lines[-1].startswith("train (free): 4 of 4 steps in 00:0")
    assert any(" 1 of 4 steps in 00:00, about 00:00 left" in line for line in lines)
    assert "\r" not in stream.getvalue()


def test_quiet_has_no_progress(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with output(Output(quiet=True)), progress(2, "extract", "clip") as bar:
        bar.update(2)
    assert stream.getvalue() == ""


def test_a_terminal_has_a_bar_drawn_over_itself_and_colours():
    bar = "bar = console.progress(2, 'extract', 'clip'); bar.update(1); bar.refresh(); bar.update(1); bar.close(); "
    code, seen = on_a_terminal("-c", CODE + bar + "console.error('error: no such file')")
    assert code == 0
    assert "extract:  50%|" in seen
    assert seen.count("\r") > 1
    assert "\x1b[1;31merror\x1b[0m: no such file" in seen


def test_no_color_and_a_pipe_are_without_colours(capsys):
    code, seen = on_a_terminal("-c", CODE + "console.error('error: no such file')", NO_COLOR="1")
    assert code == 0
    assert "\x1b[1;31m" not in seen
    assert "31" not in seen
    console.error("error: no such file")
    assert capsys.readouterr().err == "error: no such file\n"


def test_an_error_is_one_line_however_long_and_no_markup(capsys):
    told = "error: " + "x" * 300 + " [bold]y[/bold] :smile:"
    console.error(told)
    assert capsys.readouterr().err == told + "\n"
