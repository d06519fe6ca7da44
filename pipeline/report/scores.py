"""Where there are labels: the table of scores, and which labels are in which cluster. And the restarts, one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from pipeline.corpora.base import natural_key
from pipeline.corpora.tables import parse_number
from pipeline.metrics import clustering_scores, contingency
from pipeline.report.page import Score
from pipeline.report.run import FinishedRun

OURS = "TIB"


def score_table(metrics: Mapping[str, Any]) -> list[Score]:
    """The rows of metrics.json: ours, the restarts, the baselines by NMI, the majority class; [] without labels."""
    if "scores" not in metrics:
        return []
    own = metrics["scores"]
    rows = [Score(OURS, own["acc"], None, own["nmi"], None, own["ari"], None, own["n_clusters_used"], "ours")]
    if metrics.get("n_restarts", 1) > 1:
        rows.append(_spread(f"{OURS}, each of {metrics['n_restarts']} restarts alone", metrics["restarts"], "restarts"))
    baselines = [_spread(name, values, "baseline") for name, values in metrics.get("baselines", {}).items()]
    rows += sorted(baselines, key=lambda row: -row.nmi)
    rows.append(Score("largest class for all", own["majority_acc"], None, 0.0, None, 0.0, None, 1, "majority"))
    return rows


def _spread(method: str, values: Mapping[str, Mapping[str, float]], kind: str) -> Score:
    acc, nmi, ari, used = (values[score] for score in ("acc", "nmi", "ari", "n_clusters_used"))
    return Score(method, acc["mean"], acc["sd"], nmi["mean"], nmi["sd"], ari["mean"], ari["sd"], used["mean"], kind)


def confusion(labels_true: Sequence[str | None], clusters: NDArray[np.int64]) -> dict[str, Any] | None:
    """How many clips of each label are in each cluster; None where no clip has a label.

    Labels are in order of their numbers, or by name. Clusters follow the labels that they are matched to for ACC, so
    that what is right is on the diagonal; then the others, by size.
    """
    rows = [row for row, label in enumerate(labels_true) if label is not None]
    if not rows:
        return None
    known = [str(labels_true[row]) for row in rows]
    counts = contingency(known, clusters[rows])  # both in sorted order
    labels, ids = sorted(set(known)), np.unique(clusters[rows]).tolist()
    order = sorted(range(len(labels)), key=lambda i: _label_key(labels, i))
    counts = counts[order]
    matched = dict(zip(*linear_sum_assignment(counts, maximize=True), strict=True))
    first = [int(matched[row]) for row in range(len(labels)) if row in matched]
    others = sorted(set(range(len(ids))) - set(first), key=lambda column: -counts[:, column].sum())
    columns = [*first, *others]
    return {
        "labels": [labels[i] for i in order],
        "clusters": [ids[column] for column in columns],
        "counts": counts[:, columns].tolist(),
    }


def _label_key(labels: Sequence[str], index: int) -> Any:
    try:
        return [parse_number(label) for label in labels][index]
    except ValueError:
        return natural_key(labels[index])


def restarts_of(run: FinishedRun, labels_true: Sequence[str | None]) -> dict[str, Any]:
    """Each restart alone: its loss, how much its clusters are the run's (ARI), and its ACC where there are labels."""
    restarts = run.model.restart_labels_  # (R, N)
    rows = [row for row, label in enumerate(labels_true) if label is not None]
    known = [labels_true[row] for row in rows]
    losses = [float(loss) if np.isfinite(loss) else None for loss in run.model.restart_losses_]
    return {
        "loss": losses,
        "ari": [float(adjusted_rand_score(run.clusters, restart)) for restart in restarts],
        "acc": [clustering_scores(known, restart[rows])["acc"] for restart in restarts] if rows else None,
    }
