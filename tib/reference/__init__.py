"""The published demo code, `objective="reference"`: its network and its training, to the number."""

from collections.abc import Mapping

from torch import Tensor

from tib.config import DTYPES, Settings
from tib.reference.net import ReferenceNet as Net
from tib.reference.train import train
from tib.result import OnStep, Outcome, history_of

LIST_NAMES = Net.VIEW_NAMES
check_dims = Net.check_dims

__all__ = ["LIST_NAMES", "Net", "check_dims", "fit"]


def fit(views: Mapping[str, Tensor], settings: Settings, seed: int, on_step: OnStep | None) -> Outcome:
    """Train R restarts and keep the one with the lowest final loss.

    Raises:
        ValueError: n_clusters="auto", or the loss is not finite in any restart.
    """
    if settings.n_clusters == "auto" or settings.epochs is None:
        raise ValueError("objective='reference' needs a number of clusters: n_clusters='auto' is for objective='tib'")
    dims = {name: view.shape[1] for name, view in views.items()}
    restarts = int(settings.restarts)
    training = train(
        Net(dims, int(settings.n_clusters), restarts, DTYPES[settings.dtype]),
        views,
        seeds=[seed + restart for restart in range(restarts)],
        epochs=int(settings.epochs),
        learning_rate=float(settings.learning_rate),
        superfluous_weight=float(settings.superfluous_weight),
        on_step=on_step,
    )
    best, curves = training.best, training.curves
    kept = training.net.single(best)
    kept.align_modalities(views)
    return Outcome(
        net=kept,
        restart_losses=curves["loss"][-1].copy(),
        restart_labels=training.net.posterior(views).argmax(-1).cpu().numpy(),
        history=history_of({name: curve[:, best] for name, curve in curves.items()}),
        learned={"n_clusters": int(settings.n_clusters), "n_clusters_curve": {}, "schedule": "reference",
                 "steadiness": {}},
    )  # fmt: skip
