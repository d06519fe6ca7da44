"""What a corpus of any size costs, from the costs of one clip; and a simulation of the largest, with what goes wrong.

python -m benchmarks.scale_model                              all sizes of the assumptions, JSON
python -m benchmarks.scale_model --assumptions my.yaml        with your own
"""

import argparse
import json
import sys
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import yaml

ASSUMPTIONS = Path(__file__).with_name("scale_assumptions.yaml")
ENCODERS = ("visual", "audio", "text")
HOUR, TERA = 3600.0, 1e12
Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Equal machines. cores and gpus are a node's."""

    nodes: int
    cores: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a whole run over n_clips.

    Attributes:
        seconds: what each part takes if nothing else limits it; they run beside each other, but for training.
        bottleneck: the part of extraction that takes longest.
        extract_s, reduce_s, train_s, assign_s: wall time; all but the first on one machine.
        core_h, gpu_h: used.
        read_tb, stored_tb: of clips and of embeddings.
        price: in the currency of the prices; None where one is not given.
    """

    n_clips: int
    fleet: Fleet
    seconds: dict[str, float]
    bottleneck: str
    extract_s: float
    reduce_s: float
    train_s: float
    assign_s: float
    core_h: float
    gpu_h: float
    read_tb: float
    stored_tb: float
    price: float | None


def estimate(n_clips: int, fleet: Fleet, assumed: Mapping[str, Any]) -> Estimate:
    """Time by the busiest of network, cores and GPUs, as all of them work at once on different clips.

    Args:
        assumed: the content of scale_assumptions.yaml.
    """
    clip, train, node = assumed["clip"], assumed["train"], assumed["node"]
    on_gpu = fleet.gpus > 0
    core_s = n_clips * _core_s(clip, on_gpu=on_gpu)
    gpu_s = n_clips * sum(clip["gpu_s"][name] for name in ENCODERS) if on_gpu else 0.0
    seconds = {
        "network": n_clips * clip["bytes"] / (fleet.nodes * node["network_bytes_s"]),
        "cores": core_s / (fleet.nodes * fleet.cores),
        "gpus": gpu_s / (fleet.nodes * fleet.gpus) if on_gpu else 0.0,
    }
    bottleneck = max(seconds, key=lambda name: seconds[name])
    alone = assumed["one_machine"]
    trained = min(n_clips * train["passes"], train["most_anchors"])
    train_core_s = trained * train["core_s_an_anchor"]
    assign_core_s = n_clips * assumed["assign"]["core_s_a_clip"]
    # A pass adds up the scatter matrix, a second one applies what it gives: both read every embedding.
    dims, fitted_on = assumed["reduce"]["dims"], min(n_clips, assumed["reduce"]["fit_clips"])
    flop = fitted_on * 2 * sum(dim**2 for dim in dims) + n_clips * 2 * sum(dims) * assumed["reduce"]["kept"]
    reduce_s = flop / alone["float64_flop_s"] + 2 * n_clips * clip["stored_bytes"]["embeddings"] / alone["read_bytes_s"]
    stored = n_clips * sum(clip["stored_bytes"].values())
    core_h = (core_s + train_core_s + assign_core_s + alone["cores"] * reduce_s) / HOUR
    gpu_h = gpu_s / HOUR
    prices = assumed["prices"]
    costs = [prices["core_h"], prices["gpu_h"], prices["tb_month"]]
    price = None
    if all(cost is not None for cost in costs):
        price = core_h * costs[0] + gpu_h * costs[1] + stored / TERA * costs[2]
    return Estimate(
        n_clips, fleet, seconds, bottleneck, seconds[bottleneck], reduce_s, train_core_s / alone["cores"],
        assign_core_s / alone["cores"], core_h, gpu_h, n_clips * clip["bytes"] / TERA, stored / TERA, price,
    )  # fmt: skip


def _core_s(clip: Mapping[str, Any], *, on_gpu: bool) -> float:
    """CPU seconds of one clip."""
    parts = ("read", "prepare") if on_gpu else ("read", "prepare", *ENCODERS)
    return float(sum(clip["core_s"][name] for name in parts)) * float(clip["together"])


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulated extraction came to.

    Attributes:
        hours: from the first arrival to the last clip.
        against_estimate: hours over those of `estimate`.
        cores_busy: share of the time that a core works, between 0 and 1.
        redone: share of the tasks begun again because their node failed.
        node_failures, failed_clips: how many.
        wait_p50_s, wait_p99_s: from a task's arrival to its end.
    """

    hours: float
    against_estimate: float
    cores_busy: float
    redone: float
    node_failures: int
    failed_clips: int
    wait_p50_s: float
    wait_p99_s: float


def simulate(n_clips: int, fleet: Fleet, assumed: Mapping[str, Any]) -> Simulated:
    """Blocks of clips through a fleet, event by event: arrival, reading, encoding, stragglers, nodes that fail.

    A task is a block of clips, on one node with all its cores and GPUs. A node that fails loses the task at hand, which
    another takes up; what it finished before is in the store.
    """
    told = assumed["simulation"]
    block = max(1, min(told["block"], n_clips // (8 * fleet.nodes)))  # of few clips too each node gets some
    run = _Simulation(fleet, assumed, block, np.random.default_rng(told["seed"]))
    n_tasks = -(-n_clips // block)
    run.go(n_tasks, gap_s=told["arrival_days"] * 24 * HOUR / n_tasks)
    waits = np.array(run.waits)
    expected = max(estimate(n_clips, fleet, assumed).extract_s, told["arrival_days"] * 24 * HOUR)
    return Simulated(
        hours=run.env.now / HOUR,
        against_estimate=run.env.now / expected,
        cores_busy=run.busy_s / (run.env.now * fleet.nodes),
        redone=run.redone / n_tasks,
        node_failures=run.node_failures,
        failed_clips=int(run.random.binomial(n_clips, told["clip_failures"])),
        wait_p50_s=float(np.quantile(waits, 0.5)),
        wait_p99_s=float(np.quantile(waits, 0.99)),
    )


class _Simulation:
    """One simulated run.

    Attributes:
        waits: seconds from arrival to end, one a finished task.
        busy_s: seconds that nodes worked, in all.
    """

    def __init__(self, fleet: Fleet, assumed: Mapping[str, Any], block: int, random: np.random.Generator) -> None:
        self.fleet, self.random = fleet, random
        self.told, self.node = assumed["simulation"], assumed["node"]
        clip, on_gpu = assumed["clip"], fleet.gpus > 0
        cores_s = block * _core_s(clip, on_gpu=on_gpu) / fleet.cores
        network_s = block * clip["bytes"] / self.node["network_bytes_s"]
        gpu_s = block * sum(clip["gpu_s"][name] for name in ENCODERS) / fleet.gpus if on_gpu else 0.0
        # Within a node a block's clips are fetched, read and encoded at once: the slowest tells.
        self.task_s = max(cores_s, network_s, gpu_s)
        self.env = simpy.Environment()
        self.queue = simpy.Store(self.env)
        self.left = 0
        self.waits: list[float] = []
        self.busy_s, self.redone, self.node_failures = 0.0, 0, 0

    def go(self, n_tasks: int, *, gap_s: float) -> None:
        self.left = n_tasks
        self.done = self.env.event()
        self.env.process(self._arrive(n_tasks, gap_s))
        for _ in range(self.fleet.nodes):
            self.env.process(self._work())
        self.env.run(until=self.done)

    def _arrive(self, n_tasks: int, gap_s: float) -> Events:
        for _ in range(n_tasks):
            yield self.queue.put(self.env.now)
            if gap_s:
                yield self.env.timeout(gap_s)

    def _work(self) -> Events:
        """A node: task after task, until it fails; then another takes its place."""
        fails_at = self.env.now + self._lifetime()
        while True:
            arrived: float = yield self.queue.get()
            seconds = self.task_s
            if self.random.random() < self.told["straggler_share"]:
                seconds *= self.told["straggler_factor"]
            if self.env.now + seconds > fails_at:
                lost = max(0.0, fails_at - self.env.now)
                yield self.env.timeout(lost)
                self.node_failures += 1
                self.redone += 1
                self.busy_s += lost
                yield self.queue.put(arrived)
                yield self.env.timeout(self.node["repair_s"])
                fails_at = self.env.now + self._lifetime()
                continue
            yield self.env.timeout(seconds)
            self.busy_s += seconds
            self.waits.append(self.env.now - arrived)
            self.left -= 1
            if not self.left:
                self.done.succeed()

    def _lifetime(self) -> float:
        return float(self.random.exponential(self.node["mtbf_h"] * HOUR))


def read_assumptions(path: Path) -> dict[str, Any]:
    """The content of an assumptions file; large numbers as 367_000, as YAML takes 1e9 for a word."""
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def all_sizes(assumed: Mapping[str, Any]) -> dict[str, Any]:
    """An estimate and a simulation of each fleet of the assumptions."""
    fleets = {int(n_clips): Fleet(**fleet) for n_clips, fleet in assumed["fleets"].items()}
    return {
        "estimates": [asdict(estimate(n_clips, fleet, assumed)) for n_clips, fleet in fleets.items()],
        "simulations": {n_clips: asdict(simulate(n_clips, fleet, assumed)) for n_clips, fleet in fleets.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assumptions", type=Path, default=ASSUMPTIONS)
    print(json.dumps(all_sizes(read_assumptions(parser.parse_args().assumptions)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
