"""A fit of the whole method: graph, bags, restarts by one schedule or two, their consensus.

Shapes: N clips, M modalities, R restarts, K clusters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tib import scratch
from tib.checkpoint import Checkpoint
from tib.config import DTYPES, Settings
from tib.group import Group
from tib.result import OnStep, Outcome, StepReport, history_of, label_type
from tib.select import consensus_columns, stability
from tib.twin.blocks import Block, Blocks, Window
from tib.twin.graph import n_clusters_curve, partition_stability, partitions
from tib.twin.model import CHUNK, TwinModel, restart_posteriors
from tib.twin.net import TwinNet
from tib.twin.objective import Weights
from tib.twin.projection import Projection
from tib.twin.train import Data, Pace, Schedule, train
from tib.views import View, as_tensors, row_slices

BAG = 0.9
GRAPH_BAGS = 48  # cuts of the graph to tell how steady it is: cheap, and 12 were too few (docs/results.md)
HOMES = 12  # blocks that restarts begin in: as many as there are restarts, at the default
LEARNED_FROM = 12_000  # clips that scales and directions are learned from, at most
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
    views: Mapping[str, View],
    device: torch.device,
    settings: Settings,
    seed: int,
    on_step: OnStep | None,
    checkpoint: Checkpoint,
) -> Outcome:
    """Cluster the clips.

    Args:
        views: name -> (N, D); a row of NaN is a clip without that modality. Read by rows, in blocks.
        device: to train on.
        checkpoint: gone on from, and kept.
    Raises:
        ValueError: the loss is not finite in any restart.
    """
    generator = torch.Generator().manual_seed(seed)
    projections = _projections(views, DTYPES[settings.dtype], seed, device)
    blocks = Blocks(views, projections, generator)
    restarts, auto_k = int(settings.restarts), settings.n_clusters == "auto"
    bags = _bags(blocks.size, max(restarts, GRAPH_BAGS) if restarts > 1 or auto_k else 1, generator)
    window = Window(blocks, restarts, HOMES)
    graphs = [block.neighbours for block in blocks[: window.homes]]
    curve = n_clusters_curve(graphs, bags, settings.max_clusters, seed) if auto_k else {}
    n_clusters = _proposed(curve) if curve else int(settings.n_clusters)
    cuts = partitions(graphs, bags, n_clusters, seed)
    complete = all(bool(view.present.all()) for view in views.values())
    data = Data(window, bags[:restarts].to(device), cuts[:restarts].to(device), complete)
    run = _Run(views, projections, data, settings, n_clusters, generator, seed, on_step, checkpoint)
    stability_by = {"graph": partition_stability(cuts, len(graphs))} if restarts > 1 else {}

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
    model = _model(projections, net, posteriors)
    proba, alone, labels = said(model, views)
    return Outcome(
        net=model,
        restart_losses=curves["loss"][-1],
        restart_labels=labels,
        proba=proba,
        modality_proba=alone,
        history=history_of({name: values.mean(axis=1) for name, values in curves.items()}),
        learned={"n_clusters": n_clusters, "n_clusters_curve": curve, "schedule": schedule, "stability": stability_by},
    )


def said(
    model: TwinModel, views: Mapping[str, View]
) -> tuple[NDArray[np.floating], dict[str, NDArray[np.floating]], NDArray[np.signedinteger]]:
    """Of all clips (N, K) by all modalities, name -> (N, K) by each alone, and (R, N) clusters by each restart."""
    n_clips, n_clusters, device = len(next(iter(views.values()))), model.net.n_clusters, model.columns.device
    dtype = next(iter(views.values())).dtype
    proba = scratch.empty((n_clips, n_clusters), dtype)
    alone = {name: scratch.empty((n_clips, n_clusters), dtype) for name in views}
    labels = scratch.empty((model.net.restarts, n_clips), label_type(n_clusters))
    for rows in row_slices(n_clips, CHUNK):
        chunk, chunk_alone, chunk_labels = model.said(as_tensors(views, device, rows))
        proba[rows], labels[:, rows] = chunk.cpu().numpy(), chunk_labels.cpu().numpy()
        for name, values in chunk_alone.items():
            alone[name][rows] = values.cpu().numpy()
        for array in (proba, labels, *alone.values()):
            scratch.let_go(array)
    return proba, alone, labels


def _model(projections: Mapping[str, Projection], net: TwinNet, posteriors: NDArray[np.floating]) -> TwinModel:
    """The consensus of restarts whose posteriors of some clips, (R, n, K), tell how their clusters match."""
    model = TwinModel(projections, net).to(net.psi_1.device)
    model.columns.copy_(torch.from_numpy(consensus_columns(list(posteriors))))
    return model


def _proposed(curve: Mapping[int, float]) -> int:
    """The largest K that is not clearly less steady than the steadiest.

    Two or three clusters are nearly always steady, as the coarsest cut of whatever there is; of cuts that come out
    again alike, the finest says most.
    """
    best = max(curve.values())
    return max(k for k, value in curve.items() if value >= best - CLEARLY)


def _projections(
    views: Mapping[str, View], dtype: torch.dtype, seed: int, device: torch.device
) -> dict[str, Projection]:
    """Learned from LEARNED_FROM of the clips that have the view: an sd is then known to within 1 %."""
    fitted = {}
    for index, (name, view) in enumerate(views.items()):
        rows = np.flatnonzero(view.present)
        if len(rows) > LEARNED_FROM:
            rows = np.sort(np.random.default_rng([seed, index]).choice(rows, LEARNED_FROM, replace=False))
        fitted[name] = Projection.fitted(view[rows], dtype, seed).to(device)
    return fitted


def _bags(size: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, b) places in a block of the clips that each restart learns from, or a cut: BAG of all, drawn without
    putting back. They are the same in every block: which clips a block has is chance already.
    """
    kept = max(2, round(BAG * size))
    return torch.stack([torch.randperm(size, generator=generator)[:kept].sort().values for _ in range(count)])


class _Run:
    """What both schedules share."""

    def __init__(
        self,
        views: Mapping[str, View],
        projections: Mapping[str, Projection],
        data: Data,
        settings: Settings,
        n_clusters: int,
        generator: torch.Generator,
        seed: int,
        on_step: OnStep | None,
        checkpoint: Checkpoint,
    ) -> None:
        self.checkpoint, self.kept, self.group = checkpoint, checkpoint.found, Group.current()
        self.views, self.projections = views, projections
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
        self.pace = Pace(settings.batch_size, settings.epochs, settings.learning_rate, settings.joint_momentum)
        some = data.window.blocks[:2]  # blocks are random, so these are clips like all others
        order = torch.randperm(len(some) * data.window.size, generator=generator)
        self.probe, self.glance = _some(some, order[:PROBE].sort().values), _some(some, order[:GLANCE].sort().values)

    def train(
        self, schedule: Schedule, stability_by: dict[str, float]
    ) -> tuple[TwinNet, dict[str, NDArray[np.float64]], NDArray[np.floating]]:
        """Restarts that stayed finite, their curves (steps, R) and posteriors of the probe (R, n, K)."""
        data, device, views = self.data, self.data.bags.device, self.probe.views
        restarts, dtype = len(data.bags), views[0].dtype
        net = TwinNet([view.shape[1] for view in views], self.n_clusters, restarts, dtype)
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
            kept=None if kept is None else kept["training"], keep=keep, group=self.group,
        )  # fmt: skip
        self.group.tensors_from_first(list(net.state_dict().values()))
        net.keep_moments(views)
        posteriors = _posteriors(net, self.probe)
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

    def now(self, net: TwinNet, alive: list[int], clips: Block) -> tuple[TwinNet, NDArray[np.floating]]:
        """The restarts alive in the middle of training, which goes on with the moments of its batches, and what they
        say of some clips, (R, n, K), by the moments of these."""
        copy = net.take(alive)
        copy.keep_moments(clips.views)
        return copy, _posteriors(copy, clips)

    def clusters_now(self, net: TwinNet, alive: list[int]) -> NDArray[np.int64]:
        """(N,) by the consensus of the restarts alive."""
        if not alive:
            return np.zeros(len(next(iter(self.views.values()))), dtype=np.int64)
        return said(_model(self.projections, *self.now(net, alive, self.probe)), self.views)[0].argmax(-1)


def _some(blocks: Sequence[Block], rows: Tensor) -> Block:
    """Some of the clips of a few blocks, without neighbours."""
    rows = rows.to(blocks[0].present.device)
    views = [torch.cat(parts)[rows] for parts in zip(*(block.views for block in blocks), strict=True)]
    return Block(views, torch.cat([block.present for block in blocks], 1)[:, rows], rows[:0, None])


def _posteriors(net: TwinNet, clips: Block) -> NDArray[np.floating]:
    """(R, n, K) by the moments kept."""
    return restart_posteriors(net, clips.views, clips.present)[0].cpu().numpy()


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
        clusters = torch.from_numpy(self.run.now(net, alive, self.run.glance)[1].argmax(-1))
        same = (
            self.last is not None
            and self.last.shape == clusters.shape
            and float(torch.eq(clusters, self.last).double().mean()) >= SETTLED
        )
        self.calm, self.last = (self.calm + 1 if same else 0), clusters
        return self.calm >= 2

    def _report(self, step: int, steps: int, terms: dict[str, Tensor], net: TwinNet, alive: list[int]) -> StepReport:
        run = self.run
        return StepReport(
            stage=self.stage,
            step=step,
            steps=steps,
            losses={name: float(values[alive].mean()) for name, values in terms.items()},
            alive=len(alive),
            predict=lambda: run.clusters_now(net, alive),
            stability=lambda: (
                stability(run.now(net, alive, run.glance)[1].argmax(-1)) if len(alive) > 1 else float("nan")
            ),
        )
