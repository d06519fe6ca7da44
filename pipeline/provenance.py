"""Where an artifact comes from: hashes of settings, versions of libraries, the commit."""

import hashlib
import importlib.metadata
import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import hardware

# What can change the numbers of an embedding, by modality.
LIBRARIES = {
    "visual": ("av", "numpy", "pillow", "torch", "torchvision"),
    "text": ("torch", "transformers"),
    "audio": ("av", "numpy", "torch"),
}


def stable_hash(value: Any, length: int = 12) -> str:
    """The first hex digits of the SHA-256 of a JSON-able value, keys in order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def redacted(text: str) -> str:
    """The text without what URLs in it may hold of secrets: user and password, and all that follows a `?`."""
    # One slash is what a path makes of two.
    without_users = re.sub(r"(\w:/{1,2})[^\s/?#]*@", r"\1***@", text)
    return re.sub(r"(\w:/{1,2}[^\s?#'\"]*\?)[^\s#'\"]+", r"\1***", without_users)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed version of each package, by its distribution's name; the packages are not imported."""
    return {name: importlib.metadata.version(name) for name in packages}


def git_sha() -> str | None:
    """The commit of this checkout, with `-dirty` where files differ from it; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def environment() -> dict[str, Any]:
    """What a run was made with: commit, Python, packages, machine."""
    packages = ("numpy", "scikit-learn", "scipy", "torch", "torchaudio", "torchvision", "transformers", "av")
    return {
        "git_sha": git_sha(),
        "command": redacted(shlex.join(["python", "-m", "pipeline", *sys.argv[1:]])),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": hardware.cpu_model(hardware.read_cpuinfo()),
        "cores": hardware.usable_cores(),
        "packages": versions(packages),
    }


def arithmetic() -> dict[str, Any]:
    """What PyTorch computes with in this process, beyond its version: it changes the last digits. Loads PyTorch."""
    import torch

    return {
        "processor": hardware.cpu_model(hardware.read_cpuinfo()),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }
