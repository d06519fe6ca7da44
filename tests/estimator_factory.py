"""Planted clusters and quick settings that the estimator's tests share."""

from typing import Any

import numpy as np
import pytest

NAMES = ("text", "visual", "audio")
SETTINGS: dict[str, Any] = {"objective": "reference", "epochs": 8, "random_state": 0, "device": "cpu"}
WHOLE: dict[str, Any] = {"epochs": 8, "restarts": 1, "random_state": 0, "device": "cpu"}
BOTH = pytest.mark.parametrize("settings", [SETTINGS, WHOLE], ids=["reference", "tib"])


def planted(n_clips: int = 90, n_clusters: int = 3, dim: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Well separated clusters that every view sees in the same place, and which clip is in which.

    In the same place: the published network normalises each modality by its own batch in training and by one running
    mean of two modalities in prediction, so views of different distributions lose clusters there.
    """
    rng = np.random.default_rng(0)
    truth = np.arange(n_clips) % n_clusters
    centres = 4 * rng.normal(size=(n_clusters, dim))
    return {name: centres[truth] + 0.3 * rng.normal(size=(n_clips, dim)) for name in NAMES}, truth


VIEWS, TRUTH = planted()
