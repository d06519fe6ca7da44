"""What a fit leaves of itself now and then, so that one that was killed goes on where it was."""

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tib.views import View

EVERY_S = 30.0
FORMAT_VERSION = 2  # of the state; one of another version is not gone on from


class Checkpoint:
    """A file with the state of a fit that is not done.

    Args:
        path: of the file; None keeps nothing.
        made_of: what the fit is made of. A file that was made of something else is not gone on from.
    """

    def __init__(self, path: Path | None, made_of: str) -> None:
        self.path, self.made_of = path, made_of
        self.found = self._read()
        self._written = time.monotonic()

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Writes the state, a tree of tensors and plain values, where the last time is EVERY_S ago."""
        if self.path is None or time.monotonic() - self._written < EVERY_S:
            return
        buffer = io.BytesIO()
        torch.save({**state(), "made_of": self.made_of}, buffer)
        self._written = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace(self.path, buffer.getvalue())
        except OSError as error:  # the fit itself wants nothing of the disk
            warnings.warn(f"cannot write {self.path} ({error.strerror}): training goes on without it", stacklevel=3)

    def remove(self) -> None:
        """Of a fit that is done; one that stays is of no other fit."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            made_of = state["made_of"]
        except Exception as error:  # of a damaged file PyTorch's unpickler raises whatever its bytes lead to
            reason = (str(error).splitlines() or [""])[0][:120]
            warnings.warn(f"{self.path} is of no use ({reason}): training starts anew", stacklevel=3)
            return None
        return dict(state) if made_of == self.made_of else None


def fingerprint(settings: Mapping[str, Any], seed: int, views: Mapping[str, View]) -> str:
    """Of all that decides what a fit comes to on one machine."""
    digest = hashlib.sha256(
        json.dumps([FORMAT_VERSION, dict(settings), seed, torch.__version__], sort_keys=True).encode()
    )
    for name, view in views.items():
        digest.update(f"{name} {view.dtype} {view.shape}".encode())
        for rows in view.chunks():
            digest.update(np.ascontiguousarray(view[rows]).data)
    return digest.hexdigest()


def replace(path: Path, content: bytes) -> None:
    """Whole or not at all: a crash leaves the old file."""
    temporary = path.with_name(f".writing-{path.name}")  # one that a killed write left is written over
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
