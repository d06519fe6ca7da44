"""OpenVINO against PyTorch as it comes: frames/s through the bare networks, from memory, and how close the vectors are.

Eager PyTorch in fp32, then OpenVINO in bf16 and in int8, by turns, a pass a clip; ratios are of the rounds' medians.
VGG16 has PyTorch's random initial weights, which make nearly the same vector of every frame: its speed is the trained
network's, its cosine flatters. EfficientNet-Lite0 has its trained weights.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain_extraction import plain_vgg16
from extractors import openvino_network
from extractors.clip import Clip
from extractors.media import read_media
from extractors.visual_efficientnet_lite import EfficientNetLite0
from extractors.visual_frames import FrameExtractor
from extractors.visual_vgg16 import VGG16

HELD_OUT_CLIPS = 4
CALIBRATED_ON = 80  # frames at most: `extract` takes 300, a few minutes of VGG16


def openvino(clips: Sequence[Clip], rounds: int) -> dict[str, Any]:
    """Of each backbone: frames/s, times the plain network, and the least cosine of a frame's vector with fp32.

    Args:
        clips: the last few are measured on, those before them are calibrated on.
        rounds: of which the median is taken.
    Raises:
        ValueError: no clip is left to calibrate on.
    """
    if len(clips) <= HELD_OUT_CLIPS:
        raise ValueError(f"needs more than {HELD_OUT_CLIPS} clips to calibrate on some, got {len(clips)}")
    backbones: tuple[FrameExtractor, ...] = (VGG16(weights="random", device="cpu"), EfficientNetLite0(device="cpu"))
    return {extractor.name: _compare(extractor, clips, rounds) for extractor in backbones}


def _compare(extractor: FrameExtractor, clips: Sequence[Clip], rounds: int) -> dict[str, Any]:
    crops = [extractor.preparer.prepare(clip, read_media(clip, extractor.preparer.needs)).inputs for clip in clips]
    pieces = [piece for clip in crops[:-HELD_OUT_CLIPS] for piece in clip][:CALIBRATED_ON]
    with torch.inference_mode():
        held_out = [extractor.images(*extractor.collate(clip)).contiguous() for clip in crops[-HELD_OUT_CLIPS:]]
    is_vgg = isinstance(extractor, VGG16)
    plain = plain_vgg16(extractor.network.state_dict()) if is_vgg else extractor.network
    exact = openvino_network.convert(plain, extractor.preparer.preprocessing.crop)
    int8 = openvino_network.quantise(
        plain,
        extractor.preparer.preprocessing.crop,
        pieces,
        lambda piece: extractor.images(*extractor.collate([piece])),
    )
    networks = {
        "plain": plain,
        "bf16": openvino_network.OpenVINONetwork(exact, "bf16"),
        "int8": openvino_network.OpenVINONetwork(int8, "int8"),
    }
    rates = _rates(networks, held_out, rounds)
    with torch.inference_mode():
        vectors = {name: torch.cat([network(clip) for clip in held_out]) for name, network in networks.items()}
    fast = ("bf16", "int8")
    return {
        "weights": "random" if is_vgg else "trained",
        "calibrated_on_frames": len(pieces),
        "frames_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "times_plain": {name: round(rates[name] / rates["plain"], 2) for name in fast},
        "least_cosine": {name: round(_least_cosine(vectors[name], vectors["plain"]), 6) for name in fast},
    }


def _rates(
    networks: Mapping[str, Callable[[Tensor], Tensor]], held_out: Sequence[Tensor], rounds: int
) -> dict[str, float]:
    """Frames a second of each, by turns."""
    n_frames = sum(len(clip) for clip in held_out)
    found: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network(held_out[0])  # what is made once
        for _ in range(rounds):
            for name, network in networks.items():
                started = time.perf_counter()
                for clip in held_out:
                    network(clip)
                found[name].append(n_frames / (time.perf_counter() - started))
    return {name: median(rates) for name, rates in found.items()}


def _least_cosine(ours: Tensor, exact: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(ours.double(), exact.double()).min())
