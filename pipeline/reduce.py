"""Stage reduce: embeddings -> views of few dims. Fitted on these clips, saved, and applied alike to new ones.

Two passes over the store, a row group at a time in memory: one adds up what the reduction is fitted on, one applies it.

reduced/
    <modality>.npy          (N, dim) float32, a row of NaN where a clip lacks the modality
    clip_ids.json           the N ids, in order
    reduction.safetensors   mean, scale and components of each modality
    recipe.json             settings and inputs; written last, so that its presence says the rest is whole
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pipeline import records
from pipeline.align import Aligned
from pipeline.config import ReduceSettings, Settings
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.features import chosen_stores, exact_store
from pipeline.files import write_atomic
from pipeline.joins import ClipTable, Located
from pipeline.ledger import stamped
from pipeline.manifest import corpus_root, manifest_in, to_clip
from pipeline.provenance import stable_hash, versions
from pipeline.records import read_record
from pipeline.reduction import Moments, Reduction
from pipeline.view_files import CLIP_IDS, read_views
from pipeline.views import Views

ARRAYS, RECIPE = "reduction.safetensors", "recipe.json"


def reduce(settings: Settings) -> None:
    """Fits and applies the reduction to what the store holds; does nothing where nothing has changed.

    Raises:
        PipelineError: no manifest or embeddings, or too few clips to fit on.
    """
    folder = settings.work / "reduced"
    with _joined(settings) as (table, located):
        inputs = _inputs(settings, table, located)
        if _inputs_of(folder) == inputs:
            say(f"reduce: nothing to do: {folder} is up to date")
            return
        aligned = Aligned(table, located)
        fitted, dim = _fit(settings, aligned, located)
        recipe = {
            "inputs": inputs,
            "settings": settings.reduce.model_dump(),
            "dim": dim,
            "explained": {m: fitted[m].explained for m in fitted},
            "features": {
                m: {
                    "fingerprint": one.store.fingerprint,
                    "recipe": one.store.recipe,
                    "made_with": one.store.made_with(),
                }
                for m, one in located.items()
            },
            "versions": versions(("numpy", "scipy")),
        }
        _write(folder, aligned, fitted, recipe)


def is_reduced(settings: Settings) -> bool:
    """Whether `reduce` would do nothing: the reduced views are of these settings and of what the store holds now.

    Raises:
        PipelineError: no manifest or embeddings.
    """
    known = _inputs_of(settings.work / "reduced")
    if known is None:  # no join is needed, and `status` is quick
        corpus_root(settings.work)
        chosen_stores(settings, "reduce")
        return False
    with _joined(settings) as (table, located):
        return known == _inputs(settings, table, located)


@contextmanager
def _joined(settings: Settings) -> Iterator[tuple[ClipTable, dict[str, Located]]]:
    """The clips of the manifest, and which row of each modality's store is whose."""
    manifest, root = manifest_in(settings.work)
    clips = (to_clip(clip, root) for clip in manifest)
    stores = chosen_stores(settings, "reduce")
    with ClipTable(stamped(clips, tuple(stores)), tuple(stores)) as table:
        yield table, {modality: table.locate(modality, store) for modality, store in stores.items()}


def _inputs(settings: Settings, table: ClipTable, located: Mapping[str, Located]) -> str:
    """Hash of all that the reduced views depend on; how the rows lie in parts is not of it."""
    inputs = {
        "settings": settings.reduce.model_dump(),
        "clips": table.digest(),
        "stores": {m: [one.store.fingerprint, one.digest()] for m, one in located.items()},
    }
    return stable_hash(inputs, 20)


def _fit(
    settings: Settings, aligned: Aligned, located: Mapping[str, Located]
) -> tuple[dict[str, Reduction], int | None]:
    """The reduction of each modality, and the dims that they have in common."""
    widths = {modality: int(one.store.recipe["dim"]) for modality, one in located.items()}
    drawn = _drawn(aligned.n_clips, settings.reduce)
    n_with = {m: aligned.n_with(m, drawn) for m in widths}
    for modality, n_clips in n_with.items():
        if n_clips < min(2, aligned.n_with(modality)):
            raise PipelineError(
                f"{modality}: of the {settings.reduce.fit_clips} clips that reduce.fit_clips draws {n_clips} have it; "
                "raise reduce.fit_clips"
            )
    dim = _common_dim({m: (n_with[m], width) for m, width in widths.items()}, settings.reduce.dim)
    fitted = {}
    for modality, width in widths.items():
        moments = Moments.of((block[drawn[rows]] for rows, block in aligned.vectors(modality)), width)
        fitted[modality] = moments.fit(dim, standardize=settings.reduce.standardize)
        if not moments.variance().any():
            say(f"reduce: {modality}: every clip has the same embedding; this modality tells nothing")
        kept = f"{width} -> {dim} dims, {fitted[modality].explained:.0%} of the variance" if dim else "all dims"
        say(f"reduce: {modality}: {moments.n} clips, {kept}")
    return fitted, dim


def _drawn(n_clips: int, settings: ReduceSettings) -> NDArray[np.bool_]:
    """(N,) the clips to fit on: the same for every modality, so that a clip that is seen is seen whole."""
    if settings.fit_clips is None or settings.fit_clips >= n_clips:
        return np.ones(n_clips, dtype=bool)
    drawn = np.zeros(n_clips, dtype=bool)
    drawn[np.random.default_rng(settings.seed).choice(n_clips, settings.fit_clips, replace=False, shuffle=False)] = True
    return drawn


def _common_dim(sizes: Mapping[str, tuple[int, int]], dim: int | None) -> int | None:
    """Dims that every modality can give; `sizes` are clips and features of each."""
    if dim is None:
        return None
    limits = {modality: min(n_clips - 1, n_features) for modality, (n_clips, n_features) in sizes.items()}
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


def _write(folder: Path, aligned: Aligned, fitted: Mapping[str, Reduction], recipe: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).unlink(missing_ok=True)
    for stale in folder.glob("*.npy"):
        if stale.stem not in fitted:
            stale.unlink()
    for modality, one in fitted.items():
        aligned.write(modality, folder / f"{modality}.npy", one.dim, one.apply)
    aligned.write_clip_ids(folder / CLIP_IDS)
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
