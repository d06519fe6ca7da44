"""The training loop of the whole method: R restarts in one graph, each on its own bag of clips, by one schedule.

Shapes: R restarts, n clips of a block, M modalities, P pairs, B anchors of a batch, L = 2B rows.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tib.group import ALONE, Group
from tib.twin.blocks import Window
from tib.twin.net import BOTTLENECK, TwinNet
from tib.twin.objective import Joints, Weights, loss_terms, pairs_present, partition_term

CLIPS_A_CLUSTER = 16  # a batch's K x K joint is estimated from at least so many anchors a cluster
LEAST_STEPS, MOST_STEPS = 150, 2000  # where nobody says how many
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

    def at_home(self, done: float) -> bool:
        """Whether the restarts are to stay where the partition is known: as long as it counts."""
        return done < self.warm_up or self.partition_weight > 0


@dataclass(frozen=True, slots=True)
class Data:
    """The clips as training takes them.

    Attributes:
        window: the blocks of clips that the restarts are at.
        bags: (R, b) the places in a block of the clips that a restart learns from, in every block.
        partitions: (R, n) what the graph of the restart's home alone says, -1 where it says nothing.
        complete: whether nothing is missing.
    """

    window: Window
    bags: Tensor
    partitions: Tensor
    complete: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast.

    Attributes:
        batch_size: anchors, or None for 128 and at least CLIPS_A_CLUSTER a cluster.
        epochs: passes over all of a restart's clips, or None for 15, at least LEAST_STEPS and at most MOST_STEPS.
        learning_rate: Adam's, at its height.
        joint_momentum: of the running joints.
    """

    batch_size: int | None
    epochs: int | None
    learning_rate: float
    joint_momentum: float = 0.0

    def anchors(self, n_clusters: int, bag_size: int) -> int:
        return min(self.batch_size or max(128, CLIPS_A_CLUSTER * n_clusters), bag_size)

    def steps(self, n_clusters: int, bag_size: int, n_blocks: int = 1) -> int:
        a_pass = n_blocks * bag_size / self.anchors(n_clusters, bag_size)
        if self.epochs is not None:
            return max(1, round(self.epochs * a_pass))
        return min(MOST_STEPS, max(LEAST_STEPS, round(15 * a_pass)))


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
    group: Group = ALONE,
) -> dict[str, Tensor]:
    """Train the initialised net.

    Args:
        generator: on the data's device.
        after_step: gets the step from 1, the number of steps, the terms (R,) and the net; True ends the training.
        kept: a state that `keep` was given in an earlier run, to go on from.
        keep: offered the state after each step, as a function that makes it.
        group: processes that were given all the same, and share the anchors of every batch.
    Returns:
        name -> (steps, R) float64: each term unweighed, and `loss`, what was minimised.
    Raises:
        ValueError: fewer anchors in a batch than processes.
    """
    anchors = _Anchors(data, pace.anchors(net.n_clusters, data.bags.shape[1]), generator)
    if anchors.size < group.size:
        raise ValueError(f"a batch of {anchors.size} anchors for {group.size} processes: start fewer of them")
    joints = Joints(group=group)
    optimiser = torch.optim.Adam(net.parameters(), lr=pace.learning_rate, betas=ADAM_BETAS)
    data.window.go_to(0 if kept is None else kept["anchors"][2])
    n_steps = pace.steps(net.n_clusters, data.bags.shape[1], len(data.window.blocks))
    history: list[dict[str, Tensor]] = []

    def state() -> dict[str, Any]:
        return {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "generator": generator.get_state(),
            "anchors": (anchors.order, anchors.position, data.window.visit),
            "joints": joints.counts,
            "history": _curves(history),
        }

    if kept is not None:
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        generator.set_state(kept["generator"])
        order, anchors.position, _ = kept["anchors"]
        anchors.order = order.to(data.bags.device)
        joints.counts = {name: counts.to(data.bags.device) for name, counts in kept["joints"].items()}
        steps_done = len(kept["history"]["loss"])
        curves = {name: curve.to(data.bags.device) for name, curve in kept["history"].items()}
        history = [{name: curve[step] for name, curve in curves.items()} for step in range(steps_done)]
    for step in range(len(history), n_steps):
        done = step / n_steps
        optimiser.param_groups[0]["lr"] = pace.learning_rate * _height(done)
        joints.momentum = pace.joint_momentum * _steadiness(done)
        terms = _step_terms(net, data, schedule, weights, anchors.draw(schedule.at_home(done)), generator, done, joints)
        optimiser.zero_grad(set_to_none=True)
        # Restarts share no parameter: each gets the gradient of its own loss.
        group.shared_loss(terms["loss"].sum()).backward()
        group.add_gradients(net)
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


def _steadiness(done: float) -> float:
    """Of the running joints' momentum: none while the steps grow, then the more the smaller they are.

    What a batch said before is of an encoder that was another then. Near the uniform joint, where training begins and
    mutual information has next to no slope, joints that lag behind hold the clusters back.
    """
    return 0.0 if done < RISE else 1.0 - _height(done)


def _step_terms(
    net: TwinNet,
    data: Data,
    schedule: Schedule,
    weights: Weights,
    places: Tensor,
    generator: torch.Generator,
    done: float,
    joints: Joints,
) -> dict[str, Tensor]:
    """Every term of a batch and their weighted sum, `loss`.

    Args:
        places: (R, L) in the restarts' blocks, of the whole group's batch.
        done: share of the steps, from 0 to 1.
    """
    window, device, length = data.window, places.device, places.shape[1]
    dtype, own = window.views[0].dtype, _own(joints.group, length)
    places = places[:, own]
    rows = places + window.offsets[:, None]
    present = None
    if not data.complete:
        present = pairs_present(window.present[:, rows].transpose(0, 1).to(dtype), net.pairs)
    inputs = [_noisy(view[rows], schedule.noise, generator, length, own) for view in window.views]
    draw = torch.randn(len(net.pairs), BOTTLENECK, 2, length, generator=generator, device=device).to(dtype)
    encoded = net(inputs, draw[..., own], group=joints.group)
    terms: dict[str, Tensor] = {}
    loss = torch.zeros(net.restarts, device=device, dtype=dtype)
    warming_up = done < schedule.warm_up
    if not warming_up:
        terms = loss_terms(encoded, weights, present, joints)
        # The bottleneck closes slowly: from the start it would shut before there is anything to let through.
        scale = {"superfluous": min(1.0, 2 * done)}
        for name, value in terms.items():
            loss = loss + getattr(weights, name) * scale.get(name, 1.0) * value
    if warming_up or schedule.partition_weight:
        terms["partition"] = partition_term(encoded.logits, data.partitions.gather(1, places), present, joints.group)
        loss = loss + (1.0 if warming_up else schedule.partition_weight) * terms["partition"]
    return {**terms, "loss": loss}


def _own(group: Group, length: int) -> Tensor | slice:
    """Which of a batch's L rows are this process': its share of the anchors, and their neighbours."""
    if group.alone:
        return slice(None)
    anchors = torch.arange(length // 2)[group.share(length // 2)]
    return torch.cat([anchors, anchors + length // 2])


def _noisy(view: Tensor, sd: float, generator: torch.Generator, length: int, own: Tensor | slice) -> Tensor:
    """(R, own, E) plus noise, the same for all restarts: their bags differ already, and draws are dear.

    It is drawn for all L rows of the group's batch, so that every process' generator stays where the others' are.
    """
    if not sd:
        return view
    noise = torch.randn(length, view.shape[-1], generator=generator, device=view.device, dtype=view.dtype)
    return view + sd * noise[own]


class _Anchors:
    """Batches: each restart goes through its bag of a block in its own order, each anchor with a neighbour in the bag,
    and then on to the next block."""

    def __init__(self, data: Data, size: int, generator: torch.Generator) -> None:
        self.data, self.size, self.generator = data, size, generator
        self.order: Tensor | None = None
        self.position = 0
        restarts = len(data.bags)
        device = data.bags.device
        size = data.window.size
        self.in_bag = torch.zeros(restarts, size, dtype=torch.bool, device=device).scatter_(1, data.bags, True)
        self.restart = torch.arange(restarts, device=device)[:, None, None]

    def draw(self, at_home: bool = True) -> Tensor:
        """(R, 2B) places: B anchors, then a random neighbour of each; an anchor without one in the bag stands twice.

        Args:
            at_home: go through the same block again when it has been gone through.
        """
        bags, device, window = self.data.bags, self.data.bags.device, self.data.window
        if self.order is None or self.position + self.size > bags.shape[1]:
            if self.order is not None and not at_home:
                window.go_to(window.visit + 1)
            chance = torch.rand(bags.shape, generator=self.generator, device=device)
            self.order, self.position = bags.gather(1, chance.argsort(1)), 0
        anchors = self.order[:, self.position : self.position + self.size]
        self.position += self.size
        candidates = window.neighbours[anchors + window.offsets[:, None]]  # (R, B, k)
        chance = torch.rand(candidates.shape, generator=self.generator, device=device)
        chance = chance * self.in_bag[self.restart, candidates]
        best, slot = chance.max(-1, keepdim=True)
        neighbours = torch.where(best > 0, candidates.gather(-1, slot), anchors.unsqueeze(-1)).squeeze(-1)
        return torch.cat([anchors, neighbours], 1)
