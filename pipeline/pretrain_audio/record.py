"""The trained weights on disk, and the record beside them: what they are, what they were trained on, how well they do.

<workdir>/pretrain/<fingerprint>/audio.safetensors    the network, in the published layout; extract.audio.weights=PATH
                                 audio.json           its record; written last, so that its presence says "done"
                                 history.csv          loss and held-out recall, epoch by epoch
                                 checkpoint.pt        while it trains
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from extractors.pretraining.retrieval import RECALLS_AT, Retrieval
from extractors.pretraining.train import Epoch
from extractors.weights import file_sha256
from pipeline.corpora.tables import format_table
from pipeline.files import write_atomic


def write_weights(weights: Path, network: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """The network, then its record with the file's checksum."""
    write_atomic(weights, save(dict(network)))
    whole = {**record, "sha256": file_sha256(weights)}
    write_atomic(weights.with_suffix(".json"), json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """A row an epoch; epoch 0 is the untrained network."""
    recalls = [f"{way}_recall_{k}" for way in ("image_to_audio", "audio_to_image") for k in RECALLS_AT]
    rows = [
        (
            str(epoch.number),
            f"{epoch.loss:.6f}",
            *(f"{value:.6f}" for value in _recalls(epoch.held_out)),
            f"{epoch.held_out.median_rank:g}",
            str(epoch.held_out.n_pairs),
        )
        for epoch in history
    ]
    write_atomic(path, format_table(("epoch", "loss", *recalls, "median_rank", "n_pairs"), rows))


def retrieval_values(found: Retrieval) -> dict[str, Any]:
    """For a record: every figure beside what guessing would give."""
    return {
        "n_pairs": found.n_pairs,
        "image_to_audio": {f"recall@{k}": round(value, 4) for k, value in found.image_to_audio.items()},
        "audio_to_image": {f"recall@{k}": round(value, 4) for k, value in found.audio_to_image.items()},
        "median_rank": found.median_rank,
        "chance": {
            **{f"recall@{k}": round(found.chance(k), 4) for k in RECALLS_AT},
            "median_rank": (found.n_pairs + 1) / 2,
        },
    }


def _recalls(found: Retrieval) -> list[float]:
    return [*found.image_to_audio.values(), *found.audio_to_image.values()]
