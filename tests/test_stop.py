"""Ctrl-C and SIGTERM, sent to real processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAD = """
import sys, time
from pipeline.cli.stop import Stopped, exit_code, exit_now, stoppable
def goodbye(signum):
    print("goodbye", signum, file=sys.stderr, flush=True)
def stoppably(work):
    try:
        with stoppable(goodbye):
            print("ready", flush=True)
            work()
    except Stopped as stopped:
        print("stopped", stopped.signum, flush=True)
        sys.exit(exit_code(stopped.signum))
"""


def heeding() -> None:
    """A test runner in the background may have been told to ignore Ctrl-C, which its children inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def started(code: str) -> "subprocess.Popen[str]":
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HEAD + code], cwd=ROOT, preexec_fn=heeding, **streams)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """The rest of stdout, and stderr. Not `communicate`, which forgets what came along with the first line."""
    process.wait(timeout=60)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        return process.stdout.read(), process.stderr.read()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_runs_python_stops_by_an_exception(signum, code):
    process = started("stoppably(lambda: time.sleep(60))")
    process.send_signal(signum)
    out, err = ended(process)
    assert process.returncode == code
    assert out == f"stopped {signum.value}\n"
    assert err == ""


def test_no_except_exception_holds_it_up():
    process = started(
        """
def work():
    while True:
        try:
            time.sleep(0.05)
        except Exception:
            pass
stoppably(work)
"""
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


def test_a_command_in_a_long_call_into_c_is_ended():
    """A decomposition of minutes, in which no Python runs that could raise anything."""
    process = started(
        """
import numpy as np
matrix = np.random.default_rng(0).normal(size=(6000, 6000))
stoppably(lambda: np.linalg.svd(matrix))
"""
    )
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    _, err = ended(process)
    assert process.returncode == 130
    assert err == "goodbye 2\n"
    assert time.monotonic() - before < 30  # GRACE_S on a quiet machine; the decomposition takes minutes


def test_a_second_ctrl_c_ends_it_without_a_traceback():
    process = started(
        """
def work():
    try:
        time.sleep(60)
    finally:
        time.sleep(0.3)  # a clean-up that takes its time
try:
    stoppably(work)
finally:
    time.sleep(60)
"""
    )
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
    out, err = ended(process)
    assert process.returncode == 130
    assert "Traceback" not in out + err


def test_a_signal_that_is_ignored_stays_so():
    process = started(
        """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's `&` do
stoppably(lambda: time.sleep(0.5))
print("through", flush=True)
"""
    )
    process.send_signal(signal.SIGINT)
    out, _ = ended(process)
    assert process.returncode == 0
    assert out == "through\n"


def test_what_was_there_is_there_again_afterwards():
    process = started(
        """
import signal
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
stoppably(lambda: None)
print(before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
print(signal.set_wakeup_fd(-1))
"""
    )
    out, err = ended(process)
    assert (out, err) == ("True\n-1\n", "")
