"""Damaged media files, read as `extract` reads them: each can be embedded, or has a cause in words.

`python -m benchmarks.fuzz_media --n 1000 --seed 0` prints counts as JSON and exits with 1 where anything else came of a
file. A file is known by seed and number, which make the same damage again; `--keep DIR` writes those worth a look.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np

from benchmarks.mutations import BYTES, Random, damage, edge_at, what_is_wrong_with
from extractors.base import Prepared, Preparer
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_preparer import FramePreparer
from extractors.frame_sampling import FrameSampling
from extractors.log_mel_preparer import LogMelPreparer
from extractors.preparing import Outcome, prepare_clip
from extractors.visual_vgg16 import PREPROCESSING
from pipeline.config import ExtractSettings
from pipeline.readers import Readers

TIME_LIMIT_S, MEMORY_GB = 20.0, 4.0  # to read one file
STOPPED = {"crashed", "timeout"}  # its reader, not the run; told apart
OF_THE_MACHINE = {*STOPPED, "out_of_memory"}  # may be so once and not again
FILES_AT_ONCE = 64
FPS, SOUND_RATE_HZ, SECONDS = 25, 48_000, 1.2
# suffix -> codecs of picture and sound, where there are any
FORMATS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "pcm_s16le"),
    ".mkv": ("libx264", "flac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".avi": ("mpeg4", "libmp3lame"),
    ".mpg": ("mpeg1video", "mp2"),
    ".flv": ("flv", "libmp3lame"),
    ".wmv": ("wmv2", "wmav2"),
    ".wav": (None, "pcm_s16le"),
}
# What stands before sizes, durations, rates and counts in these containers and codecs.
FIELDS = (
    *(b"ftyp", b"moov", b"mvhd", b"tkhd", b"mdhd", b"elst", b"avc1", b"avcC", b"mp4a", b"esds", b"stsd", b"stts"),
    *(b"ctts", b"stss", b"stsc", b"stsz", b"stco", b"mdat"),
    *(b"\x1a\x45\xdf\xa3", b"\x44\x89", b"\x2a\xd7\xb1", b"\x16\x54\xae\x6b", b"\xb0\x81", b"\xba\x81", b"\xb5\x88"),
    *(b"\x63\xa2", b"\x1f\x43\xb6\x75", b"\xa3", b"OpusHead"),
    *(b"RIFF", b"avih", b"strh", b"strf", b"idx1", b"00dc", b"01wb", b"fmt ", b"data"),
    *(b"\x00\x00\x01\xb3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb5", b"\x00\x00\x01\xc0", b"\x00\x00\x01\xe0"),
    *(b"FLV", b"onMetaData", b"duration", b"width", b"\x30\x26\xb2\x75", b"\xa1\xdc\xab\x8c", b"\x91\x07\xdc\xb7"),
)
PREPARERS: dict[str, Preparer] = {
    "visual": FramePreparer(PREPROCESSING, FrameSampling(count=4), "centre"),
    "audio": LogMelPreparer(),
}


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that was made, how, and what is read of it."""

    number: int
    how: str
    clip: Clip

    @property
    def told(self) -> dict[str, Any]:
        return {"number": self.number, "how": self.how, "span_s": [self.clip.start_s, self.clip.end_s]}


def fuzz_media(n: int, seed: int, *, keep: Path | None = None) -> dict[str, Any]:
    """Damages small clips of every format and reads each of them twice.

    Args:
        n: files.
        keep: gets the files that were violations, or that their reader did not survive.
    Returns:
        {"files", "outcomes": modality -> "embeddable" or cause -> files, "survived": those that crashed their reader
        or ran out of its time, "violations": those that must not be, "seconds"}.
    """
    started = time.monotonic()
    outcomes: dict[str, Counter[str]] = {modality: Counter() for modality in PREPARERS}
    survived: list[dict[str, Any]] = []
    violations: list[dict[str, Any]] = []
    settings = ExtractSettings(clip_time_limit_s=TIME_LIMIT_S, clip_memory_gb=MEMORY_GB)
    with TemporaryDirectory() as temporary, Readers(settings) as readers:
        folder = Path(temporary)
        readers.start()
        originals = [write_clip(folder / f"original{suffix}").read_bytes() for suffix in FORMATS]
        for first in range(0, n, FILES_AT_ONCE):
            files = [damaged_file(folder, originals, seed, i) for i in range(first, min(n, first + FILES_AT_ONCE))]
            reads = readers.map(prepare_clip, [f.clip for f in files] * 2, [PREPARERS] * (2 * len(files)))
            results = [_by_modality(read) for read in reads]
            for file, once, again in zip(files, results, results[len(files) :], strict=False):
                for modality, outcome in once.items():
                    outcomes[modality][_name(outcome)] += 1
                wrong = wrong_with(once) or wrong_with(again) or differs(once, again)
                lost = {_name(outcome) for outcome in (*once.values(), *again.values())} & STOPPED
                if wrong:
                    violations.append({**file.told, "wrong": wrong})
                if lost:
                    survived.append({**file.told, "outcome": ", ".join(sorted(lost))})
                path = Path(file.clip.media_path)
                if keep and (wrong or lost):
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"seed{seed}_{path.name}").write_bytes(path.read_bytes())
                path.unlink()
    return {
        "files": n,
        "seed": seed,
        "outcomes": {modality: dict(counts.most_common()) for modality, counts in outcomes.items()},
        "survived": survived,
        "violations": violations,
        "seconds": round(time.monotonic() - started, 1),
    }


def write_clip(path: Path) -> Path:
    """A second of moving stripes and a tone, in the format of the suffix; the same bytes each time."""
    picture, sound = FORMATS[path.suffix]
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        video: Any = container.add_stream(picture, rate=FPS) if picture else None
        audio: Any = container.add_stream(sound, rate=SOUND_RATE_HZ, layout="mono")
        audio.bit_rate = 64_000
        if video:
            video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 10
            video.codec_context.thread_count = 1
            video.options = {"preset": "ultrafast", "deadline": "realtime", "cpu-used": "8"}
        for i in range(round(SECONDS * FPS)):
            if video:
                stripes = (np.arange(64) * 4 + 8 * i) % 256
                frame = av.VideoFrame.from_ndarray(np.tile(stripes.astype(np.uint8)[:, None], (48, 1, 3)), "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                container.mux(video.encode(frame))
            n_samples = SOUND_RATE_HZ // FPS
            t = (i * n_samples + np.arange(n_samples)) / SOUND_RATE_HZ
            samples = 0.3 * np.sin(2 * np.pi * 330 * t)[None].astype(np.float32)
            tone = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            tone.sample_rate, tone.pts, tone.time_base = SOUND_RATE_HZ, i * n_samples, Fraction(1, SOUND_RATE_HZ)
            container.mux(audio.encode(tone))
        for stream in (video, audio):
            if stream:
                container.mux(stream.encode(None))
    return path


def damaged_file(folder: Path, originals: Sequence[bytes], seed: int, number: int) -> Damaged:
    """The file of this seed and number, written to the folder; a third of them are read in part."""
    rng = np.random.default_rng([seed, number])
    suffixes = list(FORMATS)
    of = int(rng.integers(len(originals)))
    way = WAYS[rng.integers(len(WAYS))]
    content = way(originals, of, rng)
    renamed = way is renamed_format or rng.random() < 0.1
    suffix = suffixes[rng.integers(len(suffixes))] if renamed else suffixes[of]
    path = folder / f"{number:06d}{suffix}"
    path.write_bytes(content)
    start_s = float(rng.uniform(0, SECONDS)) if rng.random() < 0.3 else 0.0
    end_s = start_s + float(rng.uniform(0.01, SECONDS)) if rng.random() < 0.3 else None
    how = f"{suffixes[of]}: {way.__name__.removeprefix('_')}" + (f", named {suffix}" if renamed else "")
    return Damaged(number, how, Clip(path.stem, str(path), start_s, end_s))


def damaged_bytes(originals: Sequence[bytes], of: int, rng: Random) -> bytes:
    return damage(originals[of], rng, BYTES)


def edited_field(originals: Sequence[bytes], of: int, rng: Random) -> bytes:
    """A size, a duration, a rate, a count at the edge of its type: one to four of them."""
    content = originals[of]
    there = [field for field in FIELDS if field in content]
    for _ in range(rng.integers(1, 5)):
        field = there[rng.integers(len(there))]
        places = [i for i in range(len(content)) if content.startswith(field, i)]
        if places:
            after = places[rng.integers(len(places))] + len(field) + int(rng.integers(-4, 48))
            content = edge_at(content, min(max(0, after), len(content) - 1), rng)
    return content


def joined_formats(originals: Sequence[bytes], of: int, rng: Random) -> bytes:
    """One format after the other, whole."""
    return originals[of] + _any(originals, rng)


def spliced_formats(originals: Sequence[bytes], of: int, rng: Random) -> bytes:
    """The beginning of one format and the rest of another."""
    content, other = originals[of], _any(originals, rng)
    return content[: rng.integers(1, len(content))] + other[rng.integers(len(other)) :]


def _any(originals: Sequence[bytes], rng: Random) -> bytes:
    return originals[int(rng.integers(len(originals)))]


def renamed_format(originals: Sequence[bytes], of: int, rng: Random) -> bytes:
    """As it was, under another suffix."""
    return originals[of]


Way = Callable[[Sequence[bytes], int, Random], bytes]
WAYS: tuple[Way, ...] = (
    *(damaged_bytes, damaged_bytes, damaged_bytes, edited_field, edited_field),
    *(joined_formats, spliced_formats, renamed_format),
)


def wrong_with(outcome: Outcome) -> str | None:
    """Why this is no answer for a person."""
    for modality, one in outcome.items():
        if isinstance(one, ExtractionError):
            wrong = "its cause is unexpected" if one.cause == "unexpected" else what_is_wrong_with(one.message)
            if wrong:
                return f"{modality}: {wrong}: {one.message}"
    return None


def differs(once: Outcome, again: Outcome) -> str | None:
    """Whether two readings of one file say different things; where a reader was stopped there is nothing to compare."""
    for modality, one in once.items():
        other = again[modality]
        if isinstance(one, Prepared) and isinstance(other, Prepared):
            same = np.array_equal(one.inputs, other.inputs)
        elif isinstance(one, ExtractionError) and isinstance(other, ExtractionError):
            same = one.cause == other.cause
        else:
            same = False
        if not same and not {_name(one), _name(other)} & OF_THE_MACHINE:
            return f"{modality}: read twice it gives {_name(one)}, then {_name(other)}, and not the same"
    return None


def _by_modality(read: "Outcome | ExtractionError") -> Outcome:
    return dict.fromkeys(PREPARERS, read) if isinstance(read, ExtractionError) else read


def _name(outcome: Prepared | ExtractionError) -> str:
    return outcome.cause if isinstance(outcome, ExtractionError) else "embeddable"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_media", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the files that are worth a look there")
    options = parser.parse_args(arguments)
    found = fuzz_media(options.n, options.seed, keep=options.keep)
    print(json.dumps(found, indent=2))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
