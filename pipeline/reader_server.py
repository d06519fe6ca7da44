"""Imported by the server that `readers` are forked from, and by nothing else: what all of them need, and the one
thing they must not do.

A process of multiprocessing first runs the script that started the run once more, for functions that it may define;
one without `if __name__ == "__main__":` would start a second run. What readers call is in modules.
"""

from multiprocessing import spawn

import pipeline.reader_process  # noqa: F401

spawn._fixup_main_from_path = lambda path: None  # type: ignore[attr-defined]
