"""The options of the commands, each described once, and what a shell completes them with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.settings_help import all_settings
from pipeline.config import MODALITIES

FORMATS = ("npy", "npz", "csv", "parquet", "mmsa", "hf")
IMPORT_FORMATS = (*FORMATS, "csd")


def _settings(incomplete: str) -> Iterator[tuple[str, str]]:
    """The settings that a word may become; once there is one alone, what it may be set to, too."""
    key, equals, _ = incomplete.partition("=")
    fitting = [one for one in all_settings() if (one.key == key if equals else one.key.startswith(key))]
    for setting in fitting:
        told = f"{setting.description} [{setting.default}]"
        yield f"{setting.key}=", told
        for value in setting.words if len(fitting) == 1 else ():
            yield f"{setting.key}={value}", told


def _configs(incomplete: str) -> Iterator[str]:
    """YAML files where the word so far points, and in the folders there."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    for path in sorted(folder.glob("*")):
        if path.is_dir() and not path.name.startswith("."):
            yield f"{path}/"
            yield from map(str, sorted(path.glob("*.y*ml")))
        elif path.suffix in (".yaml", ".yml"):
            yield str(path)


Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML file with the settings.", autocompletion=_configs),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting; may be repeated.", autocompletion=_settings),
]
Clips = Annotated[Path | None, typer.Option("--clips", metavar="DIR", help="Folder with the raw clips (corpus.root).")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for the results.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="MODALITY",
        help="visual, text or audio alone; may be repeated.",
        autocompletion=lambda incomplete: list(MODALITIES),
    ),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Also the clips that failed before.")]
MaxFailures = Annotated[
    int | None,
    typer.Option("--max-failures", metavar="N", min=0, help="Stop extracting when more than N clips have failed."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Speech recogniser: Hugging Face id or folder (transcribe.model)."),
]
EveryClip = Annotated[bool, typer.Option("--all", help="Also clips that have words, which stay the corpus' own.")]
ViewsDir = Annotated[
    Path | None, typer.Option("--views", metavar="DIR", help="Cached features in place of the workdir's.")
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Labels to score with: CSV (clip_id,label) or .npy."),
]
Clusters = Annotated[
    str | None,
    typer.Option(
        "--clusters",
        metavar="K",
        help="How many clusters, or auto.",
        autocompletion=lambda incomplete: ["auto"],
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="What TIB optimises: tib or reference.",
        autocompletion=lambda incomplete: ["tib", "reference"],
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="The same seed gives the same clusters.")]
Embed = Annotated[bool, typer.Option("--embed-media", help="Put the clips' media into the page: larger, but whole.")]
RunDir = Annotated[Path, typer.Option("--run", metavar="RESULTS", help="Results folder of a finished run.")]
MaybeRunDir = Annotated[
    Path | None, typer.Option("--run", metavar="RESULTS", help="Results folder of a finished run, with its settings.")
]
FinishedRun = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Results folder of a finished run.")]
RerunDir = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="For the rerun; default <RUN_DIR>.rerun.")]
Predictions = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="CSV to write; default predictions.csv.")
]
Workdir = Annotated[
    Path | None,
    typer.Option("--workdir", metavar="DIR", help="For the new clips; default <run>/predict/<their folder>."),
]
ExportFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"One of {', '.join(FORMATS)}.",
        autocompletion=lambda incomplete: list(FORMATS),
    ),
]
ExportDir = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")]
Reduced = Annotated[bool, typer.Option("--reduced", help="The reduced views, not the encoders' embeddings.")]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder with the features.")]
ImportFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"One of {', '.join(IMPORT_FORMATS)}; default what the file's name says.",
        autocompletion=lambda incomplete: list(IMPORT_FORMATS),
    ),
]
ImportDir = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the features; train --views DIR.")]
Findings = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="CSV to write with all that is found in the clips.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also each clip, timings and tracebacks.")]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout, all else on stderr.")]
