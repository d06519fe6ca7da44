"""The way in: features that other programs made, as a folder that `--views DIR` reads.

<out>/
    text.npy visual.npy audio.npy ...   (N, D) float32, a row of NaN where a clip lacks it
    clip_ids.json                       the N ids, in order
    labels.csv transcripts.csv splits.csv   where the source has them
    import.json                         where it came from, and what was guessed, changed or left out
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.columns import write_column
from pipeline.console import say
from pipeline.corpora.base import unknown_name
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.folders import accounts_of, whole_folder
from pipeline.ingest.arrays import read_npy, read_npz
from pipeline.ingest.content import Features, tidied
from pipeline.ingest.csd import read_csd
from pipeline.ingest.mmsa import read_mmsa
from pipeline.ingest.tables import read_csv, read_hf, read_parquet
from pipeline.manifest import write_labels
from pipeline.provenance import git_sha, versions
from pipeline.view_files import CLIP_IDS

RECORD = "import.json"
FORMATS: dict[str, Callable[[Path], Features]] = {
    "npy": read_npy,
    "npz": read_npz,
    "csv": read_csv,
    "parquet": read_parquet,
    "mmsa": read_mmsa,
    "hf": read_hf,
    "csd": read_csd,
}
_SUFFIXES = {
    "npy": (".npy",),
    "npz": (".npz",),
    "csd": (".csd", ".h5", ".hdf5"),
    "mmsa": (".pkl", ".pickle"),
    "parquet": (".parquet",),
    "csv": (".csv",),
}
_FIRST_BYTES = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PAR1": "parquet", b"\x89HDF": "csd", b"\x80": "mmsa"}
_ONE_FILE = ("npz", "mmsa")  # formats of which a folder may hold no more than one file


def ingest(source: Path, format_: str | None, out: Path) -> dict[str, Any]:
    """Makes a folder that `--views DIR` reads of features from elsewhere, whole or not at all.

    Args:
        source: a file, or a folder with such files.
        format_: one of FORMATS; None is told by the files' names and first bytes.
        out: a new or an empty folder, or an earlier import, which is replaced.
    Returns:
        what import.json holds.
    Raises:
        PipelineError: no such source or format, something in it that cannot be taken, or a folder of something else.
    """
    if format_ is not None and format_ not in FORMATS:
        raise PipelineError(f"--format: {unknown_name('format', format_, FORMATS)}")
    if not source.exists():
        raise PipelineError(f"{source}: no such file or folder; give the features to import")
    format_ = format_ or guess_format(source)
    with whole_folder(out, RECORD) as (folder, record):
        try:
            features = tidied(FORMATS[format_](_file_of(source, format_)), str(source))
        except MemoryError:
            raise PipelineError(
                f"{source} does not fit in memory; import it in parts, or on a larger machine"
            ) from None
        _write(features, folder)
        record |= _record(features, source, format_)
    _tell(record, out)
    return record


def guess_format(source: Path) -> str:
    """The format that a file, or the files in a folder, look like.

    Raises:
        PipelineError: none of them, or a folder of several.
    """
    if source.is_file():
        known = (format_ for format_, suffixes in _SUFFIXES.items() if source.suffix.lower() in suffixes)
        with source.open("rb") as file:
            begin = file.read(8)
        by_content = (format_ for first, format_ in _FIRST_BYTES.items() if begin.startswith(first))
        found = next(by_content, None) or next(known, None)
        if found is None:
            raise PipelineError(f"{source}: not known by its name or content; give --format {' | '.join(FORMATS)}")
        return found
    card = source / "README.md"
    if any(source.rglob("*.arrow")) or any(source.glob("data/*.parquet" if not card.exists() else "**/*.parquet")):
        return "hf"
    there = [format_ for format_ in _SUFFIXES if _files(source, format_)]
    if len(there) > 1 and "csv" in there:  # beside others, a CSV tells of the clips
        there.remove("csv")
    if len(there) != 1:
        told = f"holds files of {', '.join(there)}" if there else "holds no file of features"
        raise PipelineError(f"{source} {told}; give one file, or --format {' | '.join(FORMATS)}")
    return there[0]


def _files(folder: Path, format_: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES.get(format_, ()))


def _file_of(source: Path, format_: str) -> Path:
    """The one file that a folder holds, of formats that are one file; else the source itself."""
    if source.is_file() or format_ not in _ONE_FILE:
        if source.is_file() and format_ == "hf":
            raise PipelineError(f"{source} is a file; of a Hugging Face dataset give the folder, or --format parquet")
        return source
    files = _files(source, format_)
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise PipelineError(f"{source}: expected one {_SUFFIXES[format_][0]} file, found {names}; name the file itself")
    return files[0]


def _write(features: Features, folder: Path) -> None:
    for name, array in features.arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        write_atomic(folder / f"{name}.npy", buffer.getvalue())
    write_atomic(folder / CLIP_IDS, json.dumps(features.clip_ids, ensure_ascii=False))
    if features.labels:
        write_labels(folder / "labels.csv", features.labels)
    write_column(folder, "transcript", features.transcripts)
    write_column(folder, "split", features.splits)


def _record(features: Features, source: Path, format_: str) -> dict[str, Any]:
    return {
        "format": format_,
        "source": source.name,
        "clips": len(features.clip_ids),
        **accounts_of(features.arrays),
        "labels": len(features.labels),
        "transcripts": len(features.transcripts),
        "splits": len(features.splits),
        "notes": features.notes,
        "git_sha": git_sha(),
        "versions": versions(("numpy", "pyarrow")),
    }


def _tell(record: dict[str, Any], out: Path) -> None:
    for note in record["notes"]:
        say(f"import: {note}")
    for name, count in record["missing"].items():
        if count:
            say(f"import: {count} clips have no {name}")
    dims = ", ".join(f"{name} {shape[1]}-d" for name, shape in record["views"].items())
    known = [f"{record[what]} {what}" for what in ("labels", "transcripts", "splits") if record[what]]
    say(f"import: wrote {out}: {record['clips']} clips, {dims}{', with ' + ', '.join(known) if known else ''}")
