"""The training loop: R restarts in one graph, full batch, one Adam; the restart with the lowest loss is kept.

A network is trained through `initialise`, `loss_terms`, `posterior` and `single`; see tib/reference.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tib.checkpoint import Checkpoint
from tib.reference.net import ReferenceNet
from tib.result import OnStep, StepReport
from tib.select import stability


@dataclass(frozen=True, slots=True)
class Training:
    """What training ends with.

    Attributes:
        net: of all R restarts.
        curves: name -> (epochs, R) float64: each term and `loss`, as they were before each step.
        best: the restart with the lowest final loss.
    """

    net: ReferenceNet
    curves: dict[str, NDArray[np.float64]]
    best: int


def train(
    net: ReferenceNet,
    views: Mapping[str, Tensor],
    *,
    seeds: Sequence[int],
    epochs: int,
    learning_rate: float,
    superfluous_weight: float,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Initialise the net on the CPU, move it to the views' device and train it.

    Args:
        net: R restarts.
        views: name -> (N, D), on the device to train on.
        seeds: one a restart. On the CPU each is one random stream for the weights and the samples.
        superfluous_weight: of that term in the loss; at 0 nothing is sampled.
        on_step: called after each epoch, which is one step here.
        checkpoint: gone on from, and kept.
    Raises:
        ValueError: the final loss is not finite in any restart.
    """
    device = next(iter(views.values())).device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    net.initialise(generators)
    net.to(device)
    if device.type != "cpu":
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    optimiser = torch.optim.Adam(net.parameters(), lr=learning_rate)
    steps: list[Tensor] = []

    def state() -> dict[str, Any]:
        return {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "generators": [generator.get_state() for generator in generators],
            "steps": torch.stack(steps),
        }

    if checkpoint is not None and (found := checkpoint.found) is not None:
        net.load_state_dict(found["net"])
        optimiser.load_state_dict(found["optimiser"])
        for generator, kept in zip(generators, found["generators"], strict=True):
            generator.set_state(kept)
        steps = list(found["steps"].to(device))
    for epoch in range(len(steps) + 1, epochs + 1):
        terms = net.loss_terms(views, generators, superfluous=superfluous_weight > 0)
        # Only the third term is weighed: the published sum is of all three.
        terms["loss"] = terms["consistency"] + terms["complementarity"] + superfluous_weight * terms["superfluous"]
        optimiser.zero_grad()
        terms["loss"].sum().backward()  # restarts share no parameter: each gets the gradient of its own loss
        optimiser.step()
        steps.append(torch.stack(list(terms.values())).detach())  # (terms, R)
        if on_step is not None:
            on_step(_report(net, views, epoch, epochs, dict(zip(terms, steps[-1], strict=True))))
        if checkpoint is not None and epoch < epochs:
            checkpoint.keep(state)
    history = torch.stack(steps).double().cpu().numpy()  # (epochs, terms, R)
    curves = {name: history[:, index] for index, name in enumerate(terms)}
    return Training(net=net, curves=curves, best=_lowest(curves["loss"][-1]))


def _report(
    net: ReferenceNet, views: Mapping[str, Tensor], epoch: int, epochs: int, terms: Mapping[str, Tensor]
) -> StepReport:
    best = int(terms["loss"].nan_to_num(nan=torch.inf).argmin())

    def predict() -> NDArray[np.int64]:
        return net.single(best).posterior(views)[0].argmax(-1).cpu().numpy()

    def agree() -> float:
        return stability(net.posterior(views).argmax(-1).cpu().numpy())

    losses = {name: float(values[best]) for name, values in terms.items()}
    return StepReport("reference", epoch, epochs, losses, int(terms["loss"].isfinite().sum()), predict, agree)


def _lowest(losses: NDArray[np.float64]) -> int:
    finite = np.isfinite(losses)
    if not finite.any():
        raise ValueError("the loss is not finite in any restart; standardise the views or lower learning_rate")
    return int(np.argmin(np.where(finite, losses, np.inf)))
