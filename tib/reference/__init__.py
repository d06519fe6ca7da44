"""The published demo code, `objective="reference"`: its network and its training, to the number."""

from collections.abc import Mapping

import numpy as np
import torch

from tib.checkpoint import Checkpoint
from tib.config import DTYPES, Settings
from tib.reference.net import ReferenceNet as Net
from tib.reference.train import train
from tib.result import OnStep, Outcome, history_of, label_type
from tib.views import View, as_tensors

LIST_NAMES = Net.VIEW_NAMES

__all__ = ["LIST_NAMES", "Net", "fit"]


def fit(
    clips: Mapping[str, View],
    device: torch.device,
    settings: Settings,
    seed: int,
    on_step: OnStep | None,
    checkpoint: Checkpoint,
) -> Outcome:
    """Train R restarts, full batch, in memory, and keep the one with the lowest final loss.

    Raises:
        ValueError: other views than text, visual and audio of one dim; n_clusters="auto"; or the loss is not finite in
            any restart.
    """
    if settings.n_clusters == "auto":
        raise ValueError("objective='reference' needs a number of clusters: n_clusters='auto' is for objective='tib'")
    dims = {name: view.shape[1] for name, view in clips.items()}
    Net.check_dims(dims)
    restarts, views = int(settings.restarts), as_tensors(clips, device)
    training = train(
        Net(dims, int(settings.n_clusters), restarts, DTYPES[settings.dtype]),
        views,
        seeds=[seed + restart for restart in range(restarts)],
        epochs=int(settings.epochs or 0),
        learning_rate=float(settings.learning_rate),
        superfluous_weight=float(settings.superfluous_weight),
        on_step=on_step,
        checkpoint=checkpoint,
    )
    best, curves = training.best, training.curves
    kept = training.net.single(best)
    kept.align_modalities(views)
    alive = np.isfinite(curves["loss"][-1])
    fused, alone = kept.posteriors(views)
    labels = training.net.posterior(views).argmax(-1).cpu().numpy()[alive]
    return Outcome(
        net=kept,
        restart_losses=curves["loss"][-1][alive],
        restart_labels=labels.astype(label_type(int(settings.n_clusters))),
        proba=fused.cpu().numpy(),
        modality_proba={name: alone[name].cpu().numpy() for name in clips},
        history=history_of({name: curve[:, best] for name, curve in curves.items()}),
        learned={"n_clusters": int(settings.n_clusters), "n_clusters_curve": {}, "schedule": "reference",
                 "stability": {}},
    )  # fmt: skip
