"""How good the clusters are, beside every baseline: mean ± sd over seeds; and what each term of the method is worth.

Each run is a row of a JSON-lines file, so that an interrupted benchmark goes on where it stopped. A row counts for the
very code it was made with: the digest is of tib/ without comments and docstrings.
"""

import ast
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.data import ROOT, DataSet
from pipeline.metrics import clustering_scores
from tib import TIB
from tib.baselines import CannotCluster, baselines

# Each ablation leaves one thing out of the default.
ABLATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "no consistency": {"consistency_weight": 0.0},
    "no fusion": {"fusion_weight": 0.0},
    "no superfluous": {"superfluous_weight": 0.0},
    "no divergence": {"divergence_weight": 0.0},
    "no complementarity": {"complementarity_weight": 0.0},
    "no neighbours in the joint": {"neighbour_share": 0.0},
    "balance 0.9": {"balance": 0.9},
    "schedule free": {"schedule": "free"},
    "schedule anchored": {"schedule": "anchored"},
    "schedule scratch": {"schedule": "scratch"},
    "early stop": {"early_stop": True},
    "R = 1": {"restarts": 1},
    "R = 4": {"restarts": 4},
    "R = 16": {"restarts": 16},
    "R = 64": {"restarts": 64},
}
# All pairs of modalities made consistent, a clip with itself alone, from scratch, one restart, no code to press.
ALL_PAIRS: dict[str, Any] = {
    "schedule": "scratch",
    "fusion_weight": 0.0,
    "neighbour_share": 0.0,
    "superfluous_weight": 0.0,
    "divergence_weight": 0.0,
    "complementarity_weight": 0.0,
}
REFERENCE_VIEWS = {"text", "visual", "audio"}
Rows = list[dict[str, Any]]


class Ledger:
    """Rows that are done, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = code_digest(ROOT / "tib")
        self.rows: Rows = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = [row for row in map(json.loads, lines) if row["code"] == self.code]
            self.rows = list({(row["set"], row["data"], row["method"], row["seed"]): row for row in rows}.values())

    def find(self, **key: Any) -> Rows:
        return [row for row in self.rows if all(row[name] == value for name, value in key.items())]

    def done(self, data: DataSet, method: str, seeds: int) -> bool:
        """Whether the rows of seeds 0 to seeds - 1 are all there."""
        return {row["seed"] for row in self.find(set=data.name, data=data.digest, method=method)} >= set(range(seeds))

    def add(self, row: dict[str, Any]) -> None:
        row = {**row, "code": self.code}
        key = ("set", "data", "method", "seed")
        self.rows = [other for other in self.rows if any(other[name] != row[name] for name in key)]
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def code_digest(folder: Path) -> str:
    """Of what the code does: comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def quality(data: DataSet, seeds: int, ledger: Ledger) -> None:
    """TIB by its defaults, K alone given, from each seed; then every baseline."""
    for seed in tqdm(range(seeds), desc=f"{data.name} TIB", unit="seed"):
        _tib_row(data, "TIB", {}, seed, ledger)
    n_clusters = data.n_clusters
    if not ledger.done(data, "all pairs", seeds):
        _restart_rows(data, "all pairs", TIB(n_clusters, restarts=seeds, random_state=0, **ALL_PAIRS), ledger)
    dims = {view.shape[1] for view in data.views.values()}
    if set(data.views) == REFERENCE_VIEWS and len(dims) == 1 and not ledger.done(data, "reference", seeds):
        reference = TIB(n_clusters, objective="reference", restarts=seeds, random_state=0)
        _restart_rows(data, "reference", reference, ledger)
    for name, run in tqdm(baselines(data.views, n_clusters, range(seeds)).items(), desc=f"{data.name} baselines"):
        if ledger.done(data, name, seeds):
            continue
        started = time.perf_counter()
        try:
            found = run()
        except CannotCluster as reason:
            print(f"{data.name}: no {name}: {reason}")
            continue
        seconds = (time.perf_counter() - started) / seeds
        for seed, clusters in enumerate(found):
            there = clusters >= 0
            ledger.add(_row(data, name, seed, data.labels_true[there], clusters[there], seconds))


def ablations(data: DataSet, seeds: int, ledger: Ledger) -> None:
    """The default with one thing changed, from each seed."""
    for name, settings in ABLATIONS.items():
        for seed in tqdm(range(seeds), desc=f"{data.name} {name}", unit="seed"):
            _tib_row(data, f"ablation: {name}", settings, seed, ledger)


def missing(data: DataSet, share: float, seeds: int, ledger: Ledger) -> None:
    """A share of all (clip, view) entries missing at random, no clip left with nothing."""
    for seed in tqdm(range(seeds), desc=f"{data.name} {share:.0%} missing", unit="seed"):
        gone = np.random.default_rng(seed).random((len(data.labels_true), len(data.views))) < share
        gone[gone.all(axis=1)] = False
        views: dict[str, NDArray[np.floating]] = {n: view.astype(np.float64) for n, view in data.views.items()}
        for index, view in enumerate(views.values()):
            view[gone[:, index]] = np.nan
        _tib_row(replace(data, views=views, source=data.digest), f"TIB, {share:.0%} missing", {}, seed, ledger)


def _tib_row(data: DataSet, method: str, settings: Mapping[str, Any], seed: int, ledger: Ledger) -> None:
    if ledger.find(set=data.name, data=data.digest, method=method, seed=seed):
        return
    started, busy = time.perf_counter(), time.process_time()
    model = TIB(data.n_clusters, random_state=seed, **settings).fit(data.views)
    seconds = time.perf_counter() - started
    row = _row(data, method, seed, data.labels_true, model.labels_, seconds)
    extra = {"cpu_seconds": time.process_time() - busy, "schedule": model.schedule_, "stability": model.stability_}
    ledger.add({**row, **extra})


def _restart_rows(data: DataSet, method: str, model: TIB, ledger: Ledger) -> None:
    """Every restart by itself is a run from its own seed."""
    started = time.perf_counter()
    model.fit(data.views)
    seconds = (time.perf_counter() - started) / len(model.restart_labels_)
    for seed, clusters in enumerate(model.restart_labels_):
        ledger.add(_row(data, method, seed, data.labels_true, clusters, seconds))


def _row(
    data: DataSet, method: str, seed: int, labels_true: NDArray[Any], clusters: NDArray[np.int64], seconds: float
) -> dict[str, Any]:
    scores = clustering_scores(labels_true, clusters)
    return {"set": data.name, "data": data.digest, "method": method, "seed": seed, "seconds": seconds, **scores}


def summary(ledger: Ledger, sets: Iterable[DataSet]) -> list[dict[str, Any]]:
    """A row a set and method: mean and sd of each score, clusters used, seconds."""
    grouped: dict[tuple[str, str], Rows] = {}
    asked = {(data.name, data.digest) for data in sets}
    for row in ledger.rows:
        if (row["set"], row["data"]) not in asked:
            continue
        grouped.setdefault((row["set"], row["method"]), []).append(row)
    return [
        {
            "set": data,
            "method": method,
            "seeds": len(rows),
            **{
                f"{score}_{name}": round(float(statistic([row[score] for row in rows])), 4)
                for score in ("acc", "nmi", "ari", "n_clusters_used", "seconds")
                for name, statistic in _STATISTICS
            },
            **({"schedules": _counts(row.get("schedule") for row in rows)} if "schedule" in rows[0] else {}),
        }
        for (data, method), rows in grouped.items()
    ]


_STATISTICS: tuple[tuple[str, Callable[[list[float]], Any]], ...] = (("mean", np.mean), ("sd", np.std))


def _counts(values: Iterator[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[str(value)] = counts.get(str(value), 0) + 1
    return counts


def text_table(rows: list[dict[str, Any]]) -> str:
    """The summary as text, a block a set, best NMI first."""
    lines = []
    for data in dict.fromkeys(row["set"] for row in rows):
        lines += ["", f"{data:28s} {'ACC':>15s} {'NMI':>15s} {'ARI':>15s} {'clusters':>9s} {'seconds':>8s} seeds"]
        for row in sorted((r for r in rows if r["set"] == data), key=lambda r: -r["nmi_mean"]):
            cells = " ".join(f"{row[f'{s}_mean']:8.3f} ±{row[f'{s}_sd']:.3f}" for s in ("acc", "nmi", "ari"))
            used, seconds = row["n_clusters_used_mean"], row["seconds_mean"]
            lines.append(f"{row['method'][:28]:28s} {cells} {used:9.1f} {seconds:8.2f} {row['seeds']:5d}")
    return "\n".join(lines)
