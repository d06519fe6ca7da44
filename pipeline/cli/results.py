"""What a stage ended with, as plain values for --json and as lines for --quiet: read from what it wrote."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Settings
from pipeline.corpora.tables import read_records
from pipeline.drift import DRIFT
from pipeline.manifest import Manifest, read_labels

COUNTED_PARTS, COUNTED_BYTES = 500, 10_000_000  # of a store, a manifest; more takes long when someone wants to stop


def prepared(settings: Settings) -> dict[str, Any]:
    """Of prepare: {"manifest", "clips", "labels", "problems": kind -> count}."""
    work = settings.work
    problems = Counter(row["kind"] for row in read_records(work / "problems.csv"))
    manifest = work / "manifest.jsonl"
    n_clips, n_labels = sum(1 for _ in Manifest(manifest)), len(read_labels(work / "labels.csv"))
    return {"manifest": manifest, "clips": n_clips, "labels": n_labels, "problems": dict(problems)}


def prepared_lines(values: Mapping[str, Any]) -> list[str]:
    problems = "".join(f", {count} {kind}" for kind, count in values["problems"].items())
    return [f"prepare: {values['clips']} clips, {values['labels']} labels{problems}: {values['manifest']}"]


def transcribed(settings: Settings, n_failed: int) -> dict[str, Any]:
    """Of transcribe: {"transcripts", "clips", "made": model -> clips that have its transcript, "failed"}."""
    from pipeline.transcripts import TRANSCRIPTS, made_by

    clips = Manifest(settings.work / "manifest.jsonl")
    counts = {"clips": sum(1 for _ in clips), "made": dict(made_by(clips)), "failed": n_failed}
    return {"transcripts": settings.work / TRANSCRIPTS, **counts}


def transcribed_lines(values: Mapping[str, Any]) -> list[str]:
    made = ", ".join(f"{count} by {model}" for model, count in values["made"].items()) or "none"
    failed = f", {values['failed']} failed" if values["failed"] else ""
    return [f"transcribe: {values['clips']} clips, transcripts made: {made}{failed}: {values['transcripts']}"]


def pretrained(weights: Path) -> dict[str, Any]:
    """Of pretrain-audio: {"weights", "record"}."""
    return {"weights": weights, "record": _read(weights.with_suffix(".json"))}


def pretrained_lines(values: Mapping[str, Any]) -> list[str]:
    record = values["record"]
    ways = (record["best"]["image_to_audio"], record["best"]["audio_to_image"])
    recalls = " | ".join(" ".join(f"{value:.2f}" for value in way.values()) for way in ways)
    told = f"epoch {record['best_epoch']}, recall@1/5/10 {recalls} of {record['best']['n_pairs']} held-out pairs"
    return [f"pretrain-audio: {record['extractor']}: {told}: {values['weights']}"]


def extracted(settings: Settings) -> dict[str, Any]:
    """Of extract: {"features", "clips", "modalities": modality -> its accounts}; clips = done + failed + pending."""
    from pipeline.status import accounts

    found = accounts(settings)
    modalities = {one.modality: asdict(one) for one in found}
    return {
        "features": settings.features,
        "clips": found[0].clips if found else 0,
        "modalities": {name: {k: v for k, v in one.items() if k != "modality"} for name, one in modalities.items()},
    }


def extracted_lines(values: Mapping[str, Any]) -> list[str]:
    lines = []
    for modality, one in values["modalities"].items():
        causes = ", ".join(f"{count} {cause}" for cause, count in one["causes"].items())
        failed = f", {one['failed']} failed ({causes})" if one["failed"] else ""
        pending = f", {one['pending']} pending" if one["pending"] else ""
        untrained = "; RANDOM weights, untrained" if one["trained"] is False else ""
        lines.append(f"extract: {modality}: {one['done']} of {one['clips']} clips{failed}{pending}{untrained}")
    return lines


def embeddings_kept(settings: Settings) -> str:
    """What an extraction that was stopped has left, in words; quick, as someone is waiting for the end."""
    from pipeline.features import exact_store

    counts = []
    try:
        manifest = settings.work / "manifest.jsonl"
        if manifest.stat().st_size > COUNTED_BYTES:
            raise ValueError("too many to be counted now")
        n_clips = sum(1 for _ in Manifest(manifest))
        for modality in settings.extract.modalities():
            store = exact_store(settings, modality)
            if store and len(list(store.folder.glob("part-*"))) > COUNTED_PARTS:
                raise ValueError("too many to be counted now")
            counts.append(f"{modality} {len(dict(store.done())) if store else 0}")
    except Exception:  # a store in the making, a stop before there is a manifest: this line must not fail
        return f"every clip that was finished, in {settings.features}"
    return f"embeddings of {n_clips} clips: {', '.join(counts)}"


def reduced(settings: Settings) -> dict[str, Any]:
    """Of reduce: {"reduced", "clips", "dim", "explained": modality -> share of the variance}."""
    from pipeline.view_files import iter_clip_ids  # only now: it loads PyArrow

    folder = settings.work / "reduced"
    recipe, n_clips = _read(folder / "recipe.json"), sum(1 for _ in iter_clip_ids(folder))
    return {"reduced": folder, "clips": n_clips, "dim": recipe["dim"], "explained": recipe["explained"]}


def reduced_lines(values: Mapping[str, Any]) -> list[str]:
    kept = ", ".join(f"{modality} {share:.0%}" for modality, share in values["explained"].items())
    dim = f"{values['dim']} dims" if values["dim"] else "all dims"
    return [f"reduce: {values['clips']} clips, {dim}, variance kept: {kept}: {values['reduced']}"]


def scored(settings: Settings) -> dict[str, Any]:
    """Of train and evaluate: {"results", "run": run.json, "metrics": metrics.json, "report"}."""
    out = settings.results
    page = out / "report.html"
    record = {"run": _read(out / "run.json"), "metrics": _read(out / "metrics.json")}
    return {"results": out, **record, "report": page if page.exists() else None}


def scored_lines(values: Mapping[str, Any]) -> list[str]:
    metrics = values["metrics"]
    scores = metrics.get("scores")
    told = "no labels" if scores is None else ", ".join(f"{name.upper()} {scores[name]:.3f}" for name in _SCORES)
    used = f"{metrics['n_clusters_used']} of {metrics['n_clusters']} clusters"
    lines = [f"train: {metrics['n_clips']} clips in {used}, {told}: {values['results']}"]
    return lines + [f"train: {m}: RANDOM weights, untrained" for m in metrics["untrained_encoders"]]


_SCORES = ("acc", "nmi", "ari")


def predicted(run: Path, path: Path, n_failed: int) -> dict[str, Any]:
    """Of predict: {"predictions", "clips", "failed", "clusters": cluster -> clips, "confidence": the mean, ...}."""
    from pipeline.assignments import read_assignments  # only now: it loads PyArrow

    said = read_assignments(path)
    clusters = zip(*np.unique(said.cluster, return_counts=True), strict=True)
    return {
        "predictions": path,
        "clips": len(said),
        "failed": n_failed,
        "clusters": {str(k): int(n) for k, n in clusters},
        "confidence": float(said.confidence.mean(dtype=np.float64)),
        "drift": _read(path.with_name(DRIFT)),
        "untrained_encoders": _read(run / "run.json").get("untrained_encoders", []),
    }


def predicted_lines(values: Mapping[str, Any]) -> list[str]:
    failed = f", {values['failed']} without a prediction" if values["failed"] else ""
    told = f"{values['clips']} clips in {len(values['clusters'])} clusters, mean confidence {values['confidence']:.3f}"
    lines = [f"predict: {told}{failed}: {values['predictions']}"]
    lines += [f"drift: {reason}; a refit is due" for reason in values["drift"]["reasons"]]
    return lines + [f"predict: {m}: RANDOM weights, untrained" for m in values["untrained_encoders"]]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
