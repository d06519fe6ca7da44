"""What is trained on: a few frames' feature maps and one log-mel of each clip, and how they are shared out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_TRAINED, MIN_HELD_OUT = 4, 2  # clips; fewer are no contrast


@dataclass(frozen=True, slots=True)
class Pairs:
    """The picture and the sound of N clips.

    Attributes:
        maps: (N, F, C, H, W) float16: the last feature map of F frames of each clip; may be a memory map.
        log_mels: N of (40, T_n) float32, dB.
        videos: N names; clips of one video may share their speaker.

    Raises:
        ValueError: lengths that differ, another shape.
    """

    maps: NDArray[np.float16]
    log_mels: Sequence[NDArray[np.float32]]
    videos: Sequence[str]

    def __post_init__(self) -> None:
        if self.maps.ndim != 5 or not len(self.maps) == len(self.log_mels) == len(self.videos):
            raise ValueError(
                f"expected maps (N, F, C, H, W) with N log-mels and N videos, got {self.maps.shape}, "
                f"{len(self.log_mels)} and {len(self.videos)}"
            )

    def __len__(self) -> int:
        return len(self.videos)


def split_by_video(
    videos: Sequence[str], share: float, *, at_most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the clips to train on and of those held out; no video stands on both sides.

    Where all clips are of one video they are split one by one: there is nothing else to go by.

    Args:
        videos: N names.
        share: of the clips, about as many are held out; 0 < share < 1.
        at_most: and no more than these, once a first video is in.
        seed: which videos.
    Raises:
        ValueError: too few clips for both sides.
    """
    names = list(dict.fromkeys(videos))
    of_video: dict[str, list[int]] = {name: [] for name in names}
    for index, name in enumerate(videos):
        of_video[name].append(index)
    groups = list(of_video.values()) if len(names) > 1 else [[index] for index in range(len(videos))]
    wanted = max(MIN_HELD_OUT, min(at_most, round(share * len(videos))))
    held: list[int] = []
    for position in np.random.default_rng(seed).permutation(len(groups)):
        group = groups[position]
        # The video that overshoots is taken only where this comes nearer to what is wanted.
        if len(held) < MIN_HELD_OUT or len(held) + len(group) / 2 <= wanted:
            held += group
    held = sorted(held)
    trained = np.setdiff1d(np.arange(len(videos)), held)
    if len(trained) < MIN_TRAINED:
        raise ValueError(
            f"{len(videos)} clips of {len(names)} videos are too few: expected at least {MIN_TRAINED} to train on and "
            f"{MIN_HELD_OUT} of other videos to test on"
        )
    return trained.astype(np.int64), np.array(held, dtype=np.int64)
