"""DAVEnet: its front end against a slow one in plain NumPy, its network against one written with 1-d convolutions."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from extractors.audio_davenet import DAVEnet, DAVEnetExtractor, load_davenet, padded_frames
from extractors.clip import Clip
from extractors.logmel import log_mel
from extractors.media import Media, Waveform
from extractors.weights import WeightsError

CLIP = Clip("a", "a.wav")


@pytest.fixture(scope="module")
def extractor():
    return DAVEnetExtractor(weights="random", seed=2, device="cpu", batch_size=8)


def noise(n_samples: int) -> np.ndarray:
    """A loud tone that fades, over faint noise: the dynamic range of speech, past the 80 dB floor."""
    rng = np.random.default_rng(n_samples)
    t = np.arange(n_samples) / 16_000
    return (np.sin(2 * np.pi * 440 * t) * np.exp(-3 * t) + 1e-4 * rng.standard_normal(n_samples)).astype(np.float32)


def sound(samples: np.ndarray) -> Media:
    return Media(waveform=Waveform(samples.astype(np.float32), 16_000))


# --- the front end ---


def slow_mel_filters() -> np.ndarray:
    """(40, 201): Slaney's scale (linear below 1 kHz, 27 logarithmic steps an octave-and-more above), triangles of
    equal area, each written out."""

    def to_hz(mel: float) -> float:
        return 200.0 / 3.0 * mel if mel < 15.0 else 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0))

    def to_mel(hz: float) -> float:
        return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + 27.0 * np.log(hz / 1000.0) / np.log(6.4)

    low, high = to_mel(20.0), to_mel(8000.0)
    edges_hz = [to_hz(low + i * (high - low) / 41) for i in range(42)]
    filters = np.zeros((40, 201))
    for band in range(40):
        left, centre, right = edges_hz[band : band + 3]
        for k in range(201):
            hz = 8000.0 * k / 200
            rise, fall = (hz - left) / (centre - left), (right - hz) / (right - centre)
            filters[band, k] = max(0.0, min(rise, fall)) * 2.0 / (right - left)
    return filters


def reflected(i: int, n: int) -> int:
    """The index that position i falls on when [0, n) is mirrored at its ends, again and again."""
    while not 0 <= i < n:
        i = 0 if n == 1 else (-i if i < 0 else 2 * (n - 1) - i)
    return i


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    y = samples.astype(float) - samples.astype(float).mean()
    y = np.array([y[0]] + [y[i] - 0.97 * y[i - 1] for i in range(1, len(y))])
    hamming = np.array([0.54 - 0.46 * np.cos(2 * np.pi * i / 400) for i in range(400)])
    dft = np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400)
    columns = []
    for t in range(1 + len(y) // 160):
        frame = np.array([y[reflected(160 * t - 200 + i, len(y))] for i in range(400)])
        columns.append(slow_mel_filters() @ np.abs(dft @ (hamming * frame)) ** 2)
    power = np.stack(columns, axis=1)  # (40, T)
    decibels = 10 * np.log10(np.maximum(1e-10, power)) - 10 * np.log10(max(1e-10, power.max()))
    return np.maximum(decibels, decibels.max() - 80)


@pytest.mark.parametrize("n_samples", [2, 160, 200, 201, 399, 800, 4000])
def test_the_front_end_equals_a_slow_one(n_samples):
    ours = log_mel(noise(n_samples), 16_000)
    assert (ours.shape, ours.dtype) == ((40, 1 + n_samples // 160), np.float32)
    np.testing.assert_allclose(ours, slow_log_mel(noise(n_samples)), atol=2e-3)
    assert ours.max() == 0.0
    assert ours.min() >= -80.0


def test_a_tone_lies_in_its_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    edges_mel = np.linspace(20 * 3 / 200, 15 + 27 * np.log(8) / np.log(6.4), 42)
    nearest = int(np.abs(edges_mel[1:-1] - 15).argmin())  # 1 kHz is 15 mel
    assert (log_mel(tone, 16_000)[:, 10:-10].argmax(axis=0) == nearest).all()


def test_loudness_and_offset_do_not_matter():
    samples = noise(4000).astype(np.float64)
    quiet = (0.25 * samples + 0.1).astype(np.float32)
    np.testing.assert_allclose(log_mel(quiet, 16_000), log_mel(noise(4000), 16_000), atol=0.02)


@pytest.mark.parametrize("n_samples", [1, 7, 160, 5000])
def test_digital_silence_is_0_db_everywhere(n_samples):
    for level in (0.0, 0.3):  # 0.3: a constant offset is silence, too
        np.testing.assert_array_equal(log_mel(np.full(n_samples, level, dtype=np.float32), 16_000), 0.0)


def test_a_long_clip_is_worked_through_in_blocks(monkeypatch):
    whole = log_mel(noise(8000), 16_000)
    monkeypatch.setattr("extractors.logmel._FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(log_mel(noise(8000), 16_000), whole, atol=1e-5)


def test_another_sample_rate_is_refused():
    with pytest.raises(ValueError, match="expected a waveform at 16000 Hz, got 44100 Hz; resample it first"):
        log_mel(noise(100), 44_100)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32)])
def test_no_samples_or_two_channels_are_refused(samples):
    with pytest.raises(ValueError, match="expected a mono waveform of at least one sample, got shape"):
        log_mel(samples, 16_000)


# --- the network ---


def slow_davenet(state: dict[str, torch.Tensor], log_mels: torch.Tensor) -> torch.Tensor:
    """(B, 40, T) -> (B, 1024, ceil(T / 16)), with 1-d convolutions and batch norm by its formula."""
    scale = state["batchnorm1.weight"] / torch.sqrt(state["batchnorm1.running_var"] + 1e-5)
    x = (log_mels - state["batchnorm1.running_mean"]) * scale + state["batchnorm1.bias"]
    x = torch.einsum("ck,bkt->bct", state["conv1.weight"][:, 0, :, 0], x) + state["conv1.bias"][:, None]
    x = x.clamp(min=0)
    for layer, half_width in [("conv2", 5), ("conv3", 8), ("conv4", 8), ("conv5", 8)]:
        kernel, bias = state[f"{layer}.weight"].squeeze(2), state[f"{layer}.bias"]
        x = functional.conv1d(functional.pad(x, (half_width, half_width)), kernel, bias).clamp(min=0)
        edged = functional.pad(x, (1, 1), value=-torch.inf)
        x = torch.stack([edged[..., i : i + x.shape[-1] : 2] for i in range(3)]).amax(dim=0)
    return x


@pytest.fixture(scope="module")
def published_state():
    """A state dict in the published layout, batch norm away from its initial values."""
    torch.manual_seed(4)
    state = DAVEnet().state_dict()
    state["batchnorm1.weight"], state["batchnorm1.bias"] = torch.tensor([1.3]), torch.tensor([0.2])
    state["batchnorm1.running_mean"], state["batchnorm1.running_var"] = torch.tensor([-35.0]), torch.tensor([250.0])
    return state


LAYOUT = {
    **{f"batchnorm1.{name}": (1,) for name in ("weight", "bias", "running_mean", "running_var")},
    "batchnorm1.num_batches_tracked": (),
    "conv1.weight": (128, 1, 40, 1),
    "conv2.weight": (256, 128, 1, 11),
    "conv3.weight": (512, 256, 1, 17),
    "conv4.weight": (512, 512, 1, 17),
    "conv5.weight": (1024, 512, 1, 17),
    **{f"conv{i}.bias": (n,) for i, n in enumerate((128, 256, 512, 512, 1024), start=1)},
}


def test_the_layout_is_the_published_one():
    assert {name: tuple(value.shape) for name, value in DAVEnet().state_dict().items()} == LAYOUT


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_state_dict_gives_the_network(tmp_path, published_state, prefix):
    torch.save({prefix + name: value for name, value in published_state.items()}, tmp_path / "audio_model.pth")
    network = load_davenet(tmp_path / "audio_model.pth")
    assert not network.training
    log_mels = 80 * torch.rand(2, 40, 83) - 80
    with torch.inference_mode():
        steps = network(log_mels)
        assert steps.shape == (2, 1024, 6)  # ceil(83 / 16)
        torch.testing.assert_close(steps, slow_davenet(published_state, log_mels), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(steps, network(log_mels[:, None]))


def test_another_state_dict_is_refused(tmp_path, published_state):
    state = {name: value for name, value in published_state.items() if name != "conv5.bias"}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth does not fit DAVEnet: missing: conv5\.bias$"):
        load_davenet(tmp_path / "w.pth")


# --- the extractor ---


def test_no_published_weights_says_what_can_be_done():
    with pytest.raises(
        WeightsError, match=r"none were ever published at a known address; point extract\.audio\.weights.*random"
    ):
        DAVEnetExtractor(weights="hub")


def test_weights_from_a_path(tmp_path, published_state):
    torch.save({f"module.{name}": value for name, value in published_state.items()}, tmp_path / "mine.pth")
    loaded = DAVEnetExtractor(weights=str(tmp_path / "mine.pth"), device="cpu")
    assert torch.equal(loaded.network.conv3.weight, published_state["conv3.weight"])
    assert (loaded.weights_record["file"], loaded.weights_record["trained"]) == ("mine.pth", True)


def test_every_length_comes_out_as_if_padded_to_2048(extractor):
    rng = np.random.default_rng(3)
    for n in (1, 15, 16, 17, 300, 1990, 2048):
        piece = (-80 * rng.random((40, n))).astype(np.float32)
        with torch.inference_mode():
            padded = functional.pad(torch.from_numpy(piece), (0, 2048 - n))
            expected = extractor.network(padded[None])[:, :, : max(1, n // 16)].mean(dim=2)
            torch.testing.assert_close(extractor.forward([piece]).vectors, expected, rtol=1e-5, atol=1e-5)


def test_batch_mates_of_any_length_change_nothing(extractor):
    rng = np.random.default_rng(4)
    pieces = [(-80 * rng.random((40, n))).astype(np.float32) for n in (300, 1, 17, 16, 900)]
    with torch.inference_mode():
        alone = torch.cat([extractor.forward([piece]).vectors for piece in pieces])
        torch.testing.assert_close(extractor.forward(pieces).vectors, alone, rtol=1e-5, atol=1e-5)


def test_padding_stops_where_the_kept_steps_stop_looking():
    assert [padded_frames(n) for n in (1, 16, 31, 32, 300, 1990, 2048)] == [133, 133, 133, 149, 405, 2048, 2048]


def test_a_long_clip_is_cut_and_says_so(extractor):
    samples = noise(16_000 * 21)  # 2101 frames
    item = extractor.prepare(CLIP, sound(samples))
    assert (item.note, item.n_units, item.inputs[0].shape) == ("cut from 2101 to 2048 frames", 2048, (40, 2048))
    np.testing.assert_array_equal(item.inputs[0], log_mel(samples, 16_000)[:, :2048])


@pytest.mark.parametrize("n_samples", [1, 160, 800])
def test_a_very_short_clip_is_embedded(extractor, n_samples):
    item = extractor.prepare(CLIP, sound(noise(n_samples)))
    [embedding] = extractor.encode([item])
    assert (embedding.n_units, embedding.vector.shape, item.note) == (1 + n_samples // 160, (1024,), None)


def test_silence_is_embedded(extractor):
    [embedding] = extractor.encode([extractor.prepare(CLIP, sound(np.zeros(8000)))])
    assert np.isfinite(embedding.vector).all()


def test_an_untrained_network_sees_numbers_of_unit_size(extractor):
    speech_like = torch.from_numpy(log_mel(noise(32_000), 16_000))
    with torch.inference_mode():
        normalised = extractor.network.batchnorm1(speech_like[None, None])
    assert normalised.abs().max() <= 2.01  # -80..0 dB about -40, in units of 20
