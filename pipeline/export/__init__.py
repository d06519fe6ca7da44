"""The way out: a workdir's or a folder's features for other programs, with labels, words and clusters beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.console import say
from pipeline.corpora.base import unknown_name
from pipeline.errors import PipelineError
from pipeline.export.arrays import write_npy, write_npz
from pipeline.export.content import Content, gather
from pipeline.export.mmsa import write_mmsa
from pipeline.export.tables import write_csv, write_hf, write_parquet
from pipeline.folders import accounts_of, whole_folder
from pipeline.provenance import git_sha, versions
from pipeline.reduce import untrained

RECORD = "export.json"
FORMATS: dict[str, Callable[[Content, Path], dict[str, Any]]] = {
    "npy": write_npy,
    "npz": write_npz,
    "csv": write_csv,
    "parquet": write_parquet,
    "mmsa": write_mmsa,
    "hf": write_hf,
}
# Of the settings what says where things lie on this machine: no business of whoever gets the export.
_WHEREABOUTS: Any = {"workdir": True, "out": True, "views": True, "labels": True, "corpus": {"root"}}


def export(settings: Settings, format_: str, out: Path, *, reduced: bool = False) -> dict[str, Any]:
    """Writes the features in a format of other programs, whole or not at all, and export.json with their recipe.

    Args:
        settings: of the workdir whose features they are, or with `views` of a folder of cached ones. Where its results
            folder holds a run on them, each clip's cluster and confidence go along.
        format_: one of FORMATS; what each writes stands at its function.
        out: a new or an empty folder, or an earlier export, which is replaced.
        reduced: the views of few dims in place of the features.
    Returns:
        what export.json holds.
    Raises:
        PipelineError: an unknown format, nothing to export, or a folder that holds something else.
    """
    if format_ not in FORMATS:
        raise PipelineError(f"--format: {unknown_name('format', format_, FORMATS)}")
    with whole_folder(out, RECORD) as (folder, record):
        content = gather(settings, reduced=reduced, sequences=format_ == "mmsa")
        record |= _record(content, format_)
        record |= FORMATS[format_](content, folder)
    _tell(record, out)
    return record


def _record(content: Content, format_: str) -> dict[str, Any]:
    views = content.views
    return {
        "format": format_,
        "reduced": content.reduced,
        "clips": len(views.clip_ids),
        **accounts_of(views.arrays),
        "labels": len(content.labels),
        "transcripts": len(content.transcripts),
        "assignments": len(content.assignments),
        "settings": content.settings.model_dump(mode="json", exclude=_WHEREABOUTS),
        "encoders": content.encoders,
        "untrained_encoders": untrained(content.encoders),
        "git_sha": git_sha(),
        "versions": versions(("numpy", "pyarrow")),
    }


def _tell(record: dict[str, Any], out: Path) -> None:
    dims = ", ".join(f"{name} {shape[1]}-d" for name, shape in record["views"].items())
    known = [f"{record[what]} {what}" for what in ("labels", "transcripts", "assignments") if record[what]]
    say(f"export: wrote {out}: {record['clips']} clips, {dims}{', with ' + ', '.join(known) if known else ''}")
    for name, count in record["missing"].items():
        if count and record["format"] != "mmsa":  # which has told what it writes for those
            sign = "NaN" if record["format"] in ("npy", "npz") else "empty"
            say(f"export: {count} clips have no {name}: {sign} there")
    for name in record["untrained_encoders"]:
        say(f"export: {name}: its encoder has RANDOM weights (untrained)")
