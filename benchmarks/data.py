"""The data sets that quality is measured on: views and labels beside the checkout, and the demo's own corpus."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ROOT.parent / "shared" / "data"
MULTIVIEW = {
    "handwritten": "Handwritten_UCI_6v",
    "scene15": "Scene15",
    "htad": "HTAD_audio_acc",
    "msrcv1": "MSRCv1_5v",
}
NAMES = ("mosi60", *MULTIVIEW, "demo")


@dataclass(frozen=True)
class DataSet:
    """Views name -> (N, D_m) and (N,) labels, which only scores see."""

    name: str
    views: dict[str, NDArray[np.floating]]
    labels_true: NDArray[np.generic]
    source: str | None = None

    @property
    def digest(self) -> str:
        """Of every value; `source` where the views were derived from another set's."""
        digest = hashlib.sha256(self.labels_true.tobytes())
        for name, view in self.views.items():
            digest.update(name.encode() + np.ascontiguousarray(view).tobytes())
        return self.source or digest.hexdigest()[:16]

    @property
    def n_clusters(self) -> int:
        return len(np.unique(self.labels_true))


def load(name: str) -> DataSet | None:
    """A data set, or None where it is not on this machine.

    Args:
        name: one of NAMES; or a folder with <view>.npy files and labels.npy.
    """
    if name == "demo":
        return _demo(ROOT / "work" / "demo")
    if name in MULTIVIEW:
        path = BESIDE / "multiview" / f"{MULTIVIEW[name]}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            views = {key: arrays[key] for key in sorted(k for k in arrays.files if k.startswith("view"))}
            return DataSet(name, views, arrays["y"].ravel())
    folder = BESIDE / "mosi60" if name == "mosi60" else Path(name)
    if not (folder / "labels.npy").exists():
        return None
    names = {"video": "visual"}
    views = {names.get(p.stem, p.stem): np.load(p) for p in sorted(folder.glob("*.npy")) if p.stem != "labels"}
    order = [n for n in ("text", "visual", "audio") if n in views]
    return DataSet(folder.name, {n: views[n] for n in [*order, *(n for n in views if n not in order)]},
                   np.load(folder / "labels.npy").ravel())  # fmt: skip


def _demo(workdir: Path) -> DataSet | None:
    """What `make demo` reduced, the clips that have every modality and a label."""
    from pipeline.manifest import read_labels
    from pipeline.view_files import read_views

    if not (workdir / "reduced" / "recipe.json").exists():
        return None
    views = read_views(workdir / "reduced")
    views = views.take(views.complete())
    labels = read_labels(workdir / "labels.csv")
    labelled = [(row, labels[clip_id]) for row, clip_id in enumerate(views.clip_ids) if clip_id in labels]
    rows = [row for row, _ in labelled]
    return DataSet(
        "demo",
        {name: view[rows] for name, view in views.arrays.items()},
        np.array([label for _, label in labelled]),
    )


def planted(n_clips: int, n_clusters: int = 7, dim: int = 60, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Three views of planted clusters, for speed at any size."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(n_clusters, size=n_clips)
    views = {}
    for name in ("text", "visual", "audio"):
        centres = rng.normal(size=(n_clusters, dim)).astype(np.float32)
        views[name] = centres[clusters] + 2 * rng.normal(size=(n_clips, dim)).astype(np.float32)
    return views
