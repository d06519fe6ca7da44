"""Stage reduce: embeddings -> views of few dims. Fitted on these clips, saved, and applied alike to new ones.

reduced/
    <modality>.npy          (N, dim) float32, a row of NaN where a clip lacks the modality
    clip_ids.json           the N ids, in order
    reduction.safetensors   mean, scale and components of each modality
    recipe.json             settings and inputs; written last, so that its presence says the rest is whole
"""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pipeline import records
from pipeline.align import CLIP_IDS, Views, align, read_views
from pipeline.config import Settings
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.features import exact_store, stores_of
from pipeline.files import write_atomic
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of
from pipeline.provenance import stable_hash, versions
from pipeline.records import read_record
from pipeline.store import EmbeddingStore

ARRAYS, RECIPE = "reduction.safetensors", "recipe.json"


@dataclass(frozen=True, slots=True)
class Reduction:
    """One modality's fitted map: (x - mean) / scale, then onto the components if there are any.

    Attributes:
        mean, scale: (D,) float32.
        components: (dim, D) float32, or None where no PCA was asked for.
        explained: share of the variance kept, 0..1.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32] | None
    explained: float

    def apply(self, view: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projects clips.

        Args:
            view: (N, D); rows of NaN stay NaN.
        Returns:
            (N, dim) float32.
        Raises:
            ValueError: another D than it was fitted on.
        """
        if view.shape[1] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)}-d embeddings, as it was fitted on, got {view.shape[1]}-d")
        centred = (view - self.mean) / self.scale
        projected = centred if self.components is None else centred @ self.components.T
        return projected.astype(np.float32, copy=False)


def fit_reduction(view: NDArray[np.float32], dim: int | None, *, standardize: bool, seed: int) -> Reduction:
    """Fits standardisation and PCA on the clips that have the modality.

    Args:
        view: (N, D), rows of NaN are left out.
        dim: dims to keep, at most min(N - 1, D); None keeps all, without a PCA.
    """
    from sklearn.decomposition import PCA  # only now: it loads for seconds, and `status` reads what is here already
    from sklearn.preprocessing import StandardScaler

    present = view[~np.isnan(view).any(axis=1)].astype(np.float64)
    scaler = StandardScaler(with_std=standardize).fit(present)
    scale = scaler.scale_ if standardize else np.ones(present.shape[1])
    mean, components, explained = scaler.mean_, None, 1.0
    if dim is not None:
        pca = PCA(n_components=dim, random_state=seed).fit((present - mean) / scale)
        components = np.asarray(pca.components_, dtype=np.float32)
        explained = float(np.nan_to_num(pca.explained_variance_ratio_.sum()))
    return Reduction(mean.astype(np.float32), scale.astype(np.float32), components, explained)


def reduce(settings: Settings) -> None:
    """Fits and applies the reduction to what the store holds; does nothing where nothing has changed.

    Raises:
        PipelineError: no manifest or embeddings, or too few clips to fit on.
    """
    clip_ids, stores = _stores(settings)
    folder = settings.work / "reduced"
    inputs = _inputs(settings, clip_ids, stores)
    if _inputs_of(folder) == inputs:
        say(f"reduce: nothing to do: {folder} is up to date")
        return
    views = align(clip_ids, {m: store.read(wanted) for m, (store, wanted) in stores.items()})
    dim = _common_dim(views, settings.reduce.dim)
    fitted = {}
    for modality, view in views.arrays.items():
        fitted[modality] = fit_reduction(view, dim, standardize=settings.reduce.standardize, seed=settings.reduce.seed)
        if np.nanmax(np.nanstd(view, axis=0)) == 0:
            say(f"reduce: {modality}: every clip has the same embedding; this modality tells nothing")
        kept = f"{view.shape[1]} -> {dim} dims, {fitted[modality].explained:.0%} of the variance" if dim else "all dims"
        say(f"reduce: {modality}: {np.isfinite(view[:, 0]).sum()} clips, {kept}")
    reduced = Views(views.clip_ids, {m: fitted[m].apply(view) for m, view in views.arrays.items()})
    recipe = {
        "inputs": inputs,
        "settings": settings.reduce.model_dump(),
        "dim": dim,
        "explained": {m: fitted[m].explained for m in fitted},
        "features": {
            m: {"fingerprint": s.fingerprint, "recipe": s.recipe, "made_with": s.made_with()}
            for m, (s, _) in stores.items()
        },
        "versions": versions(("numpy", "scikit-learn")),
    }
    _write(folder, reduced, fitted, recipe)


def is_reduced(settings: Settings) -> bool:
    """Whether `reduce` would do nothing: the reduced views are of these settings and of what the store holds now.

    Raises:
        PipelineError: no manifest or embeddings.
    """
    clip_ids, stores = _stores(settings)
    return _inputs_of(settings.work / "reduced") == _inputs(settings, clip_ids, stores)


Stores = dict[str, tuple[EmbeddingStore, dict[str, str]]]


def _inputs(settings: Settings, clip_ids: list[str], stores: Stores) -> str:
    """Hash of all that the reduced views depend on."""
    inputs = {
        "settings": settings.reduce.model_dump(),
        "clips": clip_ids,
        "stores": {m: [store.fingerprint, sorted(store.done())] for m, (store, _) in stores.items()},
        "sources": {m: sources for m, (_, sources) in stores.items()},
    }
    return stable_hash(inputs, 20)


def _stores(settings: Settings) -> tuple[list[str], Stores]:
    """The clips of the manifest, and each modality's store with the stamps its rows must have."""
    manifest, root = manifest_of(settings)
    clips = [to_clip(clip, root) for clip in manifest]
    return [clip.clip_id for clip in clips], stores_of(settings, clips, "reduce")


def _common_dim(views: Views, dim: int | None) -> int | None:
    if dim is None:
        return None
    limits = {m: min(len(v) - int(np.isnan(v).any(axis=1).sum()) - 1, v.shape[1]) for m, v in views.arrays.items()}
    least = min(limits, key=lambda m: limits[m])
    if limits[least] < 1:
        raise PipelineError(f"{least}: one clip is too few for a PCA, and for clusters; add clips that have it")
    if limits[least] < dim:
        say(f"reduce: {limits[least]} dims instead of {dim}: all that the clips or features of {least} allow")
    return min(dim, limits[least])


def _inputs_of(folder: Path) -> str | None:
    path = folder / RECIPE
    if not path.exists():
        return None
    try:
        return str(read_record(path, records.Reduction)["inputs"])
    except (OSError, ValueError):
        return None  # unreadable: made again


def _write(folder: Path, views: Views, fitted: Mapping[str, Reduction], recipe: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).unlink(missing_ok=True)
    for stale in folder.glob("*.npy"):
        if stale.stem not in views.arrays:
            stale.unlink()
    for modality, array in views.arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array.astype(np.float32))
        write_atomic(folder / f"{modality}.npy", buffer.getvalue())
    write_atomic(folder / CLIP_IDS, json.dumps(views.clip_ids, ensure_ascii=False))
    tensors: dict[str, NDArray[np.float32]] = {}
    for modality, one in fitted.items():
        tensors |= {f"{modality}.mean": one.mean, f"{modality}.scale": one.scale}
        if one.components is not None:
            tensors[f"{modality}.components"] = np.ascontiguousarray(one.components)
    write_atomic(folder / ARRAYS, save(tensors))
    write_atomic(folder / RECIPE, json.dumps(recipe, indent=2, ensure_ascii=False) + "\n")


def encoders_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """The recipe of each modality's embeddings behind the reduced views; {} for cached features."""
    folder = settings.work / "reduced"
    return {} if settings.views or not (folder / RECIPE).exists() else encoders_in(folder)


def made_with_of(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """On what each modality's embeddings were computed, and in what batches; {} for cached features."""
    folder = settings.work / "reduced"
    if settings.views or not (folder / RECIPE).exists():
        return {}
    return {modality: found.get("made_with", []) for modality, found in _features_in(folder).items()}


def encoders_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The recipe of each modality's embeddings behind the reduction in this folder.

    Raises:
        PipelineError: it cannot be read, or is none.
    """
    return {modality: found["recipe"] for modality, found in _features_in(folder).items()}


def _features_in(folder: Path) -> dict[str, dict[str, Any]]:
    """modality -> fingerprint, recipe and the like of its embeddings."""
    path = folder / RECIPE
    try:
        features: dict[str, dict[str, Any]] = read_record(path, records.Reduction)["features"]
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}); run `reduce` again, then `train`") from None
    return features


def untrained(encoders: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The modalities whose encoder has random weights: every output says so."""
    return [modality for modality, recipe in encoders.items() if not recipe["weights"].get("trained", True)]


def load_reduction(folder: Path) -> dict[str, Reduction]:
    """The fitted reduction of every modality, to project new clips.

    Raises:
        PipelineError: there is none, or it is not whole.
    """
    try:
        recipe = read_record(folder / RECIPE, records.Fitted)
        tensors = load_file(folder / ARRAYS)
        return {
            m: Reduction(tensors[f"{m}.mean"], tensors[f"{m}.scale"], tensors.get(f"{m}.components"), explained)
            for m, explained in recipe["explained"].items()
        }
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PipelineError(f"no whole reduction in {folder} ({error}); run `reduce`, then `train`") from None


def keep_reduction(settings: Settings, run: Path) -> None:
    """Copies the reduction behind a run's views into the run's folder, so that the run alone can predict.

    Views that no reduction was fitted for leave none, not even an earlier run's.
    """
    if settings.views:
        read = (folder for folder in (settings.views, settings.views / "reduced") if any(folder.glob("*.npy")))
        source = next(read, settings.views)  # the folder that read_views reads
    else:
        source = settings.work / "reduced"
    kept = run / "reduction"
    if not (source / ARRAYS).exists():
        shutil.rmtree(kept, ignore_errors=True)
        return
    for name in (ARRAYS, RECIPE):
        write_atomic(kept / name, (source / name).read_bytes())


def views_of(settings: Settings) -> Views:
    """What a run clusters: the cached features it was pointed at, or the workdir's reduced views.

    Raises:
        PipelineError: there are none, or they are not of these settings.
    """
    if settings.views:
        return read_views(settings.views)
    folder = settings.work / "reduced"
    if not (folder / RECIPE).exists():
        raise PipelineError(f"no reduced views in {folder}; run `reduce` first, with the same config")
    try:
        recipe = read_record(folder / RECIPE, records.Reduction)
        same = recipe["settings"] == settings.reduce.model_dump()
        made_from = {modality: found["fingerprint"] for modality, found in recipe["features"].items()}
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {folder / RECIPE} ({error}); run `reduce` again") from None
    for modality in settings.extract.modalities():
        store = exact_store(settings, modality)
        same &= store is None or store.fingerprint == made_from.get(modality)
    if not same or made_from.keys() - set(settings.extract.modalities()):
        raise PipelineError(f"{folder} was made with other settings; run `reduce` again, with the same config")
    return read_views(folder)
