"""The command line as a person has it: on a terminal of 80 columns, or called in this process."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.cli import main

ROOT = Path(__file__).resolve().parents[1]
# What says elsewhere that colours are wanted, or how wide a line may be.
_OVERRIDES = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "TERMINAL_WIDTH", "TTY_COMPATIBLE")


class Said(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


def plain_environment(**extra: str) -> dict[str, str]:
    """The environment of a person: nothing set that speaks of colours or widths."""
    kept = {name: value for name, value in os.environ.items() if name not in _OVERRIDES}
    return {**kept, "TERM": "xterm-256color", **extra}


def on_a_terminal(*words: str, **extra: str) -> tuple[int, str]:
    """Runs `python WORDS` with all three streams on a terminal.

    Args:
        extra: environment variables.
    Returns:
        exit code, and all that came, colours and carriage returns included.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=plain_environment(**extra), **streams)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed: the command has ended
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return process.wait(timeout=60), seen.decode().replace("\r\n", "\n")


def call_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> Said:
    """Runs the command line in this process, which costs no start."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["pipeline/__main__.py", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return Said(int(ended.value.code or 0), said.out, said.err)
