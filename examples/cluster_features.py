"""TIB on arrays, in Python: fit, clusters of new clips, clips that lack a modality, save and load.

    python examples/cluster_features.py

The arrays are made here: 200 clips of 4 feelings, which each modality shows only in part, as in life. The text tells
good from bad, the voice calm from excited, the face a little of both: none of them alone does well.
"""

import tempfile

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from tib import TIB

DIMS = {"text": 24, "visual": 30, "audio": 20}
# How far apart (good from bad, calm from excited) a modality shows the feelings, in sd of its noise.
SHOWS = {"text": (5.0, 0.0), "visual": (3.0, 3.0), "audio": (0.0, 5.0)}


def make_clips(n_clips: int, seed: int) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Three views, (n_clips, D) each, and the feelings 0..3 behind them, (n_clips,)."""
    rng = np.random.default_rng(seed)
    feelings = rng.integers(4, size=n_clips)
    is_good, is_excited = feelings // 2 - 0.5, feelings % 2 - 0.5
    views = {}
    for number, (name, dim) in enumerate(DIMS.items()):
        directions = np.linalg.qr(np.random.default_rng(number).normal(size=(dim, 2)))[0].T  # the same for new clips
        signal = np.outer(is_good * SHOWS[name][0], directions[0]) + np.outer(
            is_excited * SHOWS[name][1], directions[1]
        )
        views[name] = signal + rng.normal(size=(n_clips, dim))
    return views, feelings


def main() -> None:
    views, feelings = make_clips(200, seed=1)
    model = TIB(n_clusters=4, restarts=4, batch_size=64, random_state=0)  # smaller than the defaults, to be quick
    model.fit(views)
    print(f"clusters of {np.bincount(model.labels_).tolist()} clips")
    print(f"mean confidence {model.confidence_.mean():.2f}, agreement of the modalities {model.agreement_.mean():.2f}")
    print(f"ARI with the feelings, which the fit never saw: {adjusted_rand_score(feelings, model.labels_):.2f}")

    new_views, new_feelings = make_clips(100, seed=2)
    print(f"100 new clips: ARI {adjusted_rand_score(new_feelings, model.predict(new_views)):.2f}")

    silent = {**new_views, "audio": np.full_like(new_views["audio"], np.nan)}  # a row of NaN: a clip without sound
    proba = model.predict_proba(silent)  # (100, 4)
    print(f"the same without sound: ARI {adjusted_rand_score(new_feelings, proba.argmax(axis=1)):.2f}, ", end="")
    print(f"mean confidence {proba.max(axis=1).mean():.2f}")

    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)  # model.safetensors and model.json: no pickle
        same = np.array_equal(TIB.load(folder).predict(new_views), model.predict(new_views))
    print(f"saved and loaded, it says the same: {same}")


if __name__ == "__main__":
    main()
