"""The commands, one a stage. The stages know nothing of the command line."""

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli import options as opt
from pipeline.cli import results, show, stages
from pipeline.cli.help import StageCommand, StageGroup
from pipeline.cli.session import DONE, SOME_FAILED, Result, Session, command_line
from pipeline.config import Settings, load_settings
from pipeline.console import say
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.doctor import Check
    from pipeline.readers import Readers

app = typer.Typer(
    cls=StageGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Raw video clips in, clusters of emotion out, nothing labelled.",
    epilog="STAGE --help lists its settings. Exit codes: 0 all done, 1 some clips failed and the rest is done, "
    "2 it could not run, 130 stopped by Ctrl-C.",
)

Work = Callable[..., Result]


def command(name: str = "") -> Callable[[Work], Work]:
    """Makes a function a command: its first argument is the session, and every command has -q, -v and --json."""

    def register(function: Work) -> Work:
        stage = name or function.__name__

        @functools.wraps(function)
        def framed(*args: Any, quiet: bool, verbose: bool, as_json: bool, **kwargs: Any) -> None:
            if quiet and verbose:
                raise PipelineError("--quiet and --verbose exclude each other; give one of them")
            session = Session(stage, quiet=quiet, verbose=verbose, as_json=as_json)
            raise typer.Exit(session.run(lambda session: function(session, *args, **kwargs)))

        keyword = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY, default=False)
        common = [
            keyword("quiet", annotation=opt.Quiet),
            keyword("verbose", annotation=opt.Verbose),
            keyword("as_json", annotation=opt.Json),
        ]
        _, *own = inspect.signature(function).parameters.values()
        framed.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
        app.command(stage, cls=StageCommand)(framed)
        return function

    return register


@command()
def prepare(session: Session, config: opt.Config = None, set_: opt.Set = None, clips: opt.Clips = None) -> Result:
    """Corpus -> manifest.jsonl and labels.csv; reports what does not match."""
    settings = session.use(_on_clips(config, set_, clips))
    n_lost = stages.prepare(session, settings)
    return Result(lambda: results.prepared(settings), results.prepared_lines, _code(n_lost))


@command()
def transcribe(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    clips: opt.Clips = None,
    model: opt.Model = None,
    all_: opt.EveryClip = False,
    retry_failed: opt.Retry = False,
) -> Result:
    """Words for clips that have none, by a speech recogniser; the corpus' own folder is left as it is."""
    settings = session.use(_on_clips(config, set_, clips, transcribe__model=model))
    n_lost = stages.prepare_if_told(session, settings)
    n_failed = stages.transcribe(session, settings, every_clip=all_, retry_failed=retry_failed)
    return Result(lambda: results.transcribed(settings, n_failed), results.transcribed_lines, _code(n_lost + n_failed))


@command("pretrain-audio")
def pretrain_audio(
    session: Session, config: opt.Config = None, set_: opt.Set = None, clips: opt.Clips = None
) -> Result:
    """Raw clips -> an audio encoder of their own, trained without labels; `extract` uses it (weights: self)."""
    settings = session.use(_on_clips(config, set_, clips))
    n_lost = stages.prepare_if_told(session, settings)
    weights = stages.pretrain_audio(session, settings)
    return Result(lambda: results.pretrained(weights), results.pretrained_lines, _code(n_lost))


@command()
def extract(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    clips: opt.Clips = None,
    only: opt.Only = None,
    retry_failed: opt.Retry = False,
    max_failures: opt.MaxFailures = None,
) -> Result:
    """Raw clips -> embeddings, resumable; prepares the corpus first, and trains its audio encoder where it has none."""
    settings = session.use(_on_clips(config, set_, clips))
    n_lost = stages.prepare_if_told(session, settings)
    stages.pretrain_audio_if_wanted(session, settings, only)
    n_failed = n_lost + stages.extract(session, settings, only, retry_failed, max_failures)
    return Result(lambda: results.extracted(settings), results.extracted_lines, _code(n_failed))


@command()
def compact(session: Session, config: opt.Config = None, set_: opt.Set = None) -> Result:
    """Many small parts of the embeddings into few large ones; of a clip embedded twice the newest stays."""
    done = stages.compact(session, session.use(load_settings(config, set_ or ())))
    show.compact(done)
    return Result(lambda: {modality: asdict(one) for modality, one in done.items()}, show.compact_lines)


@command()
def reduce(session: Session, config: opt.Config = None, set_: opt.Set = None) -> Result:
    """Embeddings -> views of few dims, with the fitted reduction saved."""
    settings = session.use(load_settings(config, set_ or ()))
    stages.reduce(session, settings)
    return Result(lambda: results.reduced(settings), results.reduced_lines)


@command()
def train(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    views: opt.ViewsDir = None,
    labels: opt.Labels = None,
    clusters: opt.Clusters = None,
    objective: opt.Objective = None,
    seed: opt.Seed = None,
    out: opt.Out = None,
) -> Result:
    """Views -> clusters, written to the results folder and scored where there are labels."""
    shortcuts = {
        **{"labels": labels, "out": out, "train__objective": objective, "train__seed": seed},
        "train__n_clusters": int(clusters) if clusters is not None and clusters.isdecimal() else clusters,
    }
    settings = session.use(_on_views(config, set_, views, **shortcuts))
    stages.train(session, settings)
    return Result(lambda: results.scored(settings), results.scored_lines)


@command()
def evaluate(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    views: opt.ViewsDir = None,
    labels: opt.Labels = None,
    out: opt.Out = None,
) -> Result:
    """Scores a finished run against labels and baselines; --out alone takes the settings the run was made with."""
    settings = session.use(_on_views(_config_of_run(config, out), set_, views, labels=labels, out=out))
    stages.evaluate(session, settings)
    return Result(lambda: results.scored(settings), results.scored_lines)


@command()
def report(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    views: opt.ViewsDir = None,
    out: opt.Out = None,
    embed_media: opt.Embed = False,
) -> Result:
    """One self-contained HTML page of a finished run."""
    settings = session.use(_on_views(_config_of_run(config, out), set_, views, out=out))
    page = stages.report(session, settings, embed_media=embed_media)
    return Result(lambda: {"report": page}, lambda values: [f"report: {page}"])


@command()
def predict(
    session: Session,
    run: opt.RunDir,
    clips: opt.Clips = None,
    views: opt.ViewsDir = None,
    out: opt.Predictions = None,
    workdir: opt.Workdir = None,
    set_: opt.Set = None,
    retry_failed: opt.Retry = False,
) -> Result:
    """Clusters for new clips from a finished run: raw clips (--clips) or features made as the run's (--views)."""
    if (clips is None) == (views is None):
        raise PipelineError("give the new clips as --clips DIR (raw) or as --views DIR (features), one of the two")
    if views and (set_ or workdir or retry_failed):
        raise PipelineError(
            "--set, --workdir and --retry-failed are for raw clips (--clips): features are taken as they are"
        )
    from pipeline.predict import PREDICTIONS, predict_clips, predict_views, workdir_of

    if views:
        session.log_in(run)
        path = out or run / PREDICTIONS
        n_failed = predict_views(run, views, out=path)
    elif clips:
        work = workdir or workdir_of(run, clips)
        session.log_in(work)
        session.hold(work)
        path = out or work / PREDICTIONS
        n_failed = predict_clips(run, clips, out=path, workdir=work, overrides=set_ or (), retry_failed=retry_failed)
    return Result(lambda: results.predicted(run, path, n_failed), results.predicted_lines, _code(n_failed))


@command()
def run(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    clips: opt.Clips = None,
    out: opt.Out = None,
    retry_failed: opt.Retry = False,
    max_failures: opt.MaxFailures = None,
) -> Result:
    """All stages, raw clips to scored clusters; each skips what is done."""
    settings = session.use(_on_clips(config, set_, clips, out=out))
    n_lost = stages.prepare_if_told(session, settings)
    stages.pretrain_audio_if_wanted(session, settings, None)
    n_failed = n_lost + stages.extract(session, settings, None, retry_failed, max_failures)
    stages.reduce(session, settings)
    stages.train(session, settings)

    def values() -> dict[str, Any]:
        return {
            "prepare": results.prepared(settings),
            "extract": results.extracted(settings),
            "reduce": results.reduced(settings),
            "train": results.scored(settings),
        }

    def lines(values: Any) -> list[str]:
        return [
            *results.prepared_lines(values["prepare"]),
            *results.extracted_lines(values["extract"]),
            *results.reduced_lines(values["reduce"]),
            *results.scored_lines(values["train"]),
        ]

    return Result(values, lines, _code(n_failed))


@command()
def rerun(session: Session, run: opt.FinishedRun, out: opt.RerunDir = None, clips: opt.Clips = None) -> Result:
    """Makes a finished run again and compares. 0: the same assignments, 1: others, with what differed, 2: cannot."""
    from pipeline.rerun import read_original, rerun, rerun_folder

    original = read_original(run)
    folder = rerun_folder(original, out)
    session.log_in(folder)
    session.hold(folder)
    found = rerun(original, folder, clips=clips)
    show.rerun(found, folder)
    return Result(lambda: {"results": folder, **asdict(found)}, show.rerun_lines, DONE if found.identical else 1)


@command()
def status(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    clips: opt.Clips = None,
    views: opt.ViewsDir = None,
    out: opt.Out = None,
) -> Result:
    """What each stage has done, and what it would do now; changes nothing."""
    settings = _on_views(_config_of(config, out), set_, views, corpus__root=clips, out=out)
    from pipeline.status import status

    found = status(settings)
    given = {"corpus.root": clips, "out": out}
    words = [*(set_ or ()), *(f"{name}={path}" for name, path in given.items() if path)]
    on_views = ["--views", str(views)] if views else []  # then what is next is a stage that takes it
    show.status(found, lambda stage: command_line(stage, *_options(config, words), *on_views))
    return Result(found.values, show.status_lines)


@command()
def doctor(
    session: Session,
    config: opt.Config = None,
    set_: opt.Set = None,
    clips: opt.Clips = None,
    views: opt.ViewsDir = None,
    out: opt.Out = None,
    csv: opt.Findings = None,
) -> Result:
    """Whether this machine can run the stages, and what in the clips will fail or mislead; for each, what to do.

    1: look at it, 2: a stage cannot run.
    """
    settings = _on_views(_config_of(config, out), set_, views, corpus__root=clips, out=out)
    root = settings.corpus.root if not settings.views else None
    if csv and root is None:
        raise PipelineError("--csv is for what is found in the clips: give their folder (CLIPS=DIR, or --clips DIR)")
    from pipeline.doctor import PROBLEM, Check, doctor
    from pipeline.preflight import header_readers

    say("doctor: one thing after the other; loading PyTorch and the encoders takes its time")
    checks: list[Check] = []
    values: dict[str, Any] = {}
    with header_readers(settings.extract) as readers:
        looks = False
        for check in doctor(settings):
            show.check(check)
            checks.append(check)
            if check.name == "libraries" and root is not None and root.is_dir():
                looks = all(one.state != PROBLEM for one in checks)  # else nothing could read a clip
                if looks:
                    readers.start()  # beside the loading of the encoders
        if looks:
            in_clips, values = _look_at_clips(settings, readers, csv)
            checks += in_clips
        elif root is not None and root.is_dir():
            say("doctor: the clips are looked at once what reads them is there")
    code, verdict = show.verdict(checks)

    def whole() -> dict[str, Any]:
        return {"checks": [asdict(check) for check in checks], **values, "verdict": verdict}

    return Result(whole, show.doctor_lines, code)


def _look_at_clips(settings: Settings, readers: "Readers", csv: Path | None) -> tuple[list["Check"], dict[str, Any]]:
    """Shows what is found in the clips, and writes it where that is asked for.

    Returns:
        it as checks, and as values for --json.
    """
    from pipeline.doctor import PROBLEM, Check
    from pipeline.preflight import preflight, write_findings

    try:
        found = preflight(settings, readers)
    except PipelineError as error:  # what `prepare` would end with
        check = Check("corpus", PROBLEM, str(error), "see docs/data-layouts.md")
        show.check(check)
        return [check], {}
    show.preflight(found)
    if csv:
        write_findings(csv, found.findings)
        say(f"doctor: all of them: {csv}")
    return list(found.checks()), {"corpus": found.values(), "csv": csv}


@command()
def export(
    session: Session,
    format_: opt.ExportFormat,
    out: opt.ExportDir,
    config: opt.Config = None,
    set_: opt.Set = None,
    views: opt.ViewsDir = None,
    run: opt.MaybeRunDir = None,
    reduced: opt.Reduced = False,
) -> Result:
    """Features, labels and clusters for other programs."""
    settings = session.use(_on_views(_config_of_run(config, run), set_, views, out=run))
    from pipeline.export import export

    record = export(settings, format_, out, reduced=reduced)
    return Result(lambda: {"out": out, **record}, lambda values: [f"export: {record['clips']} clips: {out}"])


@command("import")
def import_(session: Session, source: opt.Source, out: opt.ImportDir, format_: opt.ImportFormat = None) -> Result:
    """Features from elsewhere, as a folder that `train --views DIR` reads."""
    from pipeline.ingest import ingest

    record = ingest(source, format_, out)
    if len(record["views"]) > 1:
        say(f"import: next: {command_line('train', '--views', str(out), '--clusters', 'K')}")
    else:
        say("import: that is one view, and `train` needs at least 2: import the other modality beside it")
    return Result(lambda: {"out": out, **record}, lambda values: [f"import: {record['clips']} clips: {out}"])


def _options(config: Path | None, overrides: list[str]) -> list[str]:
    """As every stage takes them."""
    return [*(["--config", str(config)] if config else []), *(word for o in overrides for word in ("--set", o))]


def _code(n_failed: int) -> int:
    return SOME_FAILED if n_failed else DONE


def _config_of(config: Path | None, out: Path | None) -> Path | None:
    """The config that was given, else the one a finished run was made with."""
    resolved = out / "config.yaml" if out else None
    return config or (resolved if resolved and resolved.exists() else None)


def _config_of_run(config: Path | None, out: Path | None) -> Path | None:
    """As `_config_of`, for a command that is lost without the run."""
    if out and not (out / "run.json").is_file():
        raise PipelineError(
            f"no finished run in {out}, which holds no run.json; run `train` first, or give another folder"
        )
    return _config_of(config, out)


def _on_views(config: Path | None, set_: list[str] | None, views: Path | None, **shortcuts: Any) -> Settings:
    """Settings of a command that may be given cached features: without a config they are named after their folder."""
    named = [f"name={json.dumps(views.resolve().name)}"] if views and not config else []
    return load_settings(config, [*named, *(set_ or ())], views=views, **shortcuts)


def _on_clips(config: Path | None, set_: list[str] | None, clips: Path | None, **shortcuts: Any) -> Settings:
    """Settings of a command that takes raw clips: a person's folder is never given to the generator of the demo's."""
    settings = load_settings(config, set_ or (), corpus__root=clips, **shortcuts)
    if clips and settings.corpus.kind == "synthetic":
        raise PipelineError(
            f"{config} makes clips of its own and takes none; for the clips in {clips} give another config, "
            "e.g. configs/folder.yaml (CONFIG= with make)"
        )
    return settings
