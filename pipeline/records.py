"""Reading the JSON that stages leave on disk: it may have been edited, or be a stranger's.

A shape names what other stages use of a record, not all that is in it; an older version's may lack what has a default.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Shape(BaseModel):
    """What must be there, of what type; with a default, what may be."""

    model_config = ConfigDict(strict=True)


class Recipe(Shape):
    """What made a modality's embeddings."""

    extractor: str
    weights: dict[str, Any]
    dim: int
    settings: dict[str, Any] = {}
    versions: dict[str, Any] = {}


class Store(Shape):
    """recipe.json of a set of embeddings."""

    recipe: Recipe
    requests: list[str]


class Reduced(Shape):
    """Of one modality: which embeddings were reduced."""

    fingerprint: str
    recipe: Recipe
    made_with: list[dict[str, Any]] = []


class Fitted(Shape):
    """recipe.json beside a reduction."""

    explained: dict[str, float]


class Reduction(Fitted):
    """The same beside the reduced views."""

    inputs: str
    settings: dict[str, Any]
    dim: int | None
    features: dict[str, Reduced]


class Run(Shape):
    """run.json, of `train`."""

    n_clusters: int
    views_digest: str
    n_clips: int = 0
    stability: dict[str, float] = {}
    n_clusters_curve: dict[str, float] = {}
    views: dict[str, list[int]] = {}
    encoders: dict[str, Recipe] = {}
    untrained_encoders: list[str] = []
    seconds: dict[str, float] = {}
    packages: dict[str, str] = {}


class Spread(Shape):
    mean: float
    sd: float


class Scores(Shape):
    acc: float
    nmi: float
    ari: float
    majority_acc: float


class Spreads(Shape):
    acc: Spread
    nmi: Spread
    ari: Spread
    n_clusters_used: Spread


class Metrics(Shape):
    """metrics.json, of `evaluate`."""

    n_clips: int
    n_clusters: int
    n_clusters_used: int
    cluster_sizes: dict[str, int]
    untrained_encoders: list[str]


class ScoredMetrics(Metrics):
    """The same where there are labels."""

    n_scored: int
    scores: Scores
    restarts: Spreads
    n_restarts: int = 1
    baselines: dict[str, Spreads] = {}
    baselines_left_out: dict[str, str] = {}


class Recalls(Shape):
    at_10: float = Field(alias="recall@10")


class Recall(Shape):
    audio_to_image: Recalls
    chance: Recalls


class TrainedAudio(Shape):
    """audio.json, of `pretrain-audio`."""

    extractor: str
    best: Recall


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not JSON, not UTF-8, or nested deeper than any stage writes.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_record(path: Path, shape: type[Shape] = Shape) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Args:
        shape: what it must hold at least.
    Raises:
        OSError, ValueError: as `read_json`; or it is not of that shape.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return check_record(record, shape)


def read_metrics(path: Path) -> dict[str, Any]:
    """metrics.json, scored or not.

    Raises:
        OSError, ValueError: as `read_record`.
    """
    metrics = read_record(path)
    return check_record(metrics, ScoredMetrics if "scores" in metrics else Metrics)


def check_record(record: dict[str, Any], shape: type[Shape]) -> dict[str, Any]:
    """The record as it came, where it is of that shape.

    Raises:
        ValueError: names the first key that is not there or holds something else.
    """
    try:
        shape.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    return record
