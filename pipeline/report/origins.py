"""How a run came about: settings, seeds, versions, weights; and the commands that make it again."""

import shlex
from collections.abc import Mapping
from typing import Any

from pipeline.report.run import FinishedRun

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
        **{f"seconds: {stage}": value for stage, value in record.get("seconds", {}).items()},
    }
    rows = [("run", name, str(value)) for name, value in named.items() if value is not None]
    rows += _training(record)
    for modality, recipe in record.get("encoders", {}).items():
        rows += _encoder(modality, recipe)
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
        "inputs": record.get("inputs"),
        "views' SHA-256": record["views_digest"],
    }
    return [("training", name, str(value)) for name, value in named.items() if value is not None]


def _encoder(modality: str, recipe: Mapping[str, Any]) -> Rows:
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
    }
    return [(f"encoder: {modality}", name, str(value)) for name, value in named.items() if value is not None]


def commands(run: FinishedRun) -> list[str]:
    """What makes the run again, each a line for a shell: as it was typed, and from the settings kept with it."""
    config, folder = shlex.quote(str(run.folder / "config.yaml")), shlex.quote(str(run.folder))
    stage = "run" if run.record.get("encoders") else "train"
    typed = [run.record["command"]] if run.record.get("command") else []
    return [*typed, f"python -m pipeline {stage} --config {config}", f"python -m pipeline report --out {folder}"]
