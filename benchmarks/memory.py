"""The peak of resident memory."""

import re
from pathlib import Path


def peak_bytes() -> int:
    """This process' own; `getrusage` tells that of the process that started it where that is higher."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("expected VmHWM in /proc/self/status")
    return int(found[1]) * 1024
