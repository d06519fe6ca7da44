"""A corpus of clips good and bad, small encoders, and first steps that hang and crash, for extraction on Ray.

What is sent to a worker is found there by its module's name, so it stands apart from the tests.
"""

import os
import signal
import time
from pathlib import Path

from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from media_factory import write_clip

from extractors.audio_logmel_stats import TracksPreparer
from extractors.base import Prepared
from extractors.text_bert import TokenPreparer

HANGS, CRASHES = "clip_03", "clip_05"
SMALL = (*SMALL_ENCODERS, "extract.audio.backbone=audio/logmel_stats", "extract.audio.weights=self")


class Faulty(TracksPreparer):
    """Stands for a decoder with bugs: it hangs on one clip, and its process ends in the middle of another."""

    def prepare(self, clip, media) -> Prepared:
        if clip.clip_id == HANGS:
            time.sleep(600)
        if clip.clip_id == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().prepare(clip, media)


class DeadlyTokens(TokenPreparer):
    """A first step of words that ends the process that encodes, every time."""

    def prepare(self, clip, media) -> Prepared:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")


def write_mixed_corpus(root: Path, n_clips: int) -> Path:
    """Good clips, and one each that is empty, cut off, without sound, and without words."""
    write_folder_corpus(root, n_clips)
    (root / "clip_01.mp4").write_bytes(b"")
    whole = write_clip(root / "cut.mp4", duration_s=1).read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_clip(root / "silent.mp4", audio_codec=None)
    for name in ("cut", "silent"):
        (root / f"{name}.txt").write_text(f"so it is {name}")
    (root / "clip_02.txt").unlink()
    return root
