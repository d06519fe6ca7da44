"""What a feature's values are measured in: its own standard deviation, unless the features are principal components."""

import numpy as np
from numpy.typing import NDArray

CONSTANT = 1e-7  # of the largest value: what rounding in float32 leaves of a feature that is the same for every clip
UNCORRELATED = 0.01
FEWEST_COMPONENTS = 8  # of fewer features, uncorrelated and in falling order by chance happens


def standardisation(view: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and 1 / sd of each feature; 0 in place of 1 / sd for a feature that is the same for every clip.

    Principal components get one scale for all: they are standardised features already, rotated, and equal variances
    would blow up the last ones, which are noise.

    Args:
        view: (N, D) without gaps, N >= 1.
    Returns:
        (D,) and (D,).
    """
    mean, sd = view.mean(axis=0, dtype=np.float64), view.std(axis=0, dtype=np.float64)
    varies = sd > CONSTANT * np.maximum(np.abs(view).max(axis=0), 1e-300)
    if are_principal_components(view[:, varies]):
        sd = np.full_like(sd, np.sqrt((sd[varies] ** 2).mean()))
    return mean, np.where(varies, 1.0 / np.where(varies, sd, 1.0), 0.0)


def are_principal_components(view: NDArray[np.floating]) -> bool:
    """Whether the features are uncorrelated and their variances fall from the first to the last.

    Measured features hardly ever are either. The first 64 are looked at.

    Args:
        view: (N, D), no feature the same for every clip.
    """
    some = view[:, :64].astype(np.float64)
    if some.shape[1] < FEWEST_COMPONENTS:
        return False
    sd = some.std(axis=0)
    if (np.diff(sd) > 1e-6 * sd[0]).any():
        return False
    some = (some - some.mean(axis=0)) / sd
    correlations = some.T @ some / len(some)
    return float(np.abs(correlations - np.eye(len(correlations))).max()) < UNCORRELATED
