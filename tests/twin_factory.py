"""A network of the whole method with nothing at its default, and what a clip's clusters are, slowly."""

import math

import torch
from torch import Tensor

from tib.twin.net import TwinNet
from tib.twin.objective import Weights

DOUBLE = torch.float64
WEIGHTS = Weights(1.0, 1.0, 0.1, 0.1, 0.1, neighbour_share=0.3, balance=0.9)
TERMS = ("consistency", "fusion", "superfluous", "divergence", "complementarity")


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def net_of(dims: tuple[int, ...] = (5, 4, 3), n_clusters: int = 4, restarts: int = 3, seed: int = 0) -> TwinNet:
    net = TwinNet(dims, n_clusters, restarts, DOUBLE)
    net.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():  # biases and norms too, that no test passes because they are 0 and 1
        for number, parameter in enumerate(net.parameters()):
            parameter.add_(0.1 * randn(1000 + number, *parameter.shape))
    return net


def softmaxed(logits: Tensor) -> list[float]:
    total = sum(math.exp(x) for x in logits.tolist())
    return [math.exp(x) / total for x in logits.tolist()]


def slow_fused(logits: Tensor, restart: int, row: int, present: Tensor) -> Tensor:
    sides = [
        logits[restart, p, :, side, row]
        for p in range(logits.shape[1])
        for side in range(2)
        if present[restart, p, side, row]
    ]
    return sum(sides, torch.zeros(logits.shape[2], dtype=DOUBLE)) / max(1, len(sides))
