"""Clips to measure the extraction with, made here: a speaking head as a phone or webcam would record it.

The picture is one textured image, bent a little from frame to frame: the head sways, the mouth moves, and every frame
has a sensor's noise of its own, so that x264 makes about as many bits of it as of a real recording. The words are
sentences of the lengths that people speak in film reviews; the voice is the demo corpus'.
"""

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

from extractors.clip import Clip
from pipeline.corpora.synthetic import voice
from pipeline.corpora.synthetic.people import draw_cast
from pipeline.corpora.synthetic.script import syllables
from pipeline.files import write_atomic
from pipeline.hardware import usable_cores

FPS = 30
SOUND_RATE_HZ = 44_100
SIZE = (640, 360)  # width, height
SECONDS = 6.0
LONGEST_GOP = 250  # frames between two keyframes, x264's default: a clip of 6 s has one
SCENES = 12  # pictures that are encoded; more clips share them, each with a voice of its own
NOISE_SD = 3.5  # of the luma, levels
MARKER = ".made.json"
# Sentence lengths as in CMU-MOSI: log-normal, half of them 12 words or fewer.
MEDIAN_WORDS, WORDS_LOG_SD, FEWEST_WORDS, MOST_WORDS = 12, 0.65, 3, 60
_WORDS = (
    "i the a to it was of and that you is in this movie this film really not but like so for he they with as just "
    "have on there because very what one think if all do at be good people when about it's see some some character "
    "characters story acting plot action scene funny great boring love loved hated terrible wonderful disappointing "
    "unbelievable special effects director sequel predictable overacted cinematography definitely recommend watching "
    "theater minutes kind little bit well actually pretty much would could didn't don't never again before"
)


def generated_clips(folder: Path, n: int, *, size: tuple[int, int] = SIZE, seconds: float = SECONDS) -> list[Clip]:
    """A folder corpus of n different clips, 30 fps, H.264 with x264's defaults and 44.1 kHz stereo AAC.

    Twelve pictures are encoded; with more clips several show the same one, each with a voice and words of its own. What
    is in `folder` from other settings is replaced. The same settings give the same pictures, sound and words; the
    files' bytes may differ, as x264's rate control does from run to run.

    Args:
        folder: gets clip_00000.mp4, ... and clips.csv with the columns file and transcript.
        n: clips, >= 1.
        size: width and height, pixels, even.
        seconds: their length; each is up to a tenth shorter or longer.
    Returns:
        The clips in the order of their names; at once where the folder holds them already.
    Raises:
        ValueError: n < 1.
    """
    return _corpus(folder, n, n, SCENES, size, seconds)


def many_clips(folder: Path, n: int) -> list[Clip]:
    """A folder corpus of n tiny clips (128 x 96, 1 s), copies of four: for what grows with the number of clips.

    Args:
        folder, n: see generated_clips.
    Raises:
        ValueError: n < 1.
    """
    return _corpus(folder, n, 4, 4, (128, 96), 1.0)


def _corpus(folder: Path, n: int, n_distinct: int, n_scenes: int, size: tuple[int, int], seconds: float) -> list[Clip]:
    if n < 1:
        raise ValueError(f"expected at least 1 clip, got n={n}")
    paths = [folder / f"clip_{index:05d}.mp4" for index in range(n)]
    transcripts = [_sentence(np.random.default_rng([0, index])) for index in range(n)]
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made = json.dumps([n, n_distinct, n_scenes, size, seconds, code])
    marker = folder / MARKER
    if not marker.is_file() or marker.read_text(encoding="utf-8") != made:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (marker, *folder.glob("clip_*.mp4")):
            stale.unlink(missing_ok=True)
        _write_clips(paths, transcripts[:n_distinct], min(n, n_scenes), size, seconds)
        write_atomic(folder / "clips.csv", _table(paths, transcripts))
        write_atomic(marker, made)
    return [Clip(path.stem, str(path), transcript=words) for path, words in zip(paths, transcripts, strict=True)]


def _write_clips(
    paths: Sequence[Path], transcripts: Sequence[str], n_scenes: int, size: tuple[int, int], seconds: float
) -> None:
    """A clip for each transcript, its picture one of the scenes'; the rest of the paths are copies of these."""
    with TemporaryDirectory() as temporary, ThreadPoolExecutor(math.ceil(usable_cores())) as pool:
        # Threads suffice: OpenCV and x264 let go of Python's lock.
        scenes = [Path(temporary) / f"{index}.mp4" for index in range(n_scenes)]
        list(pool.map(lambda index: _film(scenes[index], index, size, seconds), range(n_scenes)))
        list(pool.map(lambda i: _dub(scenes[i % n_scenes], paths[i], transcripts[i], i), range(len(transcripts))))
    for index in range(len(transcripts), len(paths)):
        shutil.copyfile(paths[index % len(transcripts)], paths[index])


def _table(paths: Sequence[Path], transcripts: Sequence[str]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "transcript"))
    rows.writerows((path.name, transcript) for path, transcript in zip(paths, transcripts, strict=True))
    return text.getvalue()


def _sentence(rng: np.random.Generator) -> str:
    vocabulary = _WORDS.split()
    n_words = round(float(rng.lognormal(np.log(MEDIAN_WORDS), WORDS_LOG_SD)))
    n_words = min(max(n_words, FEWEST_WORDS), MOST_WORDS)
    ranks = np.arange(1, len(vocabulary) + 1)
    frequencies = 1 / (ranks + 5.0)  # Zipf's law, flattened at its top
    words = rng.choice(vocabulary, n_words, p=frequencies / frequencies.sum())
    ends = [", " if rng.random() < 0.1 else " " for _ in words[1:]] + ["."]
    return "".join(word + end for word, end in zip(words, ends, strict=True)).capitalize()


def _film(path: Path, seed: int, size: tuple[int, int], seconds: float) -> None:
    """A scene without sound."""
    rng = np.random.default_rng([1, seed])
    n_frames = max(1, round(FPS * seconds * rng.uniform(0.9, 1.1)))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "medium", "crf": "23"})
        video.width, video.height = size
        video.pix_fmt, video.gop_size = "yuv420p", LONGEST_GOP
        video.codec_context.thread_count = 1
        for index, pixels in enumerate(_pictures(size, n_frames, rng)):
            picture = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))


def _dub(scene: Path, path: Path, transcript: str, seed: int) -> None:
    """A scene's picture, not encoded again, with sound."""
    with av.open(str(scene)) as silent, av.open(str(path), "w") as container:
        filmed = silent.streams.video[0]
        video = container.add_stream_from_template(filmed)
        audio = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
        for packet in silent.demux(filmed):
            if packet.size:  # the last is PyAV's own flush
                packet.stream = video
                container.mux(packet)
        samples = _speech(transcript, filmed.frames / FPS, np.random.default_rng([2, seed]))
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        sound.sample_rate, sound.pts, sound.time_base = SOUND_RATE_HZ, 0, Fraction(1, SOUND_RATE_HZ)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def _speech(transcript: str, seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(2, L) float32 at SOUND_RATE_HZ: the words again and again, as far as they go."""
    style, person = voice.STYLES[str(rng.choice(list(voice.STYLES)))], draw_cast(1, rng)[0]
    n_samples = round(seconds * voice.SAMPLE_RATE_HZ)
    mono = np.empty(0, dtype=np.float32)
    while len(mono) < n_samples:
        mono = np.concatenate([mono, voice.speak(syllables(transcript), style, person, rng).samples])
    sound = resample_poly(mono[:n_samples], SOUND_RATE_HZ, voice.SAMPLE_RATE_HZ)
    gains = rng.uniform(0.7, 1.0, (2, 1))  # who speaks does not sit quite in the middle
    return (gains * sound).astype(np.float32)


def _pictures(size: tuple[int, int], n_frames: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """(H * 3 / 2, W) uint8 each: the planes of yuv420p, one below the other."""
    width, height = size
    image, fields = _portrait(size, rng)
    # How far the head goes to the side and down, pixels, and how it tilts, radians: slow and never quite still.
    sway = gaussian_filter1d(rng.standard_normal((3, n_frames)), 12.0, axis=1)
    mouth = gaussian_filter1d(rng.uniform(-1.5, 1.5, n_frames), 1.5).clip(0, 1)  # half the time shut
    steps = np.vstack([sway * np.array([[0.09 * width], [0.09 * height], [0.18]]), mouth]).T.astype(np.float32)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    noise = (rng.standard_normal((2 * height, 2 * width)) * NOISE_SD).round().astype(np.int16)
    for step in steps:
        dx, dy = sum(amount * field for amount, field in zip(step, fields, strict=True))  # a matrix product is slower
        bent = cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        planes = cv2.cvtColor(bent, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)  # for mypy: it is uint8
        top, left = rng.integers(0, (height + 1, width + 1))
        grain = noise[top : top + height, left : left + width]
        planes[:height] = cv2.add(planes[:height], grain, dtype=cv2.CV_8U)
        yield planes


def _portrait(size: tuple[int, int], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A head before a wall: (H, W, 3) uint8 RGB, and the (4, 2, H, W) fields that bend it.

    A field says, for one pixel more of its movement, how many pixels to the right and below each pixel is fetched from:
    the head to the side, down, tilted by a radian, and the mouth opened.
    """
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    head_x, head_y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.48)
    radius = height * rng.uniform(0.2, 0.27)
    mouth_y = head_y + 0.55 * radius

    def ellipse(x0: float, y0: float, rx: float, ry: float) -> NDArray[np.float64]:
        """1 inside, 0 outside, (H, W, 1), with an edge of two pixels."""
        distance = np.hypot((x - x0) / rx, (y - y0) / ry)
        return np.clip(0.5 + (1 - distance) * min(rx, ry) / 2, 0, 1)[..., None]

    image = _surface(size, rng, contrast=22.0)
    shapes = [
        (head_x, height * 1.15, 2.1 * radius, 0.55 * height - 0.2 * radius, 16.0),  # shoulders
        (head_x, head_y - 0.25 * radius, 0.95 * radius, 1.2 * radius, 20.0),  # hair
        (head_x, head_y, 0.75 * radius, radius, 8.0),  # face
        (head_x - 0.3 * radius, head_y - 0.15 * radius, 0.13 * radius, 0.07 * radius, 10.0),  # eyes
        (head_x + 0.3 * radius, head_y - 0.15 * radius, 0.13 * radius, 0.07 * radius, 10.0),
        (head_x, mouth_y, 0.28 * radius, 0.07 * radius, 6.0),
    ]
    for *place, contrast in shapes:
        inside = ellipse(*place)
        image = image * (1 - inside) + _surface(size, rng, contrast) * inside
    head = np.exp(-0.5 * (np.hypot(x - head_x, y - head_y) / (1.1 * radius)) ** 4)
    mouth = np.exp(-0.5 * (np.hypot(x - head_x, (y - mouth_y) * 1.3) / (0.35 * radius)) ** 2)
    still = np.zeros_like(head)
    fields = np.array(
        [
            (-head, still),
            (still, -head),
            (head * (y - head_y), -head * (x - head_x)),
            (still, -0.7 * mouth * (y - mouth_y)),  # what was 0.3 pixels from the lips' middle is now one pixel away
        ]
    )
    fields = np.where(np.abs(fields) < 1e-4, 0.0, fields)  # denormal numbers would take several times as long
    return image.round().clip(0, 255).astype(np.uint8), fields.astype(np.float32)


def _surface(size: tuple[int, int], rng: np.random.Generator, contrast: float) -> NDArray[np.float64]:
    """(H, W, 3): a colour with a grain that is strong in the coarse and weak in the fine, as natural pictures are."""
    surface = np.tile(rng.uniform(60, 190) + rng.uniform(-25, 25, 3), (size[1], size[0], 1))
    for cell, share in ((64, 1.0), (16, 0.5), (4, 0.25), (2, 0.15)):  # pixels
        coarse = rng.standard_normal((size[1] // cell + 2, size[0] // cell + 2))
        surface += contrast * share * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[..., None]
    return surface
