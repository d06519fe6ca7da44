"""What DAVEnet and ResDAVEnet share: log-mels cut, padded and pooled; weights from a file."""

import shutil

import numpy as np
import pytest
import torch
from audio_factory import CLIP, fading_tone, sound
from safetensors.torch import save_file
from torch.nn import functional

from extractors import registry
from extractors.audio_davenet import DAVEnetExtractor
from extractors.audio_resdavenet import ResDAVEnetExtractor
from extractors.audio_spectrograms import SpectrogramExtractor, pad, padded_frames, pooled_steps
from extractors.batching import Encoded
from extractors.log_mel_preparer import clip_log_mel
from extractors.logmel import log_mel
from extractors.weights import WeightsError

CLASSES = (DAVEnetExtractor, ResDAVEnetExtractor)
BOTH = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
LENGTHS = (1, 17, 300, 1600, 1990)


@pytest.fixture(scope="module")
def extractors() -> dict[type[SpectrogramExtractor], SpectrogramExtractor]:
    return {kind: kind(weights="random", seed=2, device="cpu", batch_size=8) for kind in CLASSES}


@pytest.fixture
def folder(tmp_path):
    """Emptied at once: a checkpoint is up to 190 MB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def spectrograms(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [(-80 * rng.random((40, n))).astype(np.float32) for n in lengths]


def rows(extractor: SpectrogramExtractor, pieces: list[np.ndarray]) -> Encoded:
    """One pass."""
    return extractor.forward(*extractor.collate(pieces))


# --- padding and pooling ---


@BOTH
def test_every_length_comes_out_as_if_padded_to_2048(extractors, kind):
    network = extractors[kind].network
    for piece in spectrograms(*LENGTHS):
        n_frames = piece.shape[1]
        with torch.inference_mode():
            padded = functional.pad(torch.from_numpy(piece), (0, 2048 - n_frames))
            expected = network(padded[None])[:, :, : max(1, n_frames // 16)].mean(dim=2)
            ours = rows(extractors[kind], [piece]).vectors
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@BOTH
def test_batch_mates_of_any_length_change_nothing(extractors, kind):
    pieces = spectrograms(300, 1, 17, 16, 900)
    with torch.inference_mode():
        alone = [rows(extractors[kind], [piece]) for piece in pieces]
        together = rows(extractors[kind], pieces)
    for i, single in enumerate(alone):
        atol = 1e-5 * float(single.vectors.abs().max())
        torch.testing.assert_close(together.vectors[i], single.vectors[0], rtol=1e-5, atol=atol)
        torch.testing.assert_close(together.steps[i], single.steps[0], rtol=1e-5, atol=10 * atol)


@BOTH
def test_a_step_looks_as_far_right_as_stated(kind):
    """The gradient of an output step reaches the frame 16 j + right_context and none after it."""
    torch.manual_seed(0)
    frames = torch.rand((1, 40, 768), requires_grad=True)
    kind.build().eval()(frames)[0, :, 20].sum().backward()
    reached = frames.grad.abs().sum(dim=(0, 1)).nonzero().max()
    assert reached == 16 * 20 + kind.right_context


def test_padding_stops_where_the_kept_steps_stop_looking():
    lengths = [1, 16, 31, 32, 300, 1990, 2048]
    assert [padded_frames(n, 132) for n in lengths] == [192, 192, 192, 192, 448, 2048, 2048]
    assert [padded_frames(n, 420) for n in lengths] == [448, 448, 448, 448, 704, 2048, 2048]
    assert [padded_frames(n, 0) for n in lengths] == lengths
    assert [pooled_steps(n) for n in lengths] == [1, 1, 1, 2, 18, 124, 128]


def test_zeros_follow_each_log_mel():
    short, long = spectrograms(3, 40)
    for right_context, n_frames in ((0, 40), (132, 192)):
        padded = pad([short, long], right_context)
        assert padded.shape == (2, 40, n_frames)
        np.testing.assert_array_equal(padded[0, :, :3], short)
        np.testing.assert_array_equal(padded[1, :, :40], long)
        assert padded[0, :, 3:].abs().sum() == padded[1, :, 40:].abs().sum() == 0


@BOTH
def test_training_gets_an_untrained_network_without_an_extractor(kind):
    network = kind.build()
    assert network.training
    steps = network(pad(spectrograms(20, 33), kind.right_context))
    assert steps.shape[:2] == (2, kind.dim)
    steps.sum().backward()
    assert network.conv1.weight.grad.abs().sum() > 0


# --- sounds ---


def test_a_long_clip_is_cut_and_says_so(extractors):
    samples = fading_tone(16_000 * 21)  # 2101 frames
    item = extractors[DAVEnetExtractor].preparer.prepare(CLIP, sound(samples))
    assert (item.note, item.n_units, item.inputs[0].shape) == ("cut from 2101 to 2048 frames", 2048, (40, 2048))
    np.testing.assert_array_equal(item.inputs[0], log_mel(samples, 16_000)[:, :2048])
    assert item.inputs[0].base is None  # the frames cut off are not kept in memory
    assert clip_log_mel(sound(samples))[1] == item.note


@BOTH
@pytest.mark.parametrize("n_samples", [1, 160, 800])
def test_a_very_short_clip_is_embedded(extractors, kind, n_samples):
    item = extractors[kind].preparer.prepare(CLIP, sound(fading_tone(n_samples)))
    [embedding] = extractors[kind].encode([item])
    assert (embedding.n_units, embedding.vector.shape, item.note) == (1 + n_samples // 160, (1024,), None)


# --- weights ---


WRITERS = {
    "plain.pth": lambda state, path: torch.save(state, path),
    "prefixed.pth": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "wrapped.pth": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "both.pth": lambda state, path: torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, path),
    "half.pth": lambda state, path: torch.save({k: v.half() for k, v in state.items()}, path),
    "plain.safetensors": lambda state, path: save_file(state, path),
}


@pytest.mark.parametrize(
    ("kind", "file_name"),
    [
        *((DAVEnetExtractor, file_name) for file_name in WRITERS),
        (ResDAVEnetExtractor, "prefixed.pth"),
        (ResDAVEnetExtractor, "plain.safetensors"),
    ],
)
def test_a_checkpoint_comes_back(extractors, kind, folder, file_name):
    path, original = folder / file_name, extractors[kind]
    WRITERS[file_name]({name: t.contiguous() for name, t in original.network.state_dict().items()}, path)
    loaded = registry.create(kind.name, weights=str(path), device="cpu")
    record = loaded.weights_record
    assert (record["source"], record["trained"], record["file"]) == ("path", True, file_name)
    assert record["licence"].startswith("unknown")
    pieces = spectrograms(100)
    with torch.inference_mode():
        ours, theirs = rows(loaded, pieces).vectors, rows(original, pieces).vectors
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=(1e-2 if "half" in file_name else 0) * float(theirs.max()))


@BOTH
def test_the_other_networks_checkpoint_is_named(extractors, kind, folder):
    [other] = [one for one in CLASSES if one is not kind]
    torch.save({f"module.{k}": v for k, v in extractors[other].network.state_dict().items()}, folder / "w.pth")
    message = f"w.pth looks like {other.name}, not {kind.name}; set extract.audio.backbone={other.name}$"
    with pytest.raises(WeightsError, match=message):
        kind(weights=str(folder / "w.pth"))


@BOTH
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", torch.zeros(128, 1, 80, 1), r"of another shape: conv1\.weight \(128, 1, 80, 1\), expected"),
        ("conv1.weight", None, r"missing: conv1\.weight"),
        ("head.weight", torch.zeros(2), r"unexpected: head\.weight"),
    ],
)
def test_names_and_shapes_must_fit(extractors, kind, folder, name, value, message):
    state = dict(extractors[kind].network.state_dict()) | {name: value}
    torch.save({k: v for k, v in state.items() if v is not None}, folder / "w.pth")
    network = type(extractors[kind].network).__name__
    with pytest.raises(WeightsError, match=rf"w\.pth does not fit {network}: {message}"):
        kind(weights=str(folder / "w.pth"))
