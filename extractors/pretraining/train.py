"""The training loop: which batches, which learning rate, when to stop; the same from a checkpoint as without one.

What is random (the order of the clips, their frames, the impostors) is drawn from (seed, epoch, step) anew each time,
so that a run taken up in the middle of an epoch sees what it would have seen.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.audio_spectrograms import SpectrogramExtractor, pad, pooled_steps
from extractors.pretraining.augment import another_recording
from extractors.pretraining.losses import masked_margin_softmax, sampled_margin_ranking
from extractors.pretraining.matchmap import SIMILARITIES, similarity_matrix
from extractors.pretraining.networks import DualEncoder, ImageHead
from extractors.pretraining.pairs import Pairs
from extractors.pretraining.retrieval import Retrieval, retrieval
from extractors.weights import seeded_init

LOSSES = ("margin_ranking", "masked_margin_softmax", "info_nce")
NEGATIVES = ("auto", "other_clip", "other_video", "same_video")
WARM_UP = 0.1  # share of the steps
HELD_OUT_IMAGES = 256  # pictures the held-out sounds are compared with: several frames a clip where there are few clips
CLIP_NORM = 5.0


@dataclass(frozen=True, slots=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the clips, at most.
        batch_size: pairs in one step, >= 2.
        learning_rate: of Adam at its height; it rises over the first tenth of the steps and falls to 0 along a cosine.
        similarity: "SISA" | "MISA" | "SIMA".
        loss: "margin_ranking" | "masked_margin_softmax" | "info_nce".
        margin: of the first two.
        temperature: of the last two.
        negatives: "other_clip" | "other_video" | "same_video": what a clip is told apart from. With the last a step
            holds whole videos, as far as they fit, and whose voice and face it is tells nothing. "auto" is the last
            where most clips share their video with another, else the first.
        another_recording: let each sound come by another microphone each time (augment.py).
        patience: epochs without a better held-out recall before it stops; None trains them all.
        seed: of initial weights, order, frames and impostors.

    Raises:
        ValueError: a value out of range or an unknown word.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    similarity: str
    loss: str
    margin: float
    temperature: float
    negatives: str
    another_recording: bool
    patience: int | None
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("similarity", SIMILARITIES), ("loss", LOSSES), ("negatives", NEGATIVES)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0 or not self.temperature > 0:
            raise ValueError(
                "expected epochs >= 1, batch_size >= 2, learning_rate > 0 and temperature > 0, got "
                f"{self.epochs}, {self.batch_size}, {self.learning_rate}, {self.temperature}"
            )


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1.
        loss: mean over its steps; NaN for epoch 0, before any training.
        held_out: retrieval among the held-out pairs.
    """

    number: int
    loss: float
    held_out: Retrieval


class Pretraining:
    """One training run, from its first step or from a checkpoint.

    Args:
        pairs: the clips.
        trained, held_out: indices of `pairs`.
        audio: the audio backbone, whose network is trained from its untrained state.
        training: how.
        device: of the networks.
        precision: "fp32" | "bf16" (autocast).
    """

    def __init__(
        self,
        pairs: Pairs,
        trained: NDArray[np.int64],
        held_out: NDArray[np.int64],
        *,
        audio: type[SpectrogramExtractor],
        training: Training,
        device: torch.device,
        precision: str,
    ) -> None:
        self.pairs, self.trained, self.held_out, self.training = pairs, trained, held_out, training
        self.device, self.precision, self.audio = device, precision, audio
        self.negatives = training.negatives if training.negatives != "auto" else _telling_negatives(pairs, trained)
        with seeded_init(training.seed):
            image = ImageHead(pairs.maps.shape[2], audio.dim)
            self.networks = DualEncoder(audio.build(), image, audio.dim).to(device)
        self.networks.image.standardise_by(self._all_maps())
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=training.learning_rate)
        self.n_batches = max(1, math.ceil(len(trained) / training.batch_size))
        self.step = 0  # steps done, of all epochs
        self.epoch_losses: list[float] = []
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.training.epochs * self.n_batches

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done or patience is over."""
        waited = len(self.history) - 1 - self.best_epoch
        patience = self.training.patience
        return self.step >= self.steps or (patience is not None and waited >= patience)

    def run(self, on_step: Callable[["Pretraining"], None], on_epoch: Callable[[Epoch], None]) -> dict[str, Tensor]:
        """Trains to the end.

        Args:
            on_step: called after each step; the place to write a checkpoint, or to stop by an exception.
            on_epoch: called with epoch 0 (untrained) and after each epoch.
        Returns:
            the audio network's state dict of the epoch with the best held-out recall, epoch 0 left out.
        Raises:
            FloatingPointError: the loss is no number any more.
        """
        if not self.history:
            self._close_epoch(on_epoch)
        while not self.finished:
            rows, frames, generator = self._drawn()
            self.epoch_losses.append(self._train_step(rows, frames, generator))
            self.step += 1
            if self.step % self.n_batches == 0:
                self._close_epoch(on_epoch)
            on_step(self)
        return self.best

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as a tree of tensors and plain values."""
        return {
            "networks": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch_losses": self.epoch_losses,
            "history": [_as_row(epoch) for epoch in self.history],
            "best": self.best,
            "best_epoch": self.best_epoch,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a run up where `state` was made.

        Raises:
            KeyError, RuntimeError, ValueError: a state of another run.
        """
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch_losses = int(state["step"]), list(state["epoch_losses"])
        self.history = [_of_row(row) for row in state["history"]]
        self.best, self.best_epoch = dict(state["best"]), int(state["best_epoch"])

    def _drawn(self) -> tuple[NDArray[np.int64], NDArray[np.int64], torch.Generator]:
        """The next step's clips, a frame of each, and what draws the impostors."""
        epoch, batch = divmod(self.step, self.n_batches)
        random = np.random.default_rng((self.training.seed, epoch))
        order = random.permutation(self.trained)
        if self.negatives == "same_video":
            order = _by_video(order, self.pairs.videos)
        frames = random.integers(self.pairs.maps.shape[1], size=len(order))
        mine = np.array_split(np.arange(len(order)), self.n_batches)[batch]  # of even size: no tiny last batch
        generator = torch.Generator().manual_seed(
            int(np.random.default_rng((self.training.seed, epoch, batch)).integers(2**62))
        )
        return order[mine], frames[mine], generator

    def _heard(self, rows: NDArray[np.int64]) -> Tensor:
        """(B, 40, T): the clips' sounds, as this step is to hear them."""
        log_mels = [self.pairs.log_mels[row] for row in rows]
        if self.training.another_recording:
            random = np.random.default_rng((self.training.seed, self.step, 1))
            log_mels = [another_recording(log_mel, random) for log_mel in log_mels]
        return pad(log_mels, self.audio.right_context)

    def _train_step(self, rows: NDArray[np.int64], frames: NDArray[np.int64], generator: torch.Generator) -> float:
        training = self.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_factor(self.step, self.steps)
        self.networks.train()
        places = self._places(torch.from_numpy(self.pairs.maps[rows, frames]))
        steps = self._steps(self._heard(rows), self._n_steps(rows))
        similarities = self._compared(places, steps, rows)
        negatives = self._negatives(rows)
        if training.loss == "margin_ranking":
            loss = sampled_margin_ranking(similarities, negatives, margin=training.margin, generator=generator)
        else:
            margin = training.margin if training.loss == "masked_margin_softmax" else 0.0
            loss = masked_margin_softmax(similarities, negatives, margin=margin, temperature=training.temperature)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.step + 1}; lower the learning rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), CLIP_NORM)
        self.optimizer.step()
        return float(loss.item())

    def _negatives(self, rows: NDArray[np.int64]) -> Tensor:
        """(B, B) which clips of a batch may stand for a wrong partner; never the clip itself."""
        videos = np.array([self.pairs.videos[row] for row in rows])
        same_video, same_clip = videos[:, None] == videos[None, :], np.eye(len(rows), dtype=bool)
        allowed = {"other_clip": ~same_clip, "other_video": ~same_video, "same_video": same_video & ~same_clip}
        return torch.from_numpy(allowed[self.negatives]).to(self.device)

    def _close_epoch(self, on_epoch: Callable[[Epoch], None]) -> None:
        loss = float(np.mean(self.epoch_losses)) if self.epoch_losses else math.nan
        epoch = Epoch(len(self.history), loss, self.evaluate())
        trained_before = [other.held_out.mean_recall for other in self.history[1:]]
        if epoch.number and (not trained_before or epoch.held_out.mean_recall > max(trained_before)):
            self.best_epoch = epoch.number
            self.best = {name: t.detach().cpu().clone() for name, t in self.networks.audio.state_dict().items()}
        self.history.append(epoch)
        self.epoch_losses = []
        on_epoch(epoch)

    def evaluate(self) -> Retrieval:
        """Retrieval among the held-out pairs; where they are few, by the mean similarity over several frames."""
        rows, n_frames = self.held_out, self.pairs.maps.shape[1]
        taken = max(1, min(n_frames, HELD_OUT_IMAGES // len(rows)))
        chosen = (np.arange(taken) * n_frames + n_frames // 2) // taken  # evenly over the clip
        n_steps = self._n_steps(rows)
        self.networks.eval()
        with torch.inference_mode():
            padded = pad([self.pairs.log_mels[row] for row in rows], self.audio.right_context)
            parts = zip(padded.split(self.training.batch_size), n_steps.split(self.training.batch_size), strict=True)
            steps = torch.cat([self._steps(*part) for part in parts])  # (N, D, T')
            similarities = torch.zeros(len(rows), len(rows))
            for frame in chosen:
                parts = torch.from_numpy(self.pairs.maps[rows, frame]).split(self.training.batch_size)
                similarities += torch.cat([self._compared(self._places(part), steps, rows) for part in parts]).cpu()
        return retrieval(similarities / taken)

    def _places(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) float16 -> (B, D, P) float32."""
        with self._autocast():
            places: Tensor = self.networks.places(maps.to(self.device).float())
        return places.float()

    def _steps(self, log_mels: Tensor, n_steps: Tensor) -> Tensor:
        """(B, 40, T) -> (B, D, T') float32."""
        with self._autocast():
            steps: Tensor = self.networks.steps(log_mels.to(self.device), n_steps)
        return steps.float()

    def _n_steps(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.tensor([pooled_steps(self.pairs.log_mels[row].shape[1]) for row in rows], device=self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _compared(self, places: Tensor, steps: Tensor, rows: NDArray[np.int64]) -> Tensor:
        return similarity_matrix(places, steps, self._n_steps(rows), self.training.similarity)

    def _all_maps(self) -> Iterator[Tensor]:
        """Every frame of every clip that is trained on."""
        for row in self.trained:
            yield torch.from_numpy(self.pairs.maps[row]).to(self.device)


def learning_rate_factor(step: int, steps: int) -> float:
    """Of the height: a rise over the first tenth of the steps, then half a cosine down to 0."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _telling_negatives(pairs: Pairs, trained: NDArray[np.int64]) -> str:
    """Among one speaker's clips it is the mood that tells; where each speaker has but one clip, there are none such."""
    clips_of = Counter(pairs.videos[row] for row in trained)
    sharing = sum(count for count in clips_of.values() if count > 1)
    return "same_video" if sharing > len(trained) / 2 else "other_clip"


def _by_video(order: NDArray[np.int64], videos: Sequence[str]) -> NDArray[np.int64]:
    """The same clips, those of a video one after the other, the videos in the order of their first clip."""
    first: dict[str, int] = {}
    for row in order:
        first.setdefault(videos[row], len(first))
    return np.array(sorted(order, key=lambda row: first[videos[row]]), dtype=np.int64)


def _as_row(epoch: Epoch) -> list[Any]:
    held = epoch.held_out
    return [epoch.number, epoch.loss, held.n_pairs, held.image_to_audio, held.audio_to_image, held.median_rank]


def _of_row(row: Sequence[Any]) -> Epoch:
    return Epoch(row[0], row[1], Retrieval(*row[2:]))
