"""Where an artifact comes from: hashes of settings, versions of libraries, the commit."""

import hashlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What can change the numbers of an embedding, by modality.
LIBRARIES = {
    "visual": ("av", "numpy", "torch", "torchvision"),
    "text": ("torch", "transformers"),
    "audio": ("av", "numpy", "torch", "torchaudio"),
}


def stable_hash(value: Any, length: int = 12) -> str:
    """The first hex digits of the SHA-256 of a JSON-able value, keys in order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


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
    """What a run was made with: commit, Python, platform, packages."""
    packages = ("numpy", "scikit-learn", "scipy", "torch", "torchaudio", "torchvision", "transformers", "av")
    return {
        "git_sha": git_sha(),
        "command": shlex.join(["python", "-m", "pipeline", *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(packages),
    }
