"""Imported by the server that `readers` are forked from, and by nothing else: what all of them need, and the two
things they must not do.

They must not take more than a core each. And a process of multiprocessing first runs the script that started the run
once more, for functions that it may define; one without `if __name__ == "__main__":` would start a second run. What
readers call is in modules.
"""

import importlib
from multiprocessing import spawn

from pipeline.reader_process import use_one_thread

use_one_thread()
for module in (
    "extractors.frame_preparer",
    "extractors.log_mel_preparer",
    "extractors.media_reader",
    "extractors.preparing",
    "pipeline.reader_process",
):
    importlib.import_module(module)

spawn._fixup_main_from_path = lambda path: None  # type: ignore[attr-defined]
