"""What this machine has: processor features, cores and memory, as far as a container lets a process use them."""

import ctypes
import os
import platform
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
# Flag of /proc/cpuinfo -> what it is called; the best of a kind first.
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "asimd": "NEON"}
BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}


def cpu_model(cpuinfo: str) -> str:
    """The processor's name from the text of /proc/cpuinfo; the architecture where it has none."""
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, "") or platform.machine()


def cpu_flags(cpuinfo: str) -> set[str]:
    """Features of the first processor in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return set(value.split())
    return set()


def read_cpuinfo() -> str:
    """The text of /proc/cpuinfo; "" where the system has none."""
    return _text(_CPUINFO)


def usable_cores(cgroup: Path = _CGROUP) -> float:
    """Cores this process may use: of its affinity, and of its container's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, _, period = _text(cgroup / "cpu.max").strip().partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdecimal() and period.isdecimal() else cores


def has_bf16() -> bool:
    """Whether the processor multiplies bf16; elsewhere it is emulated, and slower than fp32."""
    return bool(BF16.keys() & cpu_flags(read_cpuinfo()))


def threads_of(asked: int | str, most: int | None = None) -> int:
    """A number of threads: what was asked for, or under "auto" the usable cores, no more than `most`."""
    if not isinstance(asked, str):
        return asked
    return min(max(1, round(usable_cores())), most or sys.maxsize)


def memory_gb(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> tuple[float, float] | None:
    """(whole, free) memory in GB that this process may use; None where the system does not tell."""
    found = dict(line.split(":") for line in _text(meminfo).splitlines() if ":" in line)
    if not {"MemTotal", "MemAvailable"} <= found.keys():
        return None
    whole, free = (int(found[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit, used = (_text(cgroup / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdecimal() and used.isdecimal():
        whole, free = min(whole, int(limit)), min(free, int(limit) - int(used))
    return whole / 1e9, free / 1e9


def return_freed_memory() -> None:
    """Gives the system what was freed and glibc still holds: after weights were rounded or let go, hundreds of MB."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
