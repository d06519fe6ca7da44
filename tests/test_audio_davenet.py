"""DAVEnet's audio network against one written with 1-d convolutions; for the rest see test_audio_spectrograms.py."""

import pytest
import torch
from audio_factory import fading_tone
from torch.nn import functional

from extractors.audio_davenet import DAVEnet, DAVEnetExtractor, load_davenet
from extractors.logmel import log_mel
from extractors.weights import WeightsError


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


def test_no_published_weights_says_what_can_be_done():
    with pytest.raises(
        WeightsError, match=r"none were ever published at a known address; point extract\.audio\.weights.*random"
    ):
        DAVEnetExtractor(weights="hub")


def test_an_untrained_network_sees_numbers_of_unit_size():
    speech_like = torch.from_numpy(log_mel(fading_tone(32_000), 16_000))
    with torch.inference_mode():
        normalised = DAVEnet().eval().batchnorm1(speech_like[None, None])
    assert normalised.abs().max() <= 2.01  # -80..0 dB about -40, in units of 20
