"""A fitted estimator on disk: arrays in model.safetensors, everything else in model.json, in one folder."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tib.checkpoint import replace

ARRAYS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = "tib-model"
FORMAT_VERSION = 3


def write_model(folder: Path, arrays: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write both files whole; the description, which holds the arrays' checksum, last.

    Args:
        folder: made where it is not there.
        arrays: any device.
        description: what JSON can hold.
    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as inner:
        packed = Path(inner) / ARRAYS
        packed.touch()
        mode = packed.stat().st_mode  # as whoever runs this gives files: the library makes its own private
        try:
            save_file({name: array.detach().cpu().contiguous() for name, array in arrays.items()}, packed)
        except SafetensorError as error:
            raise OSError(f"cannot write {folder / ARRAYS}: {error}; free some space") from None
        packed.chmod(mode)
        checksum = _sha256(packed)
        packed.replace(folder / ARRAYS)
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "arrays_sha256": checksum}
    replace(folder / DESCRIPTION, (json.dumps({**head, **description}, indent=1) + "\n").encode())


def read_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays (on the CPU, mapped from the file) and description, as `write_model` took them.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: not a model, another format version, or two files that do not belong together.
    """
    for name in (ARRAYS, DESCRIPTION):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no saved TIB model in {folder}: {name} is not there; give the folder of save()")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / DESCRIPTION} is not JSON ({error}); save the model again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{folder / DESCRIPTION} does not describe a TIB model; give the folder of save()")
    if description["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{folder} holds format version {description['format_version']!r}, this code reads {FORMAT_VERSION}; "
            "load it with the version of the code that saved it, or fit and save again"
        )
    if _sha256(folder / ARRAYS) != description["arrays_sha256"]:
        raise ValueError(f"{folder / ARRAYS} is not the file that {DESCRIPTION} was written with; save the model again")
    return load_file(folder / ARRAYS), description


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
