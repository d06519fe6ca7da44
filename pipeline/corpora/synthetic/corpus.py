"""Writes the demo corpus to a folder: clip by clip, resumable, the same for the same seed."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.corpora.synthetic.acting import POSES, perform, raise_hands
from pipeline.corpora.synthetic.mux import write_mp4
from pipeline.corpora.synthetic.plan import LABELS, ClipPlan, plan_clips
from pipeline.corpora.synthetic.scene import Shot
from pipeline.corpora.synthetic.script import syllables
from pipeline.corpora.synthetic.voice import SAMPLE_RATE_HZ, STEP, STYLES, speak
from pipeline.corpora.tables import format_table
from pipeline.errors import PipelineError
from pipeline.files import write_atomic

GENERATOR_VERSION = 2
FPS = 15
_DESCRIPTION = "corpus.json"
_UNFINISHED = "corpus.unfinished.json"  # the same text, until every file is there


def write_synthetic_corpus(
    root: Path,
    *,
    clips_per_class: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `clips/<id>.mp4`, `clips.csv` (file, transcript, label) and, last, `corpus.json`.

    Every file appears under its name only when it is whole. A call that was interrupted is taken up by the next one
    with the same arguments; where all is there, nothing is done. Each clip depends on (seed, its number) alone.

    Args:
        root: the corpus folder; made if missing.
        clips_per_class: clips of each of the 7 classes, >= 1.
        seed: >= 0; another seed is another cast and other clips.
        progress: called with (clips done, clips in all) after each clip that was made.

    Raises:
        PipelineError: bad arguments, or `root` holds another corpus, or files that are no such corpus.
    """
    if clips_per_class < 1 or seed < 0:
        raise PipelineError(
            f"expected clips_per_class >= 1 and seed >= 0, got {clips_per_class} and {seed}; change the settings"
        )
    description = _describe(clips_per_class, seed)
    _check_folder(root, description)
    plans = plan_clips(clips_per_class, seed)
    missing = [plan for plan in plans if not _clip_path(root, plan).is_file()]
    csv_path = root / "clips.csv"
    if not missing and csv_path.is_file() and (root / _DESCRIPTION).is_file():
        return
    (root / "clips").mkdir(parents=True, exist_ok=True)
    if not (root / _DESCRIPTION).is_file():
        write_atomic(root / _UNFINISHED, json.dumps(description, indent=2) + "\n")
    write_atomic(csv_path, _csv_text(plans))
    _make_clips(root, missing, seed, len(plans), progress)
    if (root / _UNFINISHED).is_file():
        os.replace(root / _UNFINISHED, root / _DESCRIPTION)


def speakers(clips_per_class: int, seed: int) -> dict[str, str]:
    """Media file relative to the corpus folder -> name of the person who speaks in it."""
    plans = plan_clips(clips_per_class, seed)
    numbers = {person: number for number, person in enumerate(dict.fromkeys(plan.person for plan in plans), start=1)}
    return {f"clips/{plan.clip_id}.mp4": f"person_{numbers[plan.person]:02d}" for plan in plans}


def _describe(clips_per_class: int, seed: int) -> dict[str, Any]:
    return {
        "generator": "pipeline.corpora.synthetic",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "clips_per_class": clips_per_class,
        "n_clips": clips_per_class * len(LABELS),
        "labels": list(LABELS),
        "statement": "Synthetic: the faces are drawn and the voices synthesised by a program; nobody was recorded, "
        "and the sentences are made from templates. For trying out the pipeline, not for findings about people.",
    }


def _check_folder(root: Path, description: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but this very corpus, whole or half-written."""
    for name in (_DESCRIPTION, _UNFINISHED):
        path = root / name
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PipelineError(f"{path} is not readable as JSON ({error}); delete the folder") from error
        keys = ("generator", "generator_version", "seed", "clips_per_class")
        asked, there = ([f"{key} {d.get(key)}" for key in keys] for d in (description, found))
        if asked != there:
            raise PipelineError(
                f"{root} holds another demo corpus ({', '.join(there)}) than the one asked for "
                f"({', '.join(asked)}); give another folder, or delete this one"
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PipelineError(
            f"{root} is not empty and has no {_DESCRIPTION}, so it is no demo corpus; give another folder"
        )


def _clip_path(root: Path, plan: ClipPlan) -> Path:
    return root / "clips" / f"{plan.clip_id}.mp4"


def _csv_text(plans: list[ClipPlan]) -> str:
    rows = [(f"clips/{plan.clip_id}.mp4", plan.transcript, str(plan.label)) for plan in plans]
    return format_table(("file", "transcript", "label"), rows)


def _make_clips(
    root: Path, missing: list[ClipPlan], seed: int, n_all: int, progress: Callable[[int, int], None] | None
) -> None:
    done = n_all - len(missing)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = [pool.submit(_make_clip, _clip_path(root, plan), plan, seed) for plan in missing]
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, n_all)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make_clip(path: Path, plan: ClipPlan, seed: int) -> None:
    rng = np.random.default_rng((seed, plan.number))
    speech = speak(syllables(plan.transcript), STYLES[plan.cues.voice], plan.person, rng)
    times_s = np.arange(round(len(speech.samples) / SAMPLE_RATE_HZ * FPS)) / FPS
    steps_s = np.arange(len(speech.opening)) * STEP / SAMPLE_RATE_HZ
    expressions = perform(plan.cues.face, np.interp(times_s, steps_s, speech.opening), times_s, rng)
    raised = raise_hands(times_s, rng)
    shot = Shot(plan.person, POSES[plan.cues.face], rng)
    part = path.with_name(path.name + ".part")
    frames = (shot.frame(expression, up, rng) for expression, up in zip(expressions, raised, strict=True))
    write_mp4(part, frames, fps=FPS, samples=speech.samples, sample_rate_hz=SAMPLE_RATE_HZ)
    os.replace(part, path)
