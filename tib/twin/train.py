"""The training loop of the whole method: R restarts in one graph, each on its own bag of clips, by one schedule.

Shapes: R restarts, N clips, M modalities, P pairs, B anchors of a batch, L = 2B rows.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tib.twin.net import BOTTLENECK, TwinNet
from tib.twin.objective import Weights, loss_terms, pairs_present, partition_term

CLIPS_A_CLUSTER = 16  # a batch's K x K joint is estimated from at least so many anchors a cluster
LEAST_STEPS = 150
ADAM_BETAS = (0.9, 0.99)  # the second moment must settle within so few steps
RISE = 0.1  # share of the steps in which the learning rate rises


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far a restart follows the graph's own partition.

    Attributes:
        name: for people.
        warm_up: share of the steps that fit the partition and nothing else.
        partition_weight: of its cross-entropy in the loss after that.
        noise: sd of the noise on the inputs, in sds of a feature.
    """

    name: str
    warm_up: float
    partition_weight: float
    noise: float


@dataclass(frozen=True, slots=True)
class Data:
    """The clips as training takes them.

    Attributes:
        views: (N, E_m) each, finite, gaps filled in.
        present: (M, N) bool, False where filled in.
        neighbours: (N, k), nearest first.
        bags: (R, n) the clips a restart learns from.
        partitions: (R, N) what the graph alone says, -1 where it says nothing.
        complete: whether nothing is missing.
    """

    views: list[Tensor]
    present: Tensor
    neighbours: Tensor
    bags: Tensor
    partitions: Tensor
    complete: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """batch_size: anchors, or None for 128 and at least CLIPS_A_CLUSTER a cluster; epochs: passes over a bag, or None
    for 15 and at least LEAST_STEPS; learning_rate: Adam's, at its height."""

    batch_size: int | None
    epochs: int | None
    learning_rate: float

    def anchors(self, n_clusters: int, bag_size: int) -> int:
        return min(self.batch_size or max(128, CLIPS_A_CLUSTER * n_clusters), bag_size)

    def steps(self, n_clusters: int, bag_size: int) -> int:
        a_pass = bag_size / self.anchors(n_clusters, bag_size)
        return max(LEAST_STEPS, round(15 * a_pass)) if self.epochs is None else max(1, round(self.epochs * a_pass))


StepCallback = Callable[[int, int, dict[str, Tensor], TwinNet], bool]
Keep = Callable[[Callable[[], dict[str, Any]]], None]


def train(
    net: TwinNet,
    data: Data,
    schedule: Schedule,
    weights: Weights,
    pace: Pace,
    generator: torch.Generator,
    after_step: StepCallback,
    *,
    kept: Mapping[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> dict[str, Tensor]:
    """Train the initialised net.

    Args:
        generator: on the data's device.
        after_step: gets the step from 1, the number of steps, the terms (R,) and the net; True ends the training.
        kept: a state that `keep` was given in an earlier run, to go on from.
        keep: offered the state after each step, as a function that makes it.
    Returns:
        name -> (steps, R) float64: each term unweighed, and `loss`, what was minimised.
    """
    anchors = _Anchors(data, pace.anchors(net.n_clusters, data.bags.shape[1]), generator)
    optimiser = torch.optim.Adam(net.parameters(), lr=pace.learning_rate, betas=ADAM_BETAS)
    n_steps = pace.steps(net.n_clusters, data.bags.shape[1])
    history: list[dict[str, Tensor]] = []

    def state() -> dict[str, Any]:
        return {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "generator": generator.get_state(),
            "anchors": (anchors.order, anchors.position),
            "history": _curves(history),
        }

    if kept is not None:
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        generator.set_state(kept["generator"])
        anchors.order, anchors.position = kept["anchors"][0].to(data.bags.device), kept["anchors"][1]
        steps_done = len(kept["history"]["loss"])
        curves = {name: curve.to(data.bags.device) for name, curve in kept["history"].items()}
        history = [{name: curve[step] for name, curve in curves.items()} for step in range(steps_done)]
    for step in range(len(history), n_steps):
        done = step / n_steps
        optimiser.param_groups[0]["lr"] = pace.learning_rate * _height(done)
        terms = _step_terms(net, data, schedule, weights, anchors.draw(), generator, done)
        optimiser.zero_grad(set_to_none=True)
        terms["loss"].sum().backward()  # restarts share no parameter: each gets the gradient of its own loss
        optimiser.step()
        history.append({name: value.detach() for name, value in terms.items()})
        if after_step(step + 1, n_steps, history[-1], net):
            break
        keep(state)
    return {name: curve.double().cpu() for name, curve in _curves(history).items()}


def _curves(history: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """name -> (steps, R), NaN where a step did not compute a term; the loss last."""
    names = [name for name in dict.fromkeys(n for terms in reversed(history) for n in terms) if name != "loss"]
    nothing = torch.full_like(history[0]["loss"], torch.nan)
    return {name: torch.stack([terms.get(name, nothing) for terms in history]) for name in [*names, "loss"]}


def _height(done: float) -> float:
    """Of the learning rate: up in a line, down in half a cosine."""
    return 0.05 + 0.95 * done / RISE if done < RISE else 0.5 * (1 + math.cos(math.pi * (done - RISE) / (1 - RISE)))


def _step_terms(
    net: TwinNet,
    data: Data,
    schedule: Schedule,
    weights: Weights,
    rows: Tensor,
    generator: torch.Generator,
    done: float,
) -> dict[str, Tensor]:
    """Every term of a batch and their weighted sum, `loss`.

    Args:
        rows: (R, L).
        done: share of the steps, from 0 to 1.
    """
    device, length = rows.device, rows.shape[1]
    present = None
    if not data.complete:
        present = pairs_present(data.present[:, rows].transpose(0, 1).to(data.views[0].dtype), net.pairs)
    inputs = [_noisy(view[rows], schedule.noise, generator) for view in data.views]
    draw = torch.randn(len(net.pairs), BOTTLENECK, 2, length, generator=generator, device=device).to(inputs[0].dtype)
    encoded = net(inputs, draw)
    terms: dict[str, Tensor] = {}
    loss = torch.zeros(net.restarts, device=device, dtype=inputs[0].dtype)
    warming_up = done < schedule.warm_up
    if not warming_up:
        terms = loss_terms(encoded, weights, present)
        # The bottleneck closes slowly: from the start it would shut before there is anything to let through.
        scale = {"superfluous": min(1.0, 2 * done)}
        for name, value in terms.items():
            loss = loss + getattr(weights, name) * scale.get(name, 1.0) * value
    if warming_up or schedule.partition_weight:
        terms["partition"] = partition_term(encoded.logits, data.partitions.gather(1, rows), present)
        loss = loss + (1.0 if warming_up else schedule.partition_weight) * terms["partition"]
    return {**terms, "loss": loss}


def _noisy(view: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """(R, L, E) plus noise, the same for all restarts: their bags differ already, and draws are dear."""
    if not sd:
        return view
    noise = torch.randn(*view.shape[1:], generator=generator, device=view.device, dtype=view.dtype)
    return view + sd * noise


class _Anchors:
    """Batches: each restart goes through its own bag in its own order, each anchor with a neighbour in the bag."""

    def __init__(self, data: Data, size: int, generator: torch.Generator) -> None:
        self.data, self.size, self.generator = data, size, generator
        self.position = data.bags.shape[1]
        self.order = data.bags
        restarts = len(data.bags)
        n_clips = len(data.neighbours)
        device = data.bags.device
        self.in_bag = torch.zeros(restarts, n_clips, dtype=torch.bool, device=device).scatter_(1, data.bags, True)
        self.restart = torch.arange(restarts, device=device)[:, None, None]

    def draw(self) -> Tensor:
        """(R, 2B) rows: B anchors, then a random neighbour of each; an anchor without one in the bag stands twice."""
        bags, device = self.data.bags, self.data.bags.device
        if self.position + self.size > bags.shape[1]:
            chance = torch.rand(bags.shape, generator=self.generator, device=device)
            self.order, self.position = bags.gather(1, chance.argsort(1)), 0
        anchors = self.order[:, self.position : self.position + self.size]
        self.position += self.size
        candidates = self.data.neighbours[anchors]  # (R, B, k)
        chance = torch.rand(candidates.shape, generator=self.generator, device=device)
        chance = chance * self.in_bag[self.restart, candidates]
        best, slot = chance.max(-1, keepdim=True)
        neighbours = torch.where(best > 0, candidates.gather(-1, slot), anchors.unsqueeze(-1)).squeeze(-1)
        return torch.cat([anchors, neighbours], 1)
