"""How a run came about: settings, seeds, versions, weights; and the commands that make it again."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.run import FinishedRun
from pipeline.rerun import RECORD

Rows = list[tuple[str, str, str]]  # group, name, value


def provenance(run: FinishedRun) -> Rows:
    """Everything that run.json tells, in words, in the order to show it."""
    record = run.record
    named = {
        "finished": record["finished"],
        "commit": record.get("git_sha"),
        "command": record.get("command"),
        "Python": record.get("python"),
        "platform": record.get("platform"),
        "processor": record.get("processor"),
        "cores": record.get("cores"),
        **{f"seconds: {stage}": value for stage, value in record.get("seconds", {}).items()},
    }
    rows = [("run", name, str(value)) for name, value in named.items() if value is not None]
    rows += _rerun(run.folder / RECORD)
    rows += _training(record)
    made_with = record.get("made_with", {})
    for modality, recipe in record.get("encoders", {}).items():
        rows += _encoder(modality, recipe, made_with.get(modality, []))
    rows += [("packages", name, str(version)) for name, version in record.get("packages", {}).items()]
    return rows


def _training(record: Mapping[str, Any]) -> Rows:
    named = {
        "objective": record.get("objective"),
        "schedule": record.get("schedule"),
        "clusters": record["n_clusters"],
        "restarts": record.get("restarts"),
        "seed": record.get("seed"),
        **{f"stability, {name}": f"{value:.3f}" for name, value in record.get("stability", {}).items()},
        **{f"view {name}": " x ".join(map(str, shape)) for name, shape in record.get("views", {}).items()},
        **{f"computed with: {name}": value for name, value in record.get("made_with", {}).get("train", {}).items()},
        **{f"transcripts made by {model}": n for model, n in record.get("transcripts_made", {}).items()},
        "inputs": record.get("inputs"),
        "views' SHA-256": record["views_digest"],
    }
    return [("training", name, str(value)) for name, value in named.items() if value is not None]


def _rerun(path: Path) -> Rows:
    """Of a run that was made again: of which, how the two compare, and what was different."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        compared = "identical" if record["identical"] else f"{record['share'] or 0:.1%} in the same cluster"
        rows = [("made again", "of", record["of"]), ("made again", "assignments", compared)]
        return rows + [("made again", d["what"], f"{d['then']} then, {d['now']} now") for d in record["different"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # no rerun, or one that is not compared yet


def _encoder(modality: str, recipe: Mapping[str, Any], made_with: Sequence[Mapping[str, Any]]) -> Rows:
    """
    Args:
        made_with: what one or more runs of `extract` computed its embeddings with.
    """
    weights = recipe.get("weights", {})
    trained = "trained" if weights.get("trained", True) else "RANDOM, never trained"
    if weights.get("source") == "none":
        trained = "none needed"
    named = {
        "encoder": recipe.get("extractor"),
        "dims": recipe.get("dim"),
        "weights": trained,
        **{f"weights: {name}": value for name, value in weights.items() if name != "trained"},
        **recipe.get("settings", {}),
        **{f"version of {name}": value for name, value in recipe.get("versions", {}).items()},
        "computed with": "; or ".join(", ".join(f"{k} {v}" for k, v in one.items()) for one in made_with) or None,
    }
    return [(f"encoder: {modality}", name, str(value)) for name, value in named.items() if value is not None]


def commands(run: FinishedRun) -> list[str]:
    """What makes the run again, each a line for a shell: as it was typed, and from the settings kept with it."""
    config, folder = shlex.quote(str(run.folder / "config.yaml")), shlex.quote(str(run.folder))
    stage = "run" if run.record.get("encoders") else "train"
    typed = _typed(run.record.get("command"))
    return [*typed, f"python -m pipeline {stage} --config {config}", f"python -m pipeline report --out {folder}"]


def _typed(command: Any) -> list[str]:
    """The command that a run's record tells, if it is one of this program and nothing more: a reader may copy it."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return []
    ours = words[:3] == ["python", "-m", "pipeline"] and shlex.join(words) == command and command.isprintable()
    return [command] if ours else []
