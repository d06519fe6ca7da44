"""The command line: one command a stage. Errors become one line and an exit code; the stages know nothing of it.

Exit codes: 0 all done; 1 some clips failed, the rest is done and saved; 2 the command could not run; 130 stopped by
the user.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config import Settings, load_settings
from pipeline.console import say
from pipeline.errors import PipelineError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw video clips in, clusters of emotion out, nothing labelled.",
)

Config = Annotated[Path | None, typer.Option("--config", help="YAML file with the settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, dotted.key=value; may be repeated.")]
Clips = Annotated[Path | None, typer.Option("--clips", help="Folder with the raw clips (corpus.root).")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="A modality: visual, text or audio; may be repeated.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Also the clips that failed before.")]
ViewsDir = Annotated[Path | None, typer.Option("--views", help="Cached features in place of the workdir's.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="Labels to score with: CSV (clip_id,label) or .npy.")]
Clusters = Annotated[str | None, typer.Option("--clusters", help="K, the number of clusters, or auto.")]
Objective = Annotated[str | None, typer.Option("--objective", help="What TIB optimises: tib or reference.")]
RunDir = Annotated[Path, typer.Option("--run", help="Results folder of a finished run.")]
Predictions = Annotated[Path | None, typer.Option("--out", help="CSV to write; default predictions.csv.")]
Workdir = Annotated[
    Path | None, typer.Option("--workdir", help="For the new clips; default <run>/predict/<their folder>.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="The same seed gives the same clusters.")]


STOPPED = 130  # 128 + SIGINT, as shells say it


def main() -> None:
    """Runs the command line; every expected error is one line on stderr."""
    # PyTorch's threads spin while they wait for each other. On a machine that has other work to do that made training
    # 3-9 times slower than letting them sleep (docs/performance.md). Read when PyTorch loads, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except PipelineError as error:
        _stop(f"error: {error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except OSError as error:  # a full disk, a file in the way of a folder: the message names the path
        _stop(f"error: {error}", 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's usage errors say what is wrong
            raise
        _stop(f"error: {error.format_message() or 'no stage was given'}", 2)
    if code == STOPPED:  # typer turns Ctrl-C into this code
        _stop("stopped; what is finished is saved, and the same command goes on from there", STOPPED)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _exit(n_failed: int) -> None:
    if n_failed:
        raise typer.Exit(1)


@app.command()
def prepare(config: Config = None, set_: Set = None, clips: Clips = None) -> None:
    """Corpus -> manifest.jsonl and labels.csv; reports what does not match."""
    _exit(_prepare(_on_clips(config, set_, clips)))


@app.command()
def extract(
    config: Config = None,
    set_: Set = None,
    clips: Clips = None,
    only: Only = None,
    retry_failed: Retry = False,
) -> None:
    """Raw clips -> embeddings, resumable; prepares the corpus first."""
    settings = _on_clips(config, set_, clips)
    _exit(_prepare_if_told(settings) + _extract(settings, only, retry_failed))


@app.command()
def reduce(config: Config = None, set_: Set = None) -> None:
    """Embeddings -> views of few dims, with the fitted reduction saved."""
    _reduce(load_settings(config, set_ or ()))


@app.command()
def train(
    config: Config = None,
    set_: Set = None,
    views: ViewsDir = None,
    labels: Labels = None,
    clusters: Clusters = None,
    objective: Objective = None,
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Views -> clusters, written to the results folder and scored where there are labels."""
    settings = load_settings(
        config,
        set_ or (),
        views=views,
        labels=labels,
        out=out,
        name=views.name if views and not config else None,
        train__n_clusters=_as_number(clusters),
        train__objective=objective,
        train__seed=seed,
    )
    _train(settings)


@app.command()
def evaluate(
    config: Config = None, set_: Set = None, views: ViewsDir = None, labels: Labels = None, out: Out = None
) -> None:
    """Scores a finished run against labels and baselines; --out alone takes the settings the run was made with."""
    _evaluate(load_settings(_config_of(config, out), set_ or (), views=views, labels=labels, out=out))


@app.command()
def report(config: Config = None, set_: Set = None, views: ViewsDir = None, out: Out = None) -> None:
    """One self-contained HTML page of a finished run."""
    _report(load_settings(_config_of(config, out), set_ or (), views=views, out=out))


@app.command()
def predict(
    run: RunDir,
    clips: Clips = None,
    views: ViewsDir = None,
    out: Predictions = None,
    workdir: Workdir = None,
    set_: Set = None,
    retry_failed: Retry = False,
) -> None:
    """Clusters for new clips from a finished run: raw clips (--clips) or features made as the run's (--views)."""
    if (clips is None) == (views is None):
        raise PipelineError("give the new clips as --clips DIR (raw) or as --views DIR (features), one of the two")
    if views and (set_ or workdir or retry_failed):
        raise PipelineError(
            "--set, --workdir and --retry-failed are for raw clips (--clips): features are taken as they are"
        )
    from pipeline.predict import predict_clips, predict_views

    if views:
        _exit(predict_views(run, views, out=out))
    elif clips:
        _exit(predict_clips(run, clips, out=out, workdir=workdir, overrides=set_ or (), retry_failed=retry_failed))


@app.command()
def run(
    config: Config = None,
    set_: Set = None,
    clips: Clips = None,
    out: Out = None,
    retry_failed: Retry = False,
) -> None:
    """All stages, raw clips to scored clusters; each skips what is done."""
    settings = _on_clips(config, set_, clips, out=out)
    n_failed = _prepare_if_told(settings) + _extract(settings, None, retry_failed)
    _reduce(settings)
    _train(settings)
    _exit(n_failed)


def _as_number(clusters: str | None) -> int | str | None:
    return int(clusters) if clusters is not None and clusters.isdecimal() else clusters


def _config_of(config: Path | None, out: Path | None) -> Path | None:
    """The config that was given, else the one a finished run was made with."""
    resolved = out / "config.yaml" if out else None
    return config or (resolved if resolved and resolved.exists() else None)


def _on_clips(config: Path | None, set_: list[str] | None, clips: Path | None, **shortcuts: Any) -> Settings:
    """Settings of a command that takes raw clips: a person's folder is never given to the generator of the demo's."""
    settings = load_settings(config, set_ or (), corpus__root=clips, **shortcuts)
    if clips and settings.corpus.kind == "synthetic":
        raise PipelineError(
            f"{config} makes clips of its own and takes none; for the clips in {clips} give another config, "
            "e.g. configs/folder.yaml (CONFIG= with make)"
        )
    return settings


def _prepare(settings: Settings) -> int:
    from pipeline.prepare import prepare

    return prepare(settings)


def _prepare_if_told(settings: Settings) -> int:
    """Prepares where a corpus is given; a workdir that was prepared before can go on without its raw clips."""
    told = settings.corpus.root is not None or not (settings.work / "manifest.jsonl").exists()
    return _prepare(settings) if told else 0


def _extract(settings: Settings, only: list[str] | None, retry_failed: bool) -> int:
    from pipeline.extract import extract
    from pipeline.prepare import manifest_of

    manifest, root = manifest_of(settings)
    return extract(settings, manifest, root, only=only or (), retry_failed=retry_failed)


def _reduce(settings: Settings) -> None:
    from pipeline.reduce import reduce

    reduce(settings)


def _train(settings: Settings) -> None:
    from pipeline.evaluate import evaluate, is_evaluated, labels_of, show
    from pipeline.reduce import views_of

    views = views_of(settings)
    labels = labels_of(settings, views)
    from pipeline.cluster import train  # only now: it loads PyTorch, and a wrong folder should be told at once

    train(settings, views, labels)
    if not is_evaluated(settings, labels):
        evaluate(settings, views, labels)
        _report(settings)
    else:
        show(settings)


def _evaluate(settings: Settings) -> None:
    from pipeline.evaluate import evaluate, labels_of
    from pipeline.reduce import views_of

    views = views_of(settings)
    evaluate(settings, views, labels_of(settings, views))


def _report(settings: Settings) -> None:
    from pipeline.report import report

    say(f"report: wrote {report(settings)}")
