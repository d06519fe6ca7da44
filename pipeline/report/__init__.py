"""Stage report: one self-contained HTML page of a run; what it shows is escaped, whatever the clips are called."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.manifest import read_manifest
from pipeline.reduce import encoders_of
from pipeline.store import EmbeddingStore

SHOWN = 5  # clips named in a cluster's card, at either end of its confidence


def report(settings: Settings) -> Path:
    """Writes report.html beside the results of a run.

    Returns:
        its path.
    Raises:
        PipelineError: there is no finished run in the results folder.
    """
    out = settings.results
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        with (out / "assignments.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise PipelineError(f"no finished run in {out} ({error}); run `train` first") from None
    environment = Environment(loader=PackageLoader("pipeline.report", "."), autoescape=select_autoescape(("j2",)))
    page = environment.get_template("report.html.j2").render(
        name=settings.name,
        run=run,
        metrics=metrics,
        clusters=_cards(rows, _transcripts(settings)),
        confidence=sum(float(row["confidence"]) for row in rows) / len(rows),
        failures=_failures(settings),
        encoders=encoders_of(settings),
        config=(out / "config.yaml").read_text(encoding="utf-8"),
    )
    write_atomic(out / "report.html", page)
    return out / "report.html"


def _transcripts(settings: Settings) -> dict[str, str]:
    path = settings.work / "manifest.jsonl"
    if settings.views or not path.exists():
        return {}
    return {clip.clip_id: clip.transcript or "" for clip in read_manifest(path)}


def _cards(rows: list[dict[str, str]], transcripts: Mapping[str, str]) -> list[dict[str, Any]]:
    """A card a cluster, the largest first: its size, its surest and its least sure clips."""
    members: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        members.setdefault(row["cluster"], []).append(row | {"transcript": transcripts.get(row["clip_id"], "")})
    cards = []
    for cluster, found in members.items():
        found.sort(key=lambda row: -float(row["confidence"]))
        least_sure = found[max(SHOWN, len(found) - SHOWN) :]
        cards.append({"cluster": cluster, "size": len(found), "surest": found[:SHOWN], "least_sure": least_sure})
    return sorted(cards, key=lambda card: -card["size"])


def _failures(settings: Settings) -> list[dict[str, Any]]:
    """The failures behind these views: of the stores they were made from, and of clips that are still in the corpus."""
    manifest = settings.work / "manifest.jsonl"
    present = {clip.clip_id for clip in read_manifest(manifest)} if manifest.exists() else set()
    rows = []
    for modality, recipe in encoders_of(settings).items():
        store = EmbeddingStore.of_recipe(settings.work / "features", modality, recipe)
        found = [failure for clip_id, failure in store.failures().items() if clip_id in present]
        rows += [{"modality": modality, "failure": failure} for failure in found]
    return rows
