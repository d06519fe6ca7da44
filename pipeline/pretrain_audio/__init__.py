"""Stage pretrain-audio: raw clips -> an audio encoder of the corpus' own, trained without labels.

What it learns is which sound belongs to which picture. inputs.py makes what it is trained on, record.py keeps what
comes out; the training itself is `extractors.pretraining`.
"""

import io
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extractors.audio_spectrograms import SpectrogramExtractor
from extractors.batching import resolve_device
from extractors.pretraining.pairs import split_by_video
from extractors.pretraining.retrieval import RECALLS_AT, Retrieval
from extractors.pretraining.train import Epoch, Pretraining, Training
from extractors.registry import extractor_class
from pipeline.config import PretrainSettings, Settings
from pipeline.console import progress, say
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import precision_for
from pipeline.errors import PipelineError
from pipeline.files import check_writable, write_atomic
from pipeline.pretrain_audio.inputs import Inputs, gather
from pipeline.pretrain_audio.record import retrieval_values, write_history, write_weights
from pipeline.provenance import environment, stable_hash

CHECKPOINT_EVERY_S = 30.0
MAX_HELD_OUT = 250  # pairs; comparing each with each grows with the square
_CHECKPOINT = "checkpoint.pt"


def pretrain_audio(settings: Settings, manifest: Iterable[CorpusClip], root: Path) -> Path:
    """Trains `extract.audio.backbone`, or does nothing where these settings' weights are here already.

    Args:
        manifest: the corpus' clips, in order; gone through twice.
        root: folder their media paths are relative to.
    Returns:
        the weights file: what `extract.audio.weights: self` stands for.
    Raises:
        PipelineError: it cannot be trained: no picture or no sound, too few clips, a backbone without a network.
    """
    weights = settings.own_audio
    if settings.own_audio_is_trained:
        say(f"pretrain-audio: nothing to do: {weights} is trained")
        return weights
    backbone = _backbone(settings)
    check_writable(weights.parent)
    inputs = gather(settings, manifest, root)
    trained, held_out = _split(inputs, settings.pretrain)
    run = _open(settings.pretrain, backbone, inputs, trained, held_out)
    started = time.monotonic()
    best = _train(run, inputs, weights.with_name(_CHECKPOINT))
    write_history(weights.with_name("history.csv"), run.history)
    write_weights(weights, best, _record(settings, inputs, run, time.monotonic() - started))
    weights.with_name(_CHECKPOINT).unlink(missing_ok=True)
    kept = run.history[run.best_epoch]
    say(f"pretrain-audio: wrote {weights}: epoch {kept.number} of {len(run.history) - 1}, {in_words(kept.held_out)}")
    return weights


def in_words(found: Retrieval) -> str:
    """Held-out retrieval in one line, beside chance."""

    def told(recalls: dict[int, float]) -> str:
        return "/".join(f"{value:.2f}" for value in recalls.values())

    chance = {k: found.chance(k) for k in RECALLS_AT}
    ks = "/".join(map(str, RECALLS_AT))
    return (
        f"recall@{ks} of {found.n_pairs} held-out pairs: sound to a picture {told(found.image_to_audio)}, picture to a "
        f"sound {told(found.audio_to_image)} (chance {told(chance)}), median rank {found.median_rank:g} "
        f"(chance {(found.n_pairs + 1) / 2:g})"
    )


def _backbone(settings: Settings) -> type[SpectrogramExtractor]:
    audio = settings.extract.audio
    if audio is None:
        raise PipelineError("pretrain-audio trains extract.audio.backbone, and extract.audio is null; set it")
    try:
        found = extractor_class(audio.backbone)
    except ValueError as error:
        raise PipelineError(f"extract.audio.backbone: {error}") from None
    if not issubclass(found, SpectrogramExtractor):
        raise PipelineError(
            f"extract.audio.backbone: {audio.backbone} has no network to train; take audio/davenet or audio/resdavenet"
        )
    return found


def _split(inputs: Inputs, settings: PretrainSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    videos = inputs.pairs.videos
    try:
        trained, held_out = split_by_video(videos, settings.held_out, at_most=MAX_HELD_OUT, seed=settings.seed)
    except ValueError as error:
        raise PipelineError(
            f"pretrain-audio: {error}; add clips, or take sound that needs no training: "
            "--set extract.audio.backbone=audio/logmel_stats"
        ) from None
    n_videos = len(set(videos))
    say(
        f"pretrain-audio: {len(videos)} clips of {n_videos} videos with picture and sound: {len(trained)} to train on, "
        f"{len(held_out)} held out"
        + ("" if n_videos > 1 else "; all are of one video, so its speaker is on both sides")
    )
    return trained, held_out


def _open(
    settings: PretrainSettings,
    backbone: type[SpectrogramExtractor],
    inputs: Inputs,
    trained: NDArray[np.int64],
    held_out: NDArray[np.int64],
) -> Pretraining:
    arguments = settings.model_dump(exclude={"max_clips", "frames_per_clip", "held_out", "precision", "device"})
    try:
        device = resolve_device(settings.device)
        run = Pretraining(
            inputs.pairs,
            trained,
            held_out,
            audio=backbone,
            training=Training(**arguments),
            device=device,
            precision=precision_for(settings.precision, settings.device),
        )
    except ValueError as error:
        raise PipelineError(f"pretrain-audio: {error}") from None
    what = {
        "other_clip": "any other clip",
        "other_video": "other videos' clips",
        "same_video": "its video's other clips",
    }
    say(f"pretrain-audio: a clip is told apart from {what[run.negatives]}; {run.precision} on {device.type}")
    return run


def _train(run: Pretraining, inputs: Inputs, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Trains to the end, from the last checkpoint where there is one; writes one now and then."""
    clips = stable_hash([inputs.clip_ids, run.trained.tolist()])
    _resume(run, clips, checkpoint)
    written = time.monotonic()
    with progress(run.steps, "pretrain-audio", "step") as bar:
        bar.update(run.step)

        def on_step(state: Pretraining) -> None:
            nonlocal written
            bar.update(1)
            if time.monotonic() - written >= CHECKPOINT_EVERY_S:
                _write_checkpoint(state, clips, checkpoint)
                written = time.monotonic()

        def on_epoch(epoch: Epoch) -> None:
            name = f"epoch {epoch.number}, loss {epoch.loss:.3f}" if epoch.number else "untrained"
            say(f"pretrain-audio: {name}: {in_words(epoch.held_out)}")

        try:
            return run.run(on_step, on_epoch)
        except FloatingPointError as error:
            raise PipelineError(f"pretrain-audio: {error} (pretrain.learning_rate)") from None


def _write_checkpoint(run: Pretraining, clips: str, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({**run.state(), "clips": clips}, buffer)
    write_atomic(path, buffer.getvalue())


def _resume(run: Pretraining, clips: str, path: Path) -> None:
    if not path.is_file():
        return
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["clips"] != clips:
            raise ValueError("it was made with other clips")
        run.restore(state)
    except Exception as error:  # of a damaged file PyTorch's unpickler raises whatever its bytes lead to
        say(f"pretrain-audio: {path} is of no use ({str(error).splitlines()[0][:120]}): starting anew")
        return
    say(f"pretrain-audio: goes on after step {run.step} of {run.steps}, from {path}")


def _record(settings: Settings, inputs: Inputs, run: Pretraining, seconds: float) -> dict[str, Any]:
    kept = run.history[run.best_epoch]
    kind = settings.corpus.kind
    image_licence = inputs.image["weights"].get("licence", "none: random weights")
    return {
        "extractor": run.audio.name,
        "name": f"{run.audio.name} trained on this corpus' own clips",
        "licence": f"trained here on a {kind} corpus: what may be done with its clips may be done with it; its "
        f"teacher, {inputs.image['extractor']}: {image_licence}",
        "preprocessing": run.audio.published.preprocessing,
        "trained_on": {
            "corpus": kind,
            "clips": len(run.trained),
            "held_out": len(run.held_out),
            "videos": len(set(run.pairs.videos)),
            "labels": "none: never read",
        },
        "image": inputs.image,
        "settings": settings.pretrain.model_dump(mode="json"),
        "negatives": run.negatives,
        "precision": run.precision,
        "device": str(run.device),
        "epochs": len(run.history) - 1,
        "best_epoch": kept.number,
        "untrained": retrieval_values(run.history[0].held_out),
        "best": retrieval_values(kept.held_out),
        "seconds_since_start": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **environment(),
    }
