"""`make bench-davenet`: what training DAVEnet on a corpus' own clips gives, as JSON. Exit 1 where a target is missed.

For the demo corpus, and for the GRID clips where they lie beside the checkout: held-out retrieval before and after,
beside chance; seconds an epoch; peak memory; and the NMI of k-means on the sound alone for random weights, for the
statistics of the log-mel and for the trained network, each as the pipeline reduces it. Labels are read for these scores
alone. Then the matchmaps of one batch against the double loop, and a training step in fp32 and bf16, alternating.

make bench-davenet                    3 seeds, 6 to 20 minutes on two cores
make bench-davenet ARGS="--seeds 8"   what docs/results.md quotes
make bench-davenet ARGS=--quick       1 seed, 3 epochs, the demo alone: minutes
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
import torch

from benchmarks.data import BESIDE, ROOT
from benchmarks.machine import machine
from extractors.audio_davenet import DAVEnetExtractor
from extractors.pretraining.matchmap import SIMILARITIES, similarity_matrix
from extractors.pretraining.networks import DualEncoder, ImageHead
from pipeline.config import Settings, load_settings
from pipeline.extract import extract
from pipeline.features import stores_of
from pipeline.manifest import read_labels, to_clip
from pipeline.metrics import clustering_scores
from pipeline.prepare import manifest_of, prepare
from pipeline.pretrain_audio import pretrain_audio
from pipeline.reduction import fit_reduction
from tib.baselines import k_means

WORK = ROOT / "work" / "bench" / "davenet"
KMEANS_SEEDS = range(5)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-davenet", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--quick", action="store_true", help="1 seed, 3 epochs, the demo alone: minutes")
    parser.add_argument("--seeds", type=int, help="default 3")
    quick, seeds = (arguments := parser.parse_args()).quick, arguments.seeds
    seeds = seeds or (1 if quick else 3)
    short = ["pretrain.epochs=3"] if quick else []
    result: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    with redirect_stdout(sys.stderr):  # the stages' own lines; stdout is for the JSON
        result["corpora"] = [corpus("demo", ROOT / "work" / "demo" / "clips", seeds, short)]
        if not quick and (BESIDE / "grid").is_dir():
            result["corpora"].append(corpus("grid", BESIDE / "grid", seeds, short))
        result["matchmaps"] = matchmaps(rounds=3 if quick else 7)
        result["step"] = step(rounds=3 if quick else 7)
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    result["targets"] = targets(result)
    print(json.dumps(result, indent=1))
    for name, target in result["targets"].items():
        told = f"{'met   ' if target['met'] else 'MISSED'} {name}: {target['is']} (wanted {target['wanted']})"
        print(told, file=sys.stderr)
    return 0 if all(target["met"] for target in result["targets"].values()) else 1


def corpus(name: str, root: Path, seeds: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Trains and scores `seeds` times; what is on disk already is taken as it is."""

    def settings_of(*more: str) -> Settings:
        config = ROOT / "configs" / f"{name}.yaml"
        where = [f"workdir={WORK / name}", f"corpus.root={root}", "extract.audio.weights=self"]
        return load_settings(config, [*where, *overrides, *more])

    prepare(settings_of())
    trained: list[dict[str, Any]] = []
    scores: dict[str, list[dict[str, float]]] = {"random": [], "self": []}
    for seed in range(seeds):
        settings = settings_of(f"pretrain.seed={seed}")
        weights = pretrain_audio(settings, *manifest_of(settings))
        trained.append(json.loads(weights.with_suffix(".json").read_text(encoding="utf-8")))
        scores["self"].append(sound_alone(settings))
        scores["random"].append(sound_alone(settings_of("extract.audio.weights=random", f"extract.audio.seed={seed}")))
    floor = sound_alone(settings_of("extract.audio.backbone=audio/logmel_stats"))
    return {
        "corpus": name,
        "clips": trained[0]["trained_on"],
        "settings": trained[0]["settings"],
        "precision": trained[0]["precision"],
        "epochs": [record["epochs"] for record in trained],
        "best_epoch": [record["best_epoch"] for record in trained],
        "seconds_an_epoch": round(median(r["seconds_since_start"] / r["epochs"] for r in trained), 2),
        "held_out": {
            "chance": trained[0]["best"]["chance"],
            "untrained": [record["untrained"] for record in trained],
            "trained": [record["best"] for record in trained],
        },
        "k_means_on_sound_alone": {
            "random": spread(scores["random"]),
            "logmel_stats": spread([floor]),
            "self": spread(scores["self"]),
        },
    }


def sound_alone(settings: Settings) -> dict[str, float]:
    """Mean ACC and NMI over k-means' seeds, on the sound's embeddings as the pipeline reduces them."""
    manifest, root = manifest_of(settings)
    extract(settings, manifest, root, only=["audio"])
    clips = [to_clip(clip, root) for clip in manifest]
    store, sources = stores_of(settings, clips, "bench")["audio"]
    embeddings = store.read(sources)
    labels = read_labels(settings.work / "labels.csv")
    ids = [clip.clip_id for clip in clips if clip.clip_id in embeddings and clip.clip_id in labels]
    view = np.stack([embeddings[clip_id] for clip_id in ids])
    dim = min(settings.reduce.dim or view.shape[1], *np.subtract(view.shape, (1, 0)))
    points = fit_reduction(view, int(dim), standardize=True).apply(view)
    truth, k = np.array([labels[clip_id] for clip_id in ids]), len(set(labels.values()))
    found = [clustering_scores(truth, k_means(points, k, seed)) for seed in KMEANS_SEEDS]
    return {name: mean(float(scores[name]) for scores in found) for name in ("acc", "nmi")}


def spread(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean and sd over the seeds of the weights."""
    return {
        name: {"mean": round(mean(s[name] for s in scores), 4), "sd": round(pstdev(s[name] for s in scores), 4)}
        for name in ("acc", "nmi")
    } | {"seeds": len(scores)}


def matchmaps(rounds: int, batch: int = 32) -> dict[str, Any]:
    """Seconds of a batch's similarities, with their gradient: one product for all against the double loop."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 1024, 49, generator=generator)
    audios = torch.randn(batch, 1024, 18, generator=generator)
    n_steps = torch.randint(8, 19, (batch,), generator=generator)
    found: dict[str, Any] = {"pairs": batch, "places": 49, "steps": 18}
    for kind in SIMILARITIES:
        loop = partial(_double_loop, n_steps=n_steps, kind=kind)
        at_once = partial(similarity_matrix, n_steps=n_steps, kind=kind)
        ways = {"double loop": loop, "at once": at_once}
        seconds = _alternating(
            {name: partial(_with_gradient, way, images, audios) for name, way in ways.items()}, rounds
        )
        found[kind] = seconds | {"ratio": round(seconds["double loop"] / seconds["at once"], 1)}
    return found


def step(rounds: int, batch: int = 16) -> dict[str, Any]:
    """Seconds of one training step of DAVEnet on clips of 3 s, by precision."""
    networks = DualEncoder(DAVEnetExtractor.build(), ImageHead(1280, 1024), 1024)
    maps, log_mels = torch.randn(batch, 1280, 7, 7), torch.randn(batch, 40, 300) * 20 - 40
    n_steps = torch.full((batch,), 18)

    def run(precision: str) -> None:
        networks.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            places, steps = networks.places(maps), networks.steps(log_mels, n_steps)
        similarity_matrix(places, steps, n_steps, "MISA").diagonal().sum().backward()

    seconds = _alternating({name: partial(run, name) for name in ("fp32", "bf16")}, rounds)
    return {"pairs": batch, **seconds, "ratio": round(seconds["fp32"] / seconds["bf16"], 2)}


def targets(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was promised, for what was measured; of GRID only recall: 19 clips to train on tell no clusters apart."""
    found: dict[str, dict[str, Any]] = {}
    for one in result["corpora"]:
        chance = mean(v for k, v in one["held_out"]["chance"].items() if k.startswith("recall"))
        recalls = [
            mean([*r["image_to_audio"].values(), *r["audio_to_image"].values()]) for r in one["held_out"]["trained"]
        ]
        above = mean(recalls) > chance
        found[f"{one['corpus']}: mean recall@1/5/10"] = {
            "is": round(mean(recalls), 3), "wanted": f"> {chance:.3f}, chance", "met": above
        }  # fmt: skip
        nmi = {name: scores["nmi"]["mean"] for name, scores in one["k_means_on_sound_alone"].items()}
        for floor in ("random", "logmel_stats") if one["corpus"] != "grid" else ():
            name = f"{one['corpus']}: NMI of the sound alone, above {floor}"
            found[name] = {"is": nmi["self"], "wanted": f"> {nmi[floor]}", "met": nmi["self"] > nmi[floor]}
    return found


def _double_loop(images: torch.Tensor, audios: torch.Tensor, n_steps: torch.Tensor, kind: str) -> torch.Tensor:
    """As the published training does it, pair by pair."""
    rows = []
    for image in images:
        row = []
        for audio, n in zip(audios, n_steps.tolist(), strict=True):
            matchmap = image.T @ audio[:, :n]  # (P, T)
            reduced = {"SISA": matchmap, "MISA": matchmap.max(0).values, "SIMA": matchmap.max(1).values}[kind]
            row.append(reduced.mean())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _with_gradient(
    way: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], images: torch.Tensor, audios: torch.Tensor
) -> None:
    i, a = images.clone().requires_grad_(), audios.clone().requires_grad_()
    way(i, a).sum().backward()


def _alternating(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after the other in every round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {name: round(median(values), 4) for name, values in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
