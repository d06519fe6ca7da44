"""Which clips train, which validate and which test: as the corpus says, else drawn, a video never on both sides."""

import re
from collections.abc import Mapping, Sequence

from pipeline.provenance import stable_hash

SPLIT_SHARES = {"train": 0.7, "test": 0.2, "valid": 0.1}  # of the clips
SPLIT_SEED = 0
# "<video>_<n>", MMSA's "<video>$_$<n>", CMU's "<video>[<n>]", "<folder>/<n>": ids hold separators themselves, the last
# one counts.
_SEGMENT = re.compile(r"(.+?)(?:\$_\$|[_\-/\[#])[0-9]+\]?")


def video_of(clip_id: str) -> str:
    """What the id says the clip was cut from: what stands before the last separator and a number; else the id."""
    found = _SEGMENT.fullmatch(clip_id)
    return found[1] if found else clip_id


def split_clips(
    clip_ids: Sequence[str], videos: Mapping[str, str], told: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """A split for every clip.

    Videos come in an order that the hash of their name and SPLIT_SEED gives, so that it does not depend on which
    others there are; each goes to the split that is furthest behind its share, the first three to one each.

    Args:
        clip_ids: all of them.
        videos: clip_id -> what it was cut from; clips of one video stay together.
        told: clip_id -> the corpus' own split; a clip that has none follows its video.
    Returns:
        clip_id -> "train", "valid" or "test"; and how that came about, in words.
    """
    groups: dict[str, list[str]] = {}
    for clip_id in clip_ids:
        groups.setdefault(videos[clip_id], []).append(clip_id)
    how = f"drawn by video, seed {SPLIT_SEED}, {len(groups)} videos"
    if len(groups) < len(SPLIT_SHARES):
        groups = {clip_id: [clip_id] for clip_id in clip_ids}
        how = f"drawn by clip, seed {SPLIT_SEED}, as there are fewer than {len(SPLIT_SHARES)} videos"
    splits = {clip_id: told[clip_id] for clip_id in clip_ids if clip_id in told}
    for members in groups.values():
        known = next((told[clip_id] for clip_id in members if clip_id in told), None)
        if known:
            splits |= {clip_id: splits.get(clip_id, known) for clip_id in members}
    drawn = [video for video, members in groups.items() if members[0] not in splits]
    counts = {split: sum(found == split for found in splits.values()) for split in SPLIT_SHARES}
    for video in sorted(drawn, key=lambda video: stable_hash([SPLIT_SEED, video], 64)):
        behind = {split: share * len(clip_ids) - counts[split] for split, share in SPLIT_SHARES.items()}
        empty = [split for split in SPLIT_SHARES if not counts[split]]
        split = empty[0] if empty else max(behind, key=lambda name: behind[name])
        counts[split] += len(groups[video])
        splits |= dict.fromkeys(groups[video], split)
    if told:
        how = "the corpus' own" + (f"; {len(clip_ids) - len(told)} clips without one {how}" if drawn else "")
    return splits, how
