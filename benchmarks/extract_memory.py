"""How much memory `extract` holds: few clips, many, and one file of two hours. Each in a process of its own."""

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.data import ROOT
from benchmarks.extract_clips import many_clips

HOURS = 2
_SECONDS = 10  # of picture and sound that are encoded, and then repeated packet by packet
_RATE_HZ, _FPS = 16_000, 25
# `python -m pipeline`, with the kernel's own record of the most it held. What a parent is told of its child's maximum
# counts the parent's memory at the moment of the fork.
_TOLD_AT_END = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write(open("/proc/self/status").read()))
runpy.run_module("pipeline", run_name="__main__")
"""


def memory(work: Path, n_few: int = 64, n_many: int = 2000) -> dict[str, Any]:
    """Peak resident GB of `extract` with VGG16, BERT and DAVEnet, one frame a clip; of the film one every 10 s."""
    many_clips(work / f"few_{n_few}", n_few)
    many_clips(work / f"many_{n_many}", n_many)
    two_hours(work / "two_hours" / "long.mkv")
    few = _peak_gb(work / f"few_{n_few}", "extract.visual.frames_per_clip=1")
    many = _peak_gb(work / f"many_{n_many}", "extract.visual.frames_per_clip=1")
    long = _peak_gb(work / "two_hours", "extract.visual.frames_per_clip=null", "extract.visual.fps=0.1")
    return {
        "few_clips": n_few,
        "few_gb": few,
        "many_clips": n_many,
        "many_gb": many,
        "growth_gb": round(many - few, 3),
        "two_hours_gb": long,
    }


def _peak_gb(corpus: Path, *overrides: str) -> float:
    """Of the process that embeds a folder corpus anew."""
    settings = [
        f"workdir={corpus.parent / 'memory_work' / corpus.name}",
        "corpus.kind=folder",
        *(f"extract.{modality}.weights=random" for modality in ("visual", "text", "audio")),
        *overrides,
    ]
    if (corpus / "clips.csv").exists():
        columns = {"table": "clips.csv", "file_column": "file", "transcript_column": "transcript"}
        settings += [f"corpus.{name}={value}" for name, value in columns.items()]
    workdir = Path(settings[0].removeprefix("workdir="))
    subprocess.run(["rm", "-rf", str(workdir)], check=True)  # noqa: S603, S607
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-c", _TOLD_AT_END, "extract", "--clips", str(corpus), *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}: {run.stderr[-2000:]}")
    return round(int(re.findall(r"^VmHWM:\s+(\d+) kB$", run.stderr, re.MULTILINE)[-1]) * 1024 / 1e9, 3)


def two_hours(path: Path) -> Path:
    """A film of two hours, 640 x 360: ten seconds of picture and sound again and again, with words beside it."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".txt").write_text("two hours of the same, and then some more of it", encoding="utf-8")
    temporary = path.with_name(f"unfinished{path.suffix}")
    with av.open(str(temporary), "w") as container:
        video = container.add_stream("libx264", rate=_FPS, options={"preset": "ultrafast", "g": "50", "bf": "0"})
        video.width, video.height, video.pix_fmt, video.time_base = 640, 360, "yuv420p", Fraction(1, _FPS)
        audio = container.add_stream("aac", rate=_RATE_HZ, layout="mono")
        pictures = [packet for frame in _pictures() for packet in video.encode(frame)] + list(video.encode())
        sound = [packet for frame in _sound() for packet in audio.encode(frame)]
        for repeat in range(HOURS * 3600 // _SECONDS):
            for stream, packets, span in ((video, pictures, _FPS * _SECONDS), (audio, sound, 1024 * len(sound))):
                for packet in packets:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts = (int(stamp or 0) + repeat * span for stamp in (packet.pts, packet.dts))
                    copy.time_base, copy.stream, copy.is_keyframe = packet.time_base, stream, packet.is_keyframe
                    container.mux(copy)
    return temporary.rename(path)


def _pictures() -> list[av.VideoFrame]:
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 255, (60, 100, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = []
    for index in range(_FPS * _SECONDS):
        shift = int(60 + 50 * np.sin(2 * np.pi * index / (_FPS * _SECONDS)))
        frame = av.VideoFrame.from_ndarray(texture[:360, shift : shift + 640], format="rgb24")
        frame.pts = index
        frames.append(frame)
    return frames


def _sound() -> list[av.AudioFrame]:
    seconds = np.arange(_RATE_HZ * _SECONDS) / _RATE_HZ
    samples = (0.3 * np.sin(2 * np.pi * 180 * seconds) * np.sin(2 * np.pi * 2 * seconds)).astype(np.float32)
    frames = []
    for start in range(0, len(samples) - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = _RATE_HZ, start
        frames.append(frame)
    return frames
