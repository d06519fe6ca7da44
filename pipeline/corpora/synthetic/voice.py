"""A synthesised voice: glottal pulses and breath through moving formants, with the syllables of the transcript.

Source-filter synthesis (Fant 1960). The source is a train of glottal pulses plus noise; the filter, the resonances of
the mouth, is applied to its short-time spectrum. What comes out is babble in the rhythm and with the vowels of the
sentence, not intelligible speech; pitch, loudness, rate and timbre follow the style.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import istft, stft

from pipeline.corpora.synthetic.people import Person
from pipeline.corpora.synthetic.script import Syllable

SAMPLE_RATE_HZ = 16_000
STEP = 80  # samples between two values of a control track: 5 ms
SHORTEST_S, LONGEST_S = 2.1, 2.9
_TAIL_S = 0.2  # of room after the last word
_WINDOW, _N_FFT = 400, 512
_STEP_S = STEP / SAMPLE_RATE_HZ
_BINS_HZ = np.fft.rfftfreq(_N_FFT, 1 / SAMPLE_RATE_HZ)
# How slowly each control moves: the sigma of a Gaussian, in steps.
_SMOOTHING = {
    "voicing": 2.0,
    "hiss": 1.5,
    "hiss_hz": 1.0,
    "opening": 4.0,
    "accent": 9.0,
    "breath_in": 5.0,
    "formants_hz": 4.0,
}

Track = NDArray[np.float64]  # (n_steps,)

# F1, F2, F3 in Hz of the long vocal tract, and how wide the mouth opens (0..1).
_VOWELS: dict[str, tuple[float, float, float, float]] = {
    "a": (730, 1250, 2500, 1.0),
    "e": (530, 1800, 2500, 0.65),
    "i": (330, 2200, 2900, 0.4),
    "o": (500, 950, 2450, 0.7),
    "u": (350, 850, 2300, 0.35),
    "y": (310, 2100, 2800, 0.35),
}
# Kind of consonant by letter: hiss (centre in Hz), stop (centre of the burst), hum; the rest glide.
_HISSES = {"s": 5500, "z": 5200, "f": 4200, "v": 3500, "h": 1800, "c": 5000, "x": 5000}
_STOPS = {"t": 4200, "d": 3600, "k": 2200, "g": 2000, "p": 1000, "b": 900, "q": 2000, "j": 3500}
_HUMS = ("m", "n")


@dataclass(frozen=True, slots=True)
class VoiceStyle:
    """How a sentence is said.

    Attributes:
        pitch_st: above the person's resting pitch, semitones.
        range_st: how far the melody moves, semitones.
        syllables_per_s: the rate between pauses.
        pause_s: the length of a pause at a comma.
        level_db: loudness, decibels below full scale (RMS of the speech).
        tilt_db_per_octave: how fast the voice's spectrum falls above 500 Hz; small is a pressed, bright voice.
        breath: share of breath noise in the voice, 0..1.
    """

    pitch_st: float
    range_st: float
    syllables_per_s: float
    pause_s: float
    level_db: float
    tilt_db_per_octave: float
    breath: float


STYLES: dict[str, VoiceStyle] = {
    "charged": VoiceStyle(6.5, 5.0, 6.0, 0.08, -10, -2.0, 0.02),
    "lively": VoiceStyle(2.5, 4.0, 4.8, 0.20, -19, 4.0, 0.05),
    "level": VoiceStyle(0.0, 1.0, 4.3, 0.20, -27, 10.0, 0.05),
    "subdued": VoiceStyle(-2.0, 1.2, 3.2, 0.40, -34, 13.0, 0.6),
}


@dataclass(frozen=True, slots=True)
class Speech:
    """A spoken clip.

    Attributes:
        samples: (L,) float32 in -1..1 at SAMPLE_RATE_HZ.
        opening: (L // STEP + 1,) how wide the mouth stands open, 0..1, every STEP samples.
    """

    samples: NDArray[np.float32]
    opening: Track


def speak(said: list[Syllable], style: VoiceStyle, person: Person, rng: np.random.Generator) -> Speech:
    """Say the syllables in SHORTEST_S to LONGEST_S; those that do not fit are left out.

    Args:
        said: of the transcript.
        style: the cue; varied a little from clip to clip.
        person: pitch and length of the vocal tract.
        rng: the clip's own.
    """
    style = _varied(style, rng)
    tracks = _Tracks(person.formant_scale)
    tracks.lay_out(said, style, rng)
    pitch_hz = _melody(tracks, style, person.pitch_hz, rng)
    length = (tracks.n_steps - 1) * STEP
    voiced = _filtered(_glottal_pulses(pitch_hz, length, rng), tracks.voice_gain(style), tracks.voicing)
    noise = rng.standard_normal(length)
    breath = _filtered(noise, tracks.voice_gain(style, tilt=False), tracks.voicing + tracks.breath_in)
    hiss = _filtered(noise, tracks.hiss_gain(), tracks.hiss)
    speech = _unit_rms(voiced) + style.breath * _unit_rms(breath) + 0.25 * _unit_rms(hiss)
    speech *= 10 ** (style.level_db / 20) / max(_rms(speech), 1e-9)
    samples = np.tanh(speech + _room_noise(length, rng)).astype(np.float32)
    return Speech(samples, np.clip(tracks.opening, 0, 1))


class _Tracks:
    """The controls over time, one value every STEP samples."""

    def __init__(self, formant_scale: float) -> None:
        self.n_steps = round(LONGEST_S / _STEP_S) + 1
        self.formant_scale = formant_scale
        self.formants_hz = np.tile(np.array([500.0, 1500.0, 2500.0]), (self.n_steps, 1))
        self.voicing, self.hiss, self.opening, self.accent, self.breath_in = np.zeros((5, self.n_steps))
        self.hiss_hz = np.full(self.n_steps, 4000.0)

    def lay_out(self, said: list[Syllable], style: VoiceStyle, rng: np.random.Generator) -> None:
        """Place the syllables one after another, end soon after the last, and smooth it all, as a tongue would."""
        at = end = round(rng.uniform(0.14, 0.22) / _STEP_S)
        self.breath_in[max(0, at - 22) : at - 4] = 0.35
        for syllable in said:
            length = round(rng.uniform(0.85, 1.2) / style.syllables_per_s / _STEP_S)
            if at + length > self.n_steps - round(_TAIL_S / _STEP_S):
                break
            self._place(syllable, at, length, rng)
            at = end = at + length
            if syllable.ends_phrase:
                at += round(style.pause_s * rng.uniform(0.8, 1.2) / _STEP_S)
        shortest = round(SHORTEST_S / _STEP_S) + 1
        self.n_steps = min(self.n_steps, max(shortest, end + round(_TAIL_S / _STEP_S)))
        for name, width in _SMOOTHING.items():
            setattr(self, name, gaussian_filter1d(getattr(self, name)[: self.n_steps], width, axis=0))
        self.formants_hz *= self.formant_scale

    def _place(self, syllable: Syllable, at: int, length: int, rng: np.random.Generator) -> None:
        onset, end = at + max(3, round(0.28 * length)), at + length
        *formants, opening = _VOWELS[syllable.vowel]
        self.formants_hz[at : end + 8] = formants
        self.voicing[onset:end] = rng.uniform(0.75, 1.0)
        self.opening[onset : end - 2] = opening
        self.accent[onset:end] = rng.uniform(-1, 1)
        letter = syllable.consonant
        if letter in _HISSES:
            self.hiss[at:onset], self.hiss_hz[at:onset] = 0.8, _HISSES[letter]
        elif letter in _STOPS:
            self.hiss[onset - 2 : onset], self.hiss_hz[at:onset] = 1.6, _STOPS[letter]
        else:
            self.voicing[at:onset] = 0.35 if letter in _HUMS else 0.6
            self.formants_hz[at:onset] = (260, 1200, 2200) if letter in _HUMS else (380, 1300, 2300)

    def voice_gain(self, style: VoiceStyle, tilt: bool = True) -> NDArray[np.float64]:
        """(n_bins, n_steps): the resonances of the mouth and the tilt of the voice."""
        gain = np.ones((len(_BINS_HZ), self.n_steps))
        upper = np.full((self.n_steps, 1), 3500.0 * self.formant_scale)
        for centre, bandwidth in zip(np.hstack([self.formants_hz, upper]).T, (80, 110, 160, 250), strict=True):
            ratio = _BINS_HZ[:, None] / centre
            gain *= 1 / np.hypot(1 - ratio**2, ratio * bandwidth / centre) ** 0.8
            gain *= np.maximum(1, ratio) ** 0.8  # keep some of what is above each resonance
        if tilt:
            octaves = np.log2(np.maximum(_BINS_HZ, 500) / 500)
            gain *= 10 ** (-style.tilt_db_per_octave * octaves / 20)[:, None]
        return gain

    def hiss_gain(self) -> NDArray[np.float64]:
        octaves = np.log2(np.maximum(_BINS_HZ, 50)[:, None] / self.hiss_hz)
        return np.exp(-((octaves / 0.6) ** 2))


def _varied(style: VoiceStyle, rng: np.random.Generator) -> VoiceStyle:
    return VoiceStyle(
        pitch_st=style.pitch_st + rng.normal(0, 0.6),
        range_st=style.range_st * rng.uniform(0.85, 1.15),
        syllables_per_s=style.syllables_per_s * rng.uniform(0.93, 1.07),
        pause_s=style.pause_s,
        level_db=style.level_db + rng.normal(0, 1.2),
        tilt_db_per_octave=style.tilt_db_per_octave + rng.normal(0, 0.6),
        breath=style.breath * rng.uniform(0.8, 1.25),
    )


def _melody(tracks: _Tracks, style: VoiceStyle, resting_hz: float, rng: np.random.Generator) -> Track:
    """Pitch in Hz: falls over the sentence, rises on accents, wavers a little."""
    fall = np.linspace(0.5, -0.5, tracks.n_steps)
    waver = gaussian_filter1d(rng.standard_normal(tracks.n_steps), 6.0)
    semitones = style.pitch_st + style.range_st * (0.6 * fall + tracks.accent) + 0.5 * waver
    return resting_hz * 2 ** (semitones / 12)


def _glottal_pulses(pitch_hz: Track, length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(length,) the flow through the vocal folds, differentiated (Rosenberg 1971, type B); pulses jitter by 1 %."""
    pitch = np.interp(np.arange(length), np.arange(len(pitch_hz)) * STEP, pitch_hz)
    jitter = gaussian_filter1d(rng.standard_normal(length), 60) * 8 * 0.01
    phase = np.cumsum(pitch * (1 + jitter) / SAMPLE_RATE_HZ) % 1.0
    open_share = 0.6
    opening = phase / open_share
    flow = np.where(
        phase < open_share, 3 * opening**2 - 2 * opening**3 - (opening > 0.66) * 9 * (opening - 0.66) ** 2, 0
    )
    return np.diff(np.maximum(flow, 0), prepend=0.0)


def _filtered(source: NDArray[np.float64], gain: NDArray[np.float64], amplitude: Track) -> NDArray[np.float64]:
    """`source` (L,) through a spectral gain (n_bins, n_steps) that changes every STEP samples."""
    _, _, spectrum = stft(source, nperseg=_WINDOW, noverlap=_WINDOW - STEP, nfft=_N_FFT)
    steps = np.minimum(np.arange(spectrum.shape[1]), gain.shape[1] - 1)
    spectrum = spectrum * (gain[:, steps] * amplitude[steps])
    _, out = istft(spectrum, nperseg=_WINDOW, noverlap=_WINDOW - STEP, nfft=_N_FFT)
    return out[: len(source)]


def _room_noise(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(length,) a quiet room: noise that falls by 3 dB an octave, 56 to 50 dB below full scale."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.sqrt(np.arange(len(spectrum)) + 20.0)
    return _unit_rms(np.fft.irfft(spectrum, length)) * 10 ** (rng.uniform(-56, -50) / 20)


def _rms(signal: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(signal**2)))


def _unit_rms(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    return signal / max(_rms(signal), 1e-9)
