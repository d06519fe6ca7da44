"""ResDAVEnet's audio network against one written with 1-d convolutions and batch norm by its formula."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from audio_factory import CLIP, sound, voice
from torch.nn import functional

from extractors.audio_resdavenet import Codebook, ResDAVEnet, ResDAVEnetExtractor
from extractors.weights import WeightsError

PUBLISHED_WIDTHS = (128, 256, 256, 512, 1024)  # run_ResDavenetVQ.py --layer-widths
CLASS_WIDTHS = (128, 128, 256, 512, 1024)  # the default of the published class


@pytest.fixture
def folder(tmp_path):
    """Emptied at once: a checkpoint is 190 MB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def published_state(widths=PUBLISHED_WIDTHS, codebooks=None) -> dict[str, torch.Tensor]:
    """A trained network's state dict in the published layout: batch norms away from their initial values."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def batch_norm(name: str, width: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}.weight": 1 + 0.2 * normal(width),
            f"{name}.bias": 0.5 * normal(width),
            f"{name}.running_mean": 0.5 * normal(width),
            f"{name}.running_var": 1 + normal(width).abs(),
            f"{name}.num_batches_tracked": torch.tensor(7),
        }

    def convolution(name: str, n_out: int, n_in: int, *kernel: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": normal(n_out, n_in, *kernel) / np.sqrt(n_in * kernel[0] * kernel[1])}

    state = batch_norm("batchnorm1", 1) | convolution("conv1", widths[0], 1, 40, 1) | batch_norm("bn1", widths[0])
    for layer, (n_in, n_out) in enumerate(pairwise(widths), start=1):
        for block, width in enumerate((n_in, n_out)):
            name = f"layer{layer}.{block}"
            state |= convolution(f"{name}.conv1", n_out, width, 1, 9) | batch_norm(f"{name}.bn1", n_out)
            state |= convolution(f"{name}.conv2", n_out, n_out, 1, 9) | batch_norm(f"{name}.bn2", n_out)
        way_round = f"layer{layer}.0.downsample"
        state |= convolution(f"{way_round}.0", n_out, n_in, 1, 1) | batch_norm(f"{way_round}.1", n_out)
    for stage, n_rows in (codebooks or {}).items():
        width = widths[stage - 1]
        state[f"quant{stage}._embedding.weight"] = 2 * normal(n_rows, width).abs()
        state[f"quant{stage}._ema_w"] = normal(n_rows, width)
        state[f"quant{stage}._ema_cluster_size"] = normal(n_rows).abs()
    return state


def slow_resdavenet(state: dict[str, torch.Tensor], log_mels: torch.Tensor) -> torch.Tensor:
    """(B, 40, T) -> (B, 1024, ceil(T / 16))."""

    def batch_norm(name: str, x: torch.Tensor) -> torch.Tensor:
        scale = state[f"{name}.weight"] / torch.sqrt(state[f"{name}.running_var"] + 1e-5)
        return (x - state[f"{name}.running_mean"][:, None]) * scale[:, None] + state[f"{name}.bias"][:, None]

    def convolution(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        kernel = state[f"{name}.weight"].squeeze(2)
        return functional.conv1d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def quantised(stage: int, x: torch.Tensor) -> torch.Tensor:
        rows = state.get(f"quant{stage}._embedding.weight")
        if rows is None:
            return x
        x = x.clone()
        for b in range(x.shape[0]):
            for t in range(x.shape[2]):
                x[b, :, t] = rows[(rows - x[b, :, t]).square().sum(dim=1).argmin()]
        return x

    x = torch.einsum("ck,bkt->bct", state["conv1.weight"][:, 0, :, 0], log_mels)
    x = quantised(1, batch_norm("bn1", x).clamp(min=0))
    for layer in range(1, 5):
        for block, stride in enumerate((2, 1)):
            name = f"layer{layer}.{block}"
            inner = batch_norm(f"{name}.bn1", convolution(f"{name}.conv1", x, stride)).clamp(min=0)
            inner = batch_norm(f"{name}.bn2", convolution(f"{name}.conv2", inner, 1))
            if block == 0:
                x = batch_norm(f"{name}.downsample.1", convolution(f"{name}.downsample.0", x, stride))
            x = (inner + x).clamp(min=0)
        x = quantised(layer + 1, x)
    return x


@pytest.mark.parametrize(
    ("widths", "codebooks"),
    [
        (PUBLISHED_WIDTHS, {}),
        (CLASS_WIDTHS, {}),
        (PUBLISHED_WIDTHS, {2: 64}),
        (PUBLISHED_WIDTHS, {2: 33, 3: 64, 4: 5}),
        (PUBLISHED_WIDTHS, {1: 16, 5: 8}),
    ],
    ids=["plain", "narrow", "quantised {2}", "quantised {2,3,4}", "quantised {1,5}"],
)
def test_a_published_state_dict_gives_the_network(folder, widths, codebooks):
    state = published_state(widths, codebooks)
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "best_audio_model.pth")
    network = ResDAVEnetExtractor.load(folder / "best_audio_model.pth")
    assert not network.training
    log_mels = 80 * torch.rand((2, 40, 83), generator=torch.Generator().manual_seed(1)) - 80
    with torch.inference_mode():
        steps = network(log_mels)
        assert steps.shape == (2, 1024, 6)  # ceil(83 / 16)
        expected = slow_resdavenet(state, log_mels)
        torch.testing.assert_close(steps, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        torch.testing.assert_close(steps, network(log_mels[:, None]))
    if codebooks.get(5):
        rows = state["quant5._embedding.weight"]
        assert {tuple(step) for step in steps.movedim(1, -1).flatten(0, 1).tolist()} <= {
            tuple(r) for r in rows.tolist()
        }


def test_the_layout_is_the_published_one():
    expected = {name: tuple(value.shape) for name, value in published_state().items()}
    assert {name: tuple(value.shape) for name, value in ResDAVEnet().state_dict().items()} == expected
    assert ResDAVEnetExtractor.build().state_dict().keys() == expected.keys()


def test_a_codebook_by_hand():
    codebook = Codebook(3, 2)
    codebook._embedding.weight = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [1.0, 1.0], [4.0, 0.0]]))
    steps = torch.tensor([[0.4, 0.7, 2.2, 2.6, 9.0], [0.5, 0.4, 0.0, 0.0, -9.0]])  # (C, T)
    expected = torch.tensor(
        [[0.0, 1.0, 1.0, 4.0, 4.0], [0.0, 1.0, 1.0, 0.0, 0.0]]
    )  # 2.2: 1.56 from (1, 1), 1.8 from (4, 0)
    torch.testing.assert_close(codebook(steps[None, :, None])[0, :, 0], expected)


def test_a_codebook_of_another_width_is_refused(folder):
    state = published_state(codebooks={3: 16})
    state["quant3._embedding.weight"] = torch.zeros(16, 99)
    torch.save(state, folder / "w.pth")
    message = (
        r"w\.pth does not fit ResDAVEnet: of another shape: quant3\._embedding\.weight \(16, 99\), expected \(16, 256\)"
    )
    with pytest.raises(WeightsError, match=message):
        ResDAVEnetExtractor.load(folder / "w.pth")


@pytest.mark.parametrize("spoilt", [torch.tensor(1.0), torch.zeros(64, 256, 1, 3)])
def test_a_layer_of_another_shape_is_refused(folder, spoilt):
    torch.save(published_state() | {"layer2.0.conv1.weight": spoilt}, folder / "w.pth")
    with pytest.raises(WeightsError, match=r"does not fit ResDAVEnet: of another shape: layer2\.0\.conv1\.weight"):
        ResDAVEnetExtractor.load(folder / "w.pth")


def test_no_hub_says_where_the_published_weights_are():
    with pytest.raises(
        WeightsError, match=r"no hub .* github\.com/wnhsu/ResDAVEnet-VQ .*point extract\.audio\.weights"
    ):
        ResDAVEnetExtractor(weights="hub")


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_network_neither_explodes_nor_collapses(seed):
    extractor = ResDAVEnetExtractor(weights="random", seed=seed, device="cpu")
    items = [extractor.preparer.prepare(CLIP, sound(voice(style))) for style in ("charged", "subdued")]
    vectors = np.stack([embedding.vector for embedding in extractor.encode(items)])
    assert 0.3 < np.sqrt((vectors**2).mean()) < 30
    assert (vectors.std(axis=1) > 0.3).all()  # the units differ
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.02 * np.linalg.norm(vectors[0])  # so do the clips
