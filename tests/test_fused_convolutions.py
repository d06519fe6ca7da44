"""The fused convolutions give the plain ones' numbers, and stand aside where they cannot."""

import pytest
import torch
from torch import nn

from extractors.fused_convolutions import ConvolutionsImageByImage


def layers():
    torch.manual_seed(0)
    return [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 4, 1),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    ]


def both(dtype=torch.float32):
    made = layers()
    plain, fused = nn.Sequential(*made), ConvolutionsImageByImage(*made)
    return [module.to(dtype, memory_format=torch.channels_last).eval() for module in (plain, fused)]


def calls(module):
    """The classes of the layers that are called by themselves while images go through."""
    seen = []
    for layer in module:
        layer.register_forward_hook(lambda layer, *_: seen.append(type(layer).__name__))
    return seen


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.0)])
@pytest.mark.parametrize("size", [(33, 20), (16, 16)])
def test_the_same_numbers_as_plain_layers(dtype, tolerance, size):
    plain, fused = both(dtype)
    images = torch.randn(3, 3, *size).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), plain(images), atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(fused(images[:1]), plain(images[:1]), atol=tolerance, rtol=tolerance)


def test_under_autocast_float32_images_meet_bf16_weights():
    plain, fused = both()
    for module in (plain, fused):
        module.to(torch.bfloat16)
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fused(images), plain(images))


def test_only_a_relu_right_after_its_convolution_is_fused():
    _, fused = both()
    seen = calls(fused)
    with torch.inference_mode():
        fused(torch.randn(1, 3, 16, 16))
    assert seen == ["MaxPool2d", "Conv2d", "MaxPool2d", "ReLU"]


def test_it_stands_aside_where_gradients_or_a_trace_are_wanted():
    _, fused = both()
    seen, images = calls(fused), torch.randn(2, 3, 16, 16)
    fused.train()(images).sum().backward()
    assert fused[0].weight.grad is not None
    with torch.inference_mode():
        traced = torch.jit.trace(fused.eval(), images, check_trace=False)
    assert seen == 2 * [type(layer).__name__ for layer in fused]
    torch.testing.assert_close(traced(images), fused(images))


def test_a_part_of_it_is_another_and_names_stay():
    plain, fused = both()
    assert isinstance(fused[:3], ConvolutionsImageByImage)
    assert fused.state_dict().keys() == plain.state_dict().keys()
