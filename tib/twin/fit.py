"""A fit of the whole method: graph, bags, restarts by one schedule or two, their consensus.

Shapes: N clips, M modalities, R restarts, K clusters.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tib.checkpoint import Checkpoint
from tib.config import DTYPES, Settings
from tib.result import OnStep, Outcome, StepReport, history_of
from tib.select import consensus, consensus_columns, stability
from tib.twin.graph import Graph
from tib.twin.model import TwinModel, restart_posteriors
from tib.twin.net import TwinNet
from tib.twin.objective import Weights
from tib.twin.projection import Projection, fill_gaps, present_rows
from tib.twin.train import Data, Pace, Schedule, train

BAG = 0.9
GRAPH_BAGS = 48  # cuts of the graph to tell how steady it is: cheap, and 12 were too few (docs/results.md)
PROBE = 8192  # clips that moments and stability are measured on, at most
GLANCE = 256  # clips that show how training goes
CLEARLY = 0.05  # ARI: by so much must the graph be steadier to be followed, or a K to be preferred to a larger one
SETTLED = 0.995
CHECK_EVERY = 25  # steps
# "free": the graph gives a start, noise of a whole standard deviation hides all directions of a view that vary less
# than one feature does, and the objective decides. "anchored": the partition outweighs the objective all along.
# "scratch" does without the partition, for comparison.
SCHEDULES = {
    "free": Schedule("free", 0.1, 0.0, 1.0),
    "anchored": Schedule("anchored", 0.1, 10.0, 0.25),
    "scratch": Schedule("scratch", 0.0, 0.0, 1.0),
}


def fit(
    views: Mapping[str, Tensor], settings: Settings, seed: int, on_step: OnStep | None, checkpoint: Checkpoint
) -> Outcome:
    """Cluster the clips.

    Args:
        views: name -> (N, D), on the device to train on; a row of NaN is a clip without that modality.
        checkpoint: gone on from, and kept.
    Raises:
        ValueError: the loss is not finite in any restart.
    """
    device = next(iter(views.values())).device
    generator = torch.Generator().manual_seed(seed)
    present = torch.stack([present_rows(view) for view in views.values()])
    projections = _projections(views, present, DTYPES[settings.dtype], seed)
    inputs = [projections[name](view) for name, view in views.items()]
    graph = Graph.of(inputs, present, generator)
    inputs = [fill_gaps(view, have, graph.neighbours) for view, have in zip(inputs, present, strict=True)]

    restarts, auto_k = int(settings.restarts), settings.n_clusters == "auto"
    # For a curve, two cuts of each block at least: only they have something to compare.
    cuts = max(GRAPH_BAGS, 2 * len(graph.blocks) if auto_k else 0)
    bags = _bags(present.shape[1], max(restarts, cuts) if restarts > 1 or auto_k else 1, generator)
    curve = graph.n_clusters_curve(bags, settings.max_clusters, seed) if auto_k else {}
    n_clusters = _proposed(curve) if curve else int(settings.n_clusters)
    partitions = graph.partitions(bags, n_clusters, seed)
    data = Data(inputs, present, graph.neighbours, bags[:restarts].to(device), partitions[:restarts].to(device),
                bool(present.all()))  # fmt: skip
    run = _Run(data, settings, n_clusters, generator, seed, on_step, checkpoint)
    stability_by = {"graph": stability(partitions.numpy())} if restarts > 1 else {}

    # One restart cannot tell how steady it is: then the graph, which at least is no accident, is followed.
    auto = settings.schedule == "auto"
    schedule = settings.schedule if not auto else "free" if restarts > 1 else "anchored"
    left_in_second = run.kept is not None and run.kept["stage"] != schedule
    if run.kept is not None:
        stability_by = dict(run.kept["stability"])
    if not left_in_second:
        net, curves, posteriors = run.train(SCHEDULES[schedule], stability_by)
    if left_in_second or (auto and restarts > 1 and stability_by["graph"] > stability_by.get("free", 0.0) + CLEARLY):
        schedule = "anchored"
        net, curves, posteriors = run.train(SCHEDULES[schedule], stability_by)
    model = TwinModel(projections, net).to(device)
    model.columns.copy_(torch.from_numpy(consensus_columns(list(posteriors))))
    return Outcome(
        net=model,
        restart_losses=curves["loss"][-1],
        restart_labels=model.restart_labels(views).cpu().numpy(),
        history=history_of({name: values.mean(axis=1) for name, values in curves.items()}),
        learned={"n_clusters": n_clusters, "n_clusters_curve": curve, "schedule": schedule, "stability": stability_by},
    )


def _proposed(curve: Mapping[int, float]) -> int:
    """The largest K that is not clearly less steady than the steadiest.

    Two or three clusters are nearly always steady, as the coarsest cut of whatever there is; of cuts that come out
    again alike, the finest says most.
    """
    best = max(curve.values())
    return max(k for k, value in curve.items() if value >= best - CLEARLY)


def _projections(views: Mapping[str, Tensor], present: Tensor, dtype: torch.dtype, seed: int) -> dict[str, Projection]:
    fitted = {}
    for (name, view), have in zip(views.items(), present, strict=True):
        fitted[name] = Projection.fitted(view[have].cpu().numpy(), dtype, seed).to(view.device)
    return fitted


def _bags(n_clips: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, n) the clips that each restart learns from, or a cut: BAG of all, drawn without putting back."""
    size = max(2, round(BAG * n_clips))
    return torch.stack([torch.randperm(n_clips, generator=generator)[:size].sort().values for _ in range(count)])


class _Run:
    """What both schedules share."""

    def __init__(
        self,
        data: Data,
        settings: Settings,
        n_clusters: int,
        generator: torch.Generator,
        seed: int,
        on_step: OnStep | None,
        checkpoint: Checkpoint,
    ) -> None:
        self.checkpoint, self.kept = checkpoint, checkpoint.found
        self.data, self.n_clusters, self.generator, self.seed = data, n_clusters, generator, seed
        self.on_step, self.early_stop = on_step, settings.early_stop
        self.weights = Weights(
            consistency=settings.consistency_weight,
            fusion=settings.fusion_weight,
            superfluous=settings.superfluous_weight,
            divergence=settings.divergence_weight,
            complementarity=settings.complementarity_weight,
            neighbour_share=settings.neighbour_share,
            balance=settings.balance,
        )
        self.pace = Pace(settings.batch_size, settings.epochs, settings.learning_rate)
        n_clips = data.present.shape[1]
        order = torch.randperm(n_clips, generator=generator).to(data.present.device)
        self.probe, self.glance = order[:PROBE].sort().values, order[:GLANCE].sort().values

    def train(
        self, schedule: Schedule, stability_by: dict[str, float]
    ) -> tuple[TwinNet, dict[str, NDArray[np.float64]], NDArray[np.floating]]:
        """Restarts that stayed finite, their curves (steps, R) and posteriors of the probe (R, n, K)."""
        data, device = self.data, self.data.present.device
        restarts, dtype = len(data.bags), data.views[0].dtype
        net = TwinNet([view.shape[1] for view in data.views], self.n_clusters, restarts, dtype)
        net.initialise(self.generator)
        net.to(device)
        draws = torch.Generator(device).manual_seed(self.seed)
        watch = _Watch(self, schedule.name)
        kept, self.kept = self.kept, None  # of the stage it was left in, and of no later one
        if kept is not None:
            watch.last, watch.calm = kept["watch"]

        def keep(state: Callable[[], dict[str, Any]]) -> None:
            self.checkpoint.keep(
                lambda: {
                    "stage": schedule.name,
                    "stability": dict(stability_by),
                    "watch": (watch.last, watch.calm),
                    "training": state(),
                }
            )

        curves = train(
            net, data, schedule, self.weights, self.pace, draws, watch,
            kept=None if kept is None else kept["training"], keep=keep,
        )  # fmt: skip
        net.keep_moments([view[self.probe] for view in data.views])
        posteriors = self.posteriors(net, self.probe)
        # The last step can break a restart whose last loss was finite.
        alive = np.flatnonzero(curves["loss"][-1].isfinite().numpy() & np.isfinite(posteriors).all((1, 2))).tolist()
        if not alive:
            raise ValueError(
                "the loss is not finite in any restart; lower learning_rate, or look for outliers in the views"
            )
        posteriors = posteriors[alive]
        if len(alive) > 1:
            stability_by[schedule.name] = stability(posteriors.argmax(-1))
        return net.take(alive), {name: values[:, alive].numpy() for name, values in curves.items()}, posteriors

    def posteriors(self, net: TwinNet, rows: Tensor) -> NDArray[np.floating]:
        """(R, n, K) of some clips, by the moments kept."""
        fused, _ = restart_posteriors(net, [view[rows] for view in self.data.views], self.data.present[:, rows])
        return fused.cpu().numpy()

    def now(self, net: TwinNet, alive: list[int], rows: Tensor) -> NDArray[np.floating]:
        """(R, n, K) of some clips in the middle of training, which goes on with the moments of its batches."""
        copy = net.take(alive)
        copy.keep_moments([view[rows[:PROBE]] for view in self.data.views])
        return self.posteriors(copy, rows)


class _Watch:
    """What is done after each step of a stage: the report, and the check whether the clusters have settled.

    Attributes:
        last: (R, n) clusters at the last check, or None.
        calm: checks in a row that found them as they were.
    """

    def __init__(self, run: _Run, stage: str) -> None:
        self.run, self.stage = run, stage
        self.last: Tensor | None = None
        self.calm = 0

    def __call__(self, step: int, steps: int, terms: dict[str, Tensor], net: TwinNet) -> bool:
        alive = terms["loss"].isfinite().nonzero().flatten().tolist()
        if self.run.on_step is not None:
            self.run.on_step(self._report(step, steps, terms, net, alive))
        # Not before half time: the clusters of the warm-up settle soon, and mean nothing yet.
        if not self.run.early_stop or not alive or step % CHECK_EVERY or 2 * step < steps:
            return False
        clusters = torch.from_numpy(self.run.now(net, alive, self.run.glance).argmax(-1))
        same = (
            self.last is not None
            and self.last.shape == clusters.shape
            and float(torch.eq(clusters, self.last).double().mean()) >= SETTLED
        )
        self.calm, self.last = (self.calm + 1 if same else 0), clusters
        return self.calm >= 2

    def _report(self, step: int, steps: int, terms: dict[str, Tensor], net: TwinNet, alive: list[int]) -> StepReport:
        run = self.run
        everyone = torch.arange(run.data.present.shape[1], device=run.probe.device)
        return StepReport(
            stage=self.stage,
            step=step,
            steps=steps,
            losses={name: float(values[alive].mean()) for name, values in terms.items()},
            alive=len(alive),
            predict=lambda: (
                consensus(list(run.now(net, alive, everyone))).argmax(-1)
                if alive
                else np.zeros(len(everyone), dtype=np.int64)
            ),
            stability=lambda: stability(run.now(net, alive, run.glance).argmax(-1)) if len(alive) > 1 else float("nan"),
        )
