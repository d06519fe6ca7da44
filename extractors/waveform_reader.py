"""Sound of a clip: one mono waveform at the rate asked for, cut to the clip by the sample. PyAV and NumPy."""

from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.stream_reader import StreamReader

MAX_AUDIO_S = 4 * 3600.0  # one clip
# Timestamps of neighbouring audio frames wander by a few ms. A jump within these bounds is a hole in the stream, to be
# filled with silence; a longer one is a broken clock, and the sound goes on as if there were none.
HOLE_S = (0.1, 10.0)
# Decoded beyond end_s, so that the resampler's filter does not meet silence at the cut.
MARGIN_S = 0.05
SETTLING_FRAMES = 3  # dropped after a seek
BLOCK_S = 1.0  # resampled at once: codec frames are 20 ms, and each call costs as much as a block
# The array grows in place, so that an hour's samples are in memory once, not twice: by a quarter, within these bounds.
GROWTH_S = (4.0, 60.0)


class WaveformReader(StreamReader):
    """Down-mixes and resamples, holding only the clip's own samples.

    Args:
        clip, sought: see StreamReader.
        sample_rate_hz: of the waveform.

    Attributes:
        samples: (L,) float32 mono, up to the last one decoded or end_s; sample 0 is at start_s, holes are silent; once
            finished.
    """

    kind = "audio"

    def __init__(self, clip: Clip, sought: bool, sample_rate_hz: int) -> None:
        super().__init__(clip, sought)
        self.sample_rate_hz = sample_rate_hz
        self.samples: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._n_wanted: int | None = None
        if clip.end_s is not None:
            self._n_wanted = max(1, round((clip.end_s - clip.start_s) * sample_rate_hz))
        self._n_samples = 0  # of `samples`, so far
        self._position = 0  # index of the next sample to come; 0 is start_s
        self._resampler: av.AudioResampler | None = None
        self._block: list[NDArray[Any]] = []  # of one layout: decoded, not yet mixed and resampled
        self._layout: tuple[bool, int] = (True, 1)  # of the block: whether channels lie apart, and how many they are
        self._n_in_block = 0
        self._source_rate_hz = 0
        self._n_settling = SETTLING_FRAMES

    def _prepare(self, container: InputContainer) -> None:
        """Nothing: any sound can be mixed and resampled."""

    def _is_sound(self, frame: Any) -> bool:
        # The first ones were cut through, lack what their codec overlaps with, or carry their neighbour's time.
        self._n_settling -= 1
        return self._n_settling < 0

    def _take(self, frame: Any, time_s: float) -> None:
        if self._resampler is None or HOLE_S[0] < time_s - self._until_s < HOLE_S[1]:
            self._until_s = time_s
            self._start_run(frame.sample_rate)
        elif frame.sample_rate != self._source_rate_hz:
            self._start_run(frame.sample_rate)
        self._until_s += frame.samples / frame.sample_rate
        layout = (frame.format.is_planar, frame.layout.nb_channels)
        samples = frame.to_ndarray()  # (C, n), or (1, n * C) interleaved
        if self._block and (layout != self._layout or samples.dtype != self._block[0].dtype):
            self._resample_block()
        self._layout = layout
        self._block.append(samples)
        self._n_in_block += frame.samples
        if self._n_in_block >= BLOCK_S * self._source_rate_hz:
            self._resample_block()
        if self.clip.end_s is not None:
            self.done |= self._until_s > self.clip.end_s + MARGIN_S

    def _start_run(self, source_rate_hz: int) -> None:
        """Begins an unbroken run of samples: at the first frame, after a hole, where the sample rate changes."""
        position = round((self._until_s - self.clip.start_s) * self.sample_rate_hz)
        if self._resampler is None:
            self._position = position
        else:
            self._resample_rest()
            self._position = max(self._position, position)
        self._source_rate_hz = source_rate_hz
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=self.sample_rate_hz)

    def _resample_block(self) -> None:
        if not self._block:
            return
        mixed = _mono(np.concatenate(self._block, axis=1), *self._layout)
        mono = av.AudioFrame.from_ndarray(mixed[None], format="fltp", layout="mono")
        mono.sample_rate = self._source_rate_hz
        self._block, self._n_in_block = [], 0
        self._append(mono)

    def _resample_rest(self) -> None:
        self._resample_block()
        self._append(None)

    def _append(self, frame: av.AudioFrame | None) -> None:
        """Resamples; None brings out the resampler's tail."""
        if self._resampler is None:
            return
        for resampled in self._resampler.resample(frame):
            samples = resampled.to_ndarray()[0]
            first, self._position = self._position, self._position + len(samples)
            samples = samples[max(0, -first) :]
            first = max(0, first)
            if self._n_wanted is not None:
                samples = samples[: max(0, self._n_wanted - first)]
            if len(samples):
                self._write(first, samples)
        if self._position > MAX_AUDIO_S * self.sample_rate_hz:
            raise self._error(
                "out_of_memory", f"more than {MAX_AUDIO_S / 3600:g} h of audio; cut the clip with start_s and end_s"
            )

    def _write(self, first: int, samples: NDArray[np.float32]) -> None:
        """Puts samples where they belong; what was left out before them is silent."""
        if not np.isfinite(samples).all():
            raise self._error("not_finite", "its audio holds NaN or infinite samples; re-encode it")
        self._n_samples = first + len(samples)
        if self._n_samples > len(self.samples):
            least, most = (round(bound_s * self.sample_rate_hz) for bound_s in GROWTH_S)
            growth = min(max(len(self.samples) // 4, least), most)
            self.samples.resize(self._n_samples + growth, refcheck=False)
        self.samples[first : self._n_samples] = samples

    def _finish(self) -> None:
        self._resample_rest()
        if not self._n_samples:
            raise self._nothing_kept()
        self.samples.resize(self._n_samples, refcheck=False)


def _mono(samples: NDArray[Any], is_planar: bool, n_channels: int) -> NDArray[np.float32]:
    """The mean of the channels, (n,) in [-1, 1], of (C, n) samples, or (1, n * C) interleaved.

    libswresample's own down-mix is not the mean: it scales stereo by 0.707 a channel, and surround by its matrix.
    """
    if not is_planar:
        samples = samples.reshape(-1, n_channels).T
    mono = samples.mean(axis=0, dtype=np.float64)
    if samples.dtype.kind == "u":
        mono -= 128.0
    if samples.dtype.kind in "iu":
        mono /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    return mono.astype(np.float32)
