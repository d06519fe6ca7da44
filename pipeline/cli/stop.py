"""Ctrl-C and SIGTERM: a command ends at once, whatever it is in the middle of.

Python raises an exception at its next bytecode; a call into C (a network's forward pass, a PCA) may be seconds away
from that, or swallow it. So a thread watches too, and ends the process when the exception has not come through in
time. That loses nothing that was not lost already: every file is written whole or not at all (pipeline/files.py).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 1.0  # from the signal to the exception's way out of the command
SIGNALS: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(KeyboardInterrupt):
    """The user, or whoever runs this for them, wants it to end. No `except Exception` holds it up."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def exit_code(signum: int) -> int:
    """130 of Ctrl-C, 143 of SIGTERM, as shells say it."""
    return 128 + signum


def exit_now(signum: int, frame: FrameType | None = None) -> None:
    """Ends the process without waiting for threads or clean-up."""
    os._exit(exit_code(signum))


@contextmanager
def stoppable(goodbye: Callable[[int], None]) -> Iterator[None]:
    """While it lasts the first signal raises Stopped in the main thread; a signal that is ignored already stays so.

    Args:
        goodbye: called with the signal's number before the process is ended with the exception still on its way.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup, a shell's `&`
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    out = threading.Event()

    def watch() -> None:
        while number := os.read(reader, 1):  # a byte a signal; nothing once the writer is closed
            if number[0] in SIGNALS and not out.wait(GRACE_S):
                goodbye(number[0])
                exit_now(number[0])
        os.close(reader)

    asked: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)  # the end is at most GRACE_S away
        asked.append(signum)
        raise Stopped(signum)

    before = {number: signal.signal(number, stop) for number in heeded}
    # Python's own C handler writes here at once, also while no bytecode runs.
    wakeup_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="stop", daemon=True).start()
    stopped = False
    try:
        yield
    except Stopped:
        stopped = True
        raise
    except Exception as error:
        if not asked:
            raise
        stopped = True
        raise Stopped(asked[0]) from error  # DuckDB makes an error of its own of what is raised in its midst
    finally:
        out.set()
        signal.set_wakeup_fd(wakeup_fd)
        os.close(writer)
        for number, handler in before.items():
            # After a stop there is a message left to say; whoever cannot wait for that ends it without a traceback.
            signal.signal(number, exit_now if stopped else handler)
