"""Command rerun: a finished run made again from what its own folder says, and compared with what it was.

<run>.rerun/
    rerun.json      of which run, and how the two compare; there from the beginning, so that the folder is known as one
    work/           a workdir of its own: the run's embeddings linked, or made anew from raw clips; reduced views
    ...             the results, as `train` leaves them
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.assignments import ASSIGNMENTS, Assignments, read_assignments
from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.evaluate import evaluate, labels_of
from pipeline.extract import extract
from pipeline.files import TEMPORARY_PREFIX, check_writable, link_or_copy, write_atomic
from pipeline.manifest import manifest_in
from pipeline.metrics import clustering_scores
from pipeline.predict import kept_encoders
from pipeline.prepare import prepare
from pipeline.records import read_record
from pipeline.reduce import reduce, views_of
from pipeline.storage import is_local, listed
from pipeline.store import EmbeddingStore
from pipeline.transcripts import TRANSCRIPTS
from pipeline.views import Views

MAX_THREADS = 1024  # beyond it a record is not believed
RECORD, WORK = "rerun.json", "work"
SCORES = ("acc", "nmi", "ari")
# Of run.json what may explain that two runs differ -> what it is called before its name.
_EXPLAINS = {
    **{"settings": "setting", "encoders": "encoder", "made_with": "computed with", "packages": "package"},
    **{"git_sha": "commit", "python": "Python", "platform": "platform", "processor": "processor", "cores": "cores"},
}
# Where things lie. The checksum of weights tells which they are.
_WHEREABOUTS = {
    *("settings.name", "settings.out", "settings.workdir", "settings.views", "settings.labels", "settings.corpus.root"),
    *("settings.extract.audio.weights", "settings.extract.visual.quantised"),
}
_OF_A_CORPUS = ("manifest.jsonl", "corpus.json", "labels.csv", "problems.csv", TRANSCRIPTS)
_GROUPS = ("settings", "encoders", "made_with")  # objects in run.json
_SHOWN = 60  # characters of a value


@dataclass(frozen=True, slots=True)
class Original:
    """What a finished run's folder says of it.

    Attributes:
        record: run.json.
        scores: acc, nmi and ari, {} where it had no labels.
    """

    folder: Path
    record: Mapping[str, Any]
    assignments: Assignments
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that was recorded of both runs and is not the same: "package torch", "setting train.seed"."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run and its rerun.

    Attributes:
        identical: the same clips in clusters of the same numbers.
        clips: (then, now).
        only_then, only_now: ids of clips that one of the two alone clustered.
        same_views: every value that was clustered is the same.
        same_encoders: modality -> whether its embeddings have one recipe, and so one fingerprint.
        share: of the clips of both, those in one cluster when clusters are matched at best, 0..1; None without any.
        ari: of the two groupings of these clips, -1..1.
        scores: acc, nmi and ari: (then, now), None where there are no labels.
        different: what may explain it, in words.
    """

    of: str
    identical: bool
    clips: tuple[int, int]
    only_then: list[str]
    only_now: list[str]
    same_views: bool
    same_encoders: dict[str, bool]
    share: float | None
    ari: float | None
    scores: dict[str, tuple[float | None, float | None]]
    different: list[Difference]


def read_original(folder: Path) -> Original:
    """Reads the run that is to be made again.

    Raises:
        PipelineError: no finished run there, or a file of it that cannot be read.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise PipelineError(f"no finished run in {folder}, which holds no run.json; give the results folder of one")
    record = _read(path)
    if not {"inputs", "views_digest"} <= record.keys() or any(type(record.get(k, {})) is not dict for k in _GROUPS):
        raise PipelineError(f"{path} is not the record of a run; give the results folder of one, or run `train` again")
    if not (folder / "config.yaml").is_file() and "settings" not in record:
        raise PipelineError(f"{folder} has lost its config.yaml, so nothing says how it was made; run `train` again")
    return Original(folder, record, read_assignments(folder / ASSIGNMENTS), _scores(folder))


def rerun_folder(original: Original, out: Path | None) -> Path:
    """The folder for the rerun, made where it is not there.

    Args:
        out: where it is to be; None is <run>.rerun beside the run.
    Raises:
        PipelineError: it holds something that is no rerun, or cannot be written.
    """
    run = original.folder.resolve()
    out = out or run.with_name(f"{run.name}.rerun")
    if out.resolve() == run:
        raise PipelineError(f"--out {out} is the run itself; give another folder for its rerun")
    if out.exists() and not (out.is_dir() and ((out / RECORD).is_file() or not any(out.iterdir()))):
        raise PipelineError(f"--out {out} holds something that is no rerun; give a new or an empty folder")
    check_writable(out)
    if not (out / RECORD).is_file():
        _write(out, {"of": str(run)})
    return out


def rerun(original: Original, out: Path, *, clips: Path | None = None) -> Comparison:
    """Makes a run again with its settings, threads included, and compares the two.

    The embeddings are those of the run's workdir, which is left as it is; what is not there of them is made. With raw
    clips given, everything is made anew.

    Args:
        out: as `rerun_folder` gives it.
        clips: the raw clips; None is the workdir's embeddings.
    Raises:
        PipelineError: neither embeddings nor clips are there, or a stage cannot run.
    """
    from pipeline.report.html import report  # only now: it loads PyTorch, and a wrong folder should be told at once

    settings = _settled(original, out, clips)
    (out / "run.json").unlink(missing_ok=True)  # an earlier rerun is made again too
    with _threads(original.record):
        if settings.views is None:
            reduce(settings)
        views = views_of(settings)
        labels = _labels(settings, views)
        train(settings, views, labels)
        evaluate(settings, views, labels)
    found = compare(original, read_original(out))
    _write(out, asdict(found))
    report(settings)
    return found


def compare(then: Original, now: Original) -> Comparison:
    """How two runs compare: their clips, what was clustered, the clusters, the scores, and what was different."""
    clusters_then, clusters_now, only_then, only_now = _paired(then.assignments, now.assignments)
    matched = clustering_scores(clusters_then, clusters_now) if len(clusters_then) else {}
    encoders, again = (run.record.get("encoders", {}) for run in (then, now))
    return Comparison(
        of=str(then.folder.resolve()),
        identical=not only_then and not only_now and bool(np.array_equal(clusters_then, clusters_now)),
        clips=(len(then.assignments), len(now.assignments)),
        only_then=only_then,
        only_now=only_now,
        same_views=then.record["views_digest"] == now.record["views_digest"],
        same_encoders={m: encoders.get(m) == again.get(m) for m in encoders | again},
        share=matched.get("acc"),
        ari=matched.get("ari"),
        scores={name: (then.scores.get(name), now.scores.get(name)) for name in SCORES},
        different=list(_different(then.record, now.record)),
    )


def _paired(then: Assignments, now: Assignments) -> tuple[NDArray[np.int32], NDArray[np.int32], list[str], list[str]]:
    """The clusters of the clips that both have, in one order, and the ids of those that one alone has."""
    if len(then) == len(now) and all(a == b for a, b in zip(then.clip_ids, now.clip_ids, strict=True)):
        return then.cluster, now.cluster, [], []
    rows = {clip_id: row for row, clip_id in enumerate(now.clip_ids)}
    both = [(row, rows[clip_id]) for row, clip_id in enumerate(then.clip_ids) if clip_id in rows]
    only_then = [clip_id for clip_id in then.clip_ids if clip_id not in rows]
    for clip_id in then.clip_ids:
        rows.pop(clip_id, None)
    at_then, at_now = np.array(both, dtype=np.int64).reshape(-1, 2).T
    return then.cluster[at_then], now.cluster[at_now], only_then, list(rows)


def _different(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """What both records tell and tell differently; a run of an older version tells less."""
    for key, called in _EXPLAINS.items():
        if key in then and key in now:
            for name, before, after in _unlike(then[key], now[key], key):
                inner = name.removeprefix(key).removeprefix(".")
                yield Difference(f"{called} {inner}".strip(), _shown(before), _shown(after))


def _unlike(then: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, then, now) of the innermost values that differ."""
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now) == 1:
        then, now = then[0], now[0]
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        # A setting that one of them does not name is of another version of this program, and at its default.
        keys = [key for key in {**then, **now} if not name.startswith("settings") or (key in then and key in now)]
        for key in keys:
            yield from _unlike(then.get(key), now.get(key), f"{name}.{key}")
    elif then != now and name not in _WHEREABOUTS:
        yield name, then, now


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _settled(original: Original, out: Path, clips: Path | None) -> Settings:
    """The run's settings turned to the rerun's folder, with all in place that `reduce` or `train` works on."""
    config, own = original.folder / "config.yaml", out / WORK
    if not config.is_file():
        config = out / "config.yaml"
        write_atomic(config, yaml.safe_dump(original.record["settings"], sort_keys=False, allow_unicode=True))
    before = load_settings(config)
    if before.views is not None:
        if clips:
            raise PipelineError(f"{original.folder} was trained on cached features, so there are no --clips to give")
        if not before.views.is_dir():
            raise PipelineError(f"the features that the run clustered are not there any more: {before.views}{_seen()}")
        return load_settings(config, out=out)
    # All goes into a workdir of its own.
    changes = [*kept_encoders(original.folder, before.extract), "extract.store=null"]
    if clips is None and (before.work / "corpus.json").is_file():
        shutil.rmtree(own, ignore_errors=True)
        _take_over(before, own)
        settings = load_settings(config, changes, out=out, workdir=own)
    else:
        root = clips or before.corpus.root
        if root is None or not (root.is_dir() or before.corpus.kind == "synthetic"):
            raise PipelineError(
                f"neither the embeddings of the run ({before.features}) nor its clips ({root}) are there"
                f"{_seen()}; give the clips with --clips DIR"
            )
        if "identical" in _read(out / RECORD):  # of an earlier rerun, not of one that was stopped
            shutil.rmtree(own, ignore_errors=True)
        settings = load_settings(config, changes, out=out, workdir=own, corpus__root=root)
        if (before.work / TRANSCRIPTS).is_file():
            write_atomic(own / TRANSCRIPTS, (before.work / TRANSCRIPTS).read_bytes())
        prepare(settings)
    manifest, root = manifest_in(settings.work)
    if root.is_dir():
        extract(settings, manifest, root)
    else:
        say(f"rerun: the clips are not at hand ({root}); the embeddings are taken as they are")
    return settings


def _seen() -> str:
    return f"; a relative path is seen from here, {Path.cwd()}"


def _take_over(before: Settings, own: Path) -> None:
    """What a run had of its clips and their embeddings, under second names or copied: nothing is changed in place."""
    for name in _OF_A_CORPUS:
        if (before.work / name).is_file():
            write_atomic(own / name, (before.work / name).read_bytes())
    for modality in before.extract.modalities():
        for store, _ in EmbeddingStore.all(before.features, modality):
            for path in listed(store.folder, "*"):  # in the order made, where they are copied
                if path.name.startswith(TEMPORARY_PREFIX):
                    continue
                target = own / "features" / modality / store.fingerprint / path.name
                if is_local(path):
                    link_or_copy(path, target)
                else:
                    write_atomic(target, path.read_bytes())


@contextmanager
def _threads(record: Mapping[str, Any]) -> Iterator[None]:
    """As many of PyTorch's threads as the run had: their number changes the last digits."""
    import torch

    before = torch.get_num_threads()
    made_with = record.get("made_with", {}).get("train")
    then = made_with.get("threads") if isinstance(made_with, dict) else None
    if isinstance(then, int) and 1 <= then <= MAX_THREADS:
        torch.set_num_threads(then)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _labels(settings: Settings, views: Views) -> dict[str, str]:
    try:
        return labels_of(settings, views)
    except PipelineError as error:
        say(f"rerun: no scores, as the labels cannot be read: {error}")
        return {}


def _scores(folder: Path) -> dict[str, float]:
    path = folder / "metrics.json"
    scores = _read(path).get("scores") if path.is_file() else None
    there = {name: scores.get(name) for name in SCORES} if isinstance(scores, dict) else {}
    return {name: float(value) for name, value in there.items() if isinstance(value, int | float)}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_record(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}), which is needed to make the run again") from None


def _write(out: Path, record: Mapping[str, Any]) -> None:
    write_atomic(out / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
