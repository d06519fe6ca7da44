"""Stage predict: clusters for new clips, from the folder of a finished run alone.

<run>/predictions.csv            of features (--views): clip_id, cluster, confidence, agreement
<run>/predict/<name of DIR>/     of raw clips (--clips): a workdir of their own, predictions.csv in it; clips that come
                                 into DIR later are embedded by the next `predict`, those before are not again
drift.json                       beside either: how far these clips are from those of the training
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.align import Views, read_views
from pipeline.cluster import OWN_AUDIO, OWN_INT8
from pipeline.config import ExtractSettings, Settings, load_settings
from pipeline.console import say, table
from pipeline.corpora import READERS
from pipeline.corpora.tables import table_chunks
from pipeline.drift import DRIFT, drift, in_words
from pipeline.encoders import build, recipe_of, request_of
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.files import check_writable, write_atomic, write_chunks
from pipeline.joins import ClipTable
from pipeline.ledger import stamped
from pipeline.manifest import manifest_in, to_clip
from pipeline.prepare import prepare
from pipeline.records import read_record
from pipeline.reduce import ARRAYS, RECIPE, encoders_in, load_reduction, untrained
from pipeline.reduction import Reduction
from pipeline.store import EmbeddingStore

if TYPE_CHECKING:
    from tib import TIB

PREDICTIONS = "predictions.csv"
LOW_CONFIDENCE = 0.5  # below it no cluster has the most of the probability
NAMED = 10  # clips named in one line

# Of a run's settings those that speak of its own clips and not of new ones. Labels are no part of a prediction.
_OF_ITS_OWN_CLIPS = (
    *("views=null", "labels=null", "out=null", "corpus.table=null"),
    *("corpus.label_rule=null", "corpus.label_column=null", "corpus.labels_csv=null"),
    *("extract.keep_sequence=false", "extract.store=null"),
)
# Of the record of an encoder's weights what says where they were found; the checksum says which they are.
_CLOSE = ("fp32", "bf16", "fp16")  # precisions whose vectors are near enough to be of one space
_WHEREABOUTS = {"source", "name", "file", "licence"}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, ready to predict.

    Attributes:
        reductions: by modality; none where the run was trained on features as they were.
        encoders: by modality, the recipe of the embeddings that were reduced.
    """

    folder: Path
    model: "TIB"
    reductions: dict[str, Reduction]
    encoders: dict[str, dict[str, Any]]


class Predictions(NamedTuple):
    """Of N clips: cluster (N,) int64, confidence (N,) and agreement (N,), both 0..1."""

    clip_ids: list[str]
    cluster: NDArray[np.int64]
    confidence: NDArray[Any]
    agreement: NDArray[Any]


def load_run(folder: Path) -> Run:
    """Reads the model and the reduction of a run; its workdir is not needed.

    Raises:
        PipelineError: no such folder, a run that is not whole, or one that this code cannot load.
    """
    if not folder.is_dir():
        raise PipelineError(f"--run {folder}: no such folder; give the results folder of a finished run")
    needed = ("run.json", "config.yaml", "model.json", "model.safetensors")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise PipelineError(
            f"--run {folder}: no finished run here: {', '.join(missing)} missing; give the results folder of one, "
            "or run `train` first"
        )
    kept = folder / "reduction"
    if not (kept / RECIPE).exists() and load_settings(folder / "config.yaml").views is None:
        raise PipelineError(
            f"--run {folder}: the reduction of its views is not kept with it; run `train` again with the same config, "
            "which trains nothing twice and adds it"
        )
    from tib import TIB  # only now: it loads PyTorch, and a wrong folder should be told at once

    try:
        model = TIB.load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"--run {folder}: cannot load its model: {error}") from None
    if not (kept / RECIPE).exists():
        return Run(folder, model, {}, {})
    return Run(folder, model, load_reduction(kept), encoders_in(kept))


def predict_clips(
    run_folder: Path,
    clips: Path,
    *,
    out: Path | None = None,
    workdir: Path | None = None,
    overrides: Sequence[str] = (),
    retry_failed: bool = False,
) -> int:
    """Embeds raw clips as the run's were, and writes their clusters.

    Args:
        clips: a folder in the layout of the run's corpus; a plain folder of clips where that one was generated.
        out: the CSV; default predictions.csv in the workdir.
        workdir: for what is made of the new clips; default <run>/predict/<name of clips>.
        overrides: settings as `--set` takes them, e.g. where the encoders' weights lie on this machine.
        retry_failed: see `extract`.
    Returns:
        how many clips have no prediction.
    Raises:
        PipelineError: nothing can be predicted: the run, the clips or the encoders do not allow it.
    """
    run = load_run(run_folder)
    if not run.encoders:
        raise PipelineError(
            f"--run {run_folder} was trained on cached features, and nothing says which encoders made them; embed the "
            "clips in the same way and give --views DIR"
        )
    settings = _settings_for(run_folder, clips, workdir, overrides)
    out = out or settings.work / PREDICTIONS
    _refuse_a_workdir_of_others(settings.work, clips)
    n_lost = prepare(settings)
    check_writable(out.parent)  # told now, not after the clips are embedded
    wanted = [m for m in settings.extract.modalities() if m in run.encoders]
    for modality in wanted:
        _check_encoder(settings, modality, run.encoders[modality])
    extract(settings, *manifest_in(settings.work), only=wanted, retry_failed=retry_failed)
    clip_ids, views = _embeddings(run, settings)
    return n_lost + _predict_and_write(run, clip_ids, views, out)


def predict_views(run_folder: Path, folder: Path, *, out: Path | None = None) -> int:
    """Writes the clusters of clips whose features are there already.

    Args:
        folder: what `read_views` takes. Features as the run's encoders give them are reduced as the run's were;
            those that have the dims of the run's views are taken as they are.
        out: the CSV; default predictions.csv in the run's folder.
    Returns:
        how many clips have no prediction.
    Raises:
        PipelineError: nothing can be predicted: the run or the features do not allow it.
    """
    run = load_run(run_folder)
    out = out or run_folder / PREDICTIONS
    check_writable(out.parent)
    if run.encoders and (folder / "features").is_dir() and not any(folder.glob("*.npy")):
        # A workdir's reduced views are of its own reduction, fitted on its own clips: the run's is not that one.
        clip_ids, views = _embeddings(run, Settings(workdir=folder))
        return _predict_and_write(run, clip_ids, views, out)
    views = read_views(folder)
    reduced = _is_reduced(run, folder)
    return _predict_and_write(run, views.clip_ids, _for_model(run, views, reduced=reduced), out)


def workdir_of(run_folder: Path, clips: Path) -> Path:
    """Where what is made of new clips goes, unless another place is given."""
    return run_folder / "predict" / clips.resolve().name


def _settings_for(run_folder: Path, clips: Path, workdir: Path | None, overrides: Sequence[str]) -> Settings:
    """The run's settings, turned to other clips."""
    config = run_folder / "config.yaml"
    changes = [*_OF_ITS_OWN_CLIPS]
    kind = load_settings(config).corpus.kind
    if kind == "synthetic" or kind not in READERS:
        changes += ["corpus.kind=folder", "corpus.clips_per_class=null", "corpus.seed=null"]
    if not any(clips.glob("*.csv")):  # no table, so its columns have no names
        changes += [f"corpus.{name}_column=null" for name in ("file", "transcript", "video")]
    changes += kept_encoders(run_folder, load_settings(config).extract)
    work = workdir or workdir_of(run_folder, clips)
    return load_settings(config, [*changes, *overrides], corpus__root=clips, workdir=work)


def kept_encoders(run_folder: Path, embedded: ExtractSettings) -> list[str]:
    """Settings, as `--set` takes them, that point at the encoders kept with a run, where those of its workdir are gone.

    Args:
        embedded: the run's own settings.
    """
    changes, audio, visual = [], embedded.audio, embedded.visual
    kept = run_folder / OWN_AUDIO
    if audio and kept.is_file() and not Path(audio.weights).is_file():
        changes.append(f"extract.audio.weights={json.dumps(str(kept))}")
    kept = run_folder / OWN_INT8
    if visual and visual.quantised and kept.is_file() and not visual.quantised.is_file():
        changes.append(f"extract.visual.quantised={json.dumps(str(kept))}")
    return changes


def _refuse_a_workdir_of_others(work: Path, clips: Path) -> None:
    """Two folders of one name would share a workdir by default, and the second lose the first's predictions."""
    try:
        other = Path(read_record(work / "corpus.json")["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # none yet, or not whole: made again
    if other.is_dir() and clips.is_dir() and not other.samefile(clips):
        raise PipelineError(f"{work} holds the predictions for {other}; give another --workdir for {clips}")


def _check_encoder(settings: Settings, modality: str, of_run: Mapping[str, Any]) -> None:
    """Refuses embeddings that are not of the run's space; told before any clip is embedded."""
    section = getattr(settings.extract, modality)
    store = EmbeddingStore.find(settings.features, modality, request_of(modality, section))
    recipe = store.recipe if store else recipe_of(modality, section, build(modality, section))
    differences = _differences(of_run, recipe)
    if differences:
        raise PipelineError(
            f"the {modality} encoder is not the run's, so its clusters do not hold for what it gives: "
            f"{'; '.join(differences)}; give the run's own with --set extract.{modality}.weights=... and the like"
        )
    if of_run.get("versions") != recipe.get("versions"):
        told = ", ".join(f"{name} {version}" for name, version in of_run.get("versions", {}).items())
        say(
            f"predict: {modality}: the run's embeddings were made with other versions ({told}); expect small deviations"
        )
    precisions = [one.get("settings", {}).get("precision") for one in (of_run, recipe)]
    if precisions[0] != precisions[1]:
        say(f"predict: {modality}: the run's embeddings were made in {precisions[0]}, these in {precisions[1]}")


def _differences(of_run: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What tells two encoders apart, in words.

    Where the weights were found, the libraries' versions, and fp32 or half precision do not: a run by a processor with
    bf16 holds on one without.
    """
    expected, found = _identity(of_run), _identity(here)
    return [
        f"{name} is {found.get(name)!r}, the run's {expected.get(name)!r}"
        for name in expected | found
        if expected.get(name) != found.get(name)
    ]


def _identity(recipe: Mapping[str, Any]) -> dict[str, Any]:
    weights = {f"weights {name}": value for name, value in recipe["weights"].items() if name not in _WHEREABOUTS}
    identity = {"extractor": recipe["extractor"], **recipe.get("settings", {}), **weights}
    return identity | ({"precision": " or ".join(_CLOSE)} if identity.get("precision") in _CLOSE else {})


def _embeddings(run: Run, settings: Settings) -> tuple[list[str], Views]:
    """The ids of a workdir's clips, and what their store holds of the run's encoders, reduced as the model takes it."""
    manifest, root = manifest_in(settings.work)
    modalities = tuple(run.model.view_names_)
    arrays = {}
    with ClipTable(stamped((to_clip(clip, root) for clip in manifest), modalities), modalities) as clips:
        clip_ids = [clip_id for _, batch in clips.clip_ids() for clip_id in batch]
        for modality in modalities:
            fitted = run.reductions[modality]
            view = np.full((len(clip_ids), fitted.dim), np.nan, dtype=np.float32)
            for store in _stores_of(settings.features, modality, run.encoders[modality]):
                for rows, block in clips.locate(modality, store).vectors():
                    view[rows] = fitted.apply(block)
            arrays[modality] = view
    views = Views(clip_ids, arrays)
    has = np.any(list(_present(views).values()), axis=0)
    if not has.any():
        raise PipelineError(
            f"none of {len(clip_ids)} clips has an embedding in {settings.features}; see the failures.csv there"
        )
    return clip_ids, views.take(has)


def _stores_of(features: Path, modality: str, of_run: Mapping[str, Any]) -> list[EmbeddingStore]:
    """The stores of the run's encoder: more than one where library versions changed."""
    stores = [store for store, _ in EmbeddingStore.all(features, modality)]
    of_encoder = [store for store in stores if not _differences(of_run, store.recipe)]
    if stores and not of_encoder:
        raise PipelineError(
            f"{features / modality} is not of the run's {modality} encoder: "
            f"{'; '.join(_differences(of_run, stores[0].recipe))}; give the raw clips with --clips DIR instead"
        )
    return of_encoder


def _is_reduced(run: Run, folder: Path) -> bool:
    """Whether a folder of arrays is what the run's own reduction left; another's is refused, whatever its dims."""
    inner = folder if any(folder.glob("*.npy")) else folder / "reduced"
    path = inner / ARRAYS
    if not path.exists() or not run.reductions:
        return False
    if path.read_bytes() != (run.folder / "reduction" / ARRAYS).read_bytes():
        raise PipelineError(
            f"{inner} was reduced by another reduction than the run's; give the features before it, or --clips DIR"
        )
    return True


def _for_model(run: Run, views: Views, *, reduced: bool = False) -> Views:
    """The views that the model was fitted on, in its order; one that is not there is rows of NaN.

    Args:
        reduced: known to be the run's own reduced views; else the dims tell.
    """
    names, arrays = run.model.view_names_, {}
    for name in names:
        dim, view = run.model.n_features_in_[name], views.arrays.get(name)
        fitted = None if reduced else run.reductions.get(name)
        if view is None:
            arrays[name] = np.full((len(views.clip_ids), dim), np.nan, dtype=np.float32)
        elif fitted and view.shape[1] == len(fitted.mean):
            arrays[name] = fitted.apply(view)
        elif view.shape[1] == dim:
            arrays[name] = view
            if run.reductions:
                say(f"predict: {name}: {dim}-d features, taken as reduced already")
        else:
            made_by = f"{len(fitted.mean)}-d as {run.encoders[name]['extractor']} gives, or " if fitted else ""
            raise PipelineError(
                f"view {name}: expected features {made_by}{dim}-d as the run was trained on, got {view.shape[1]}-d; "
                "make them as the run's were made"
            )
    unknown = [name for name in views.arrays if name not in names]
    if unknown:
        say(f"predict: {', '.join(unknown)}: not a view of this run ({', '.join(names)}); left out")
    return Views(views.clip_ids, arrays)


def _predict_and_write(run: Run, clip_ids: Sequence[str], views: Views, out: Path) -> int:
    """Predicts the clips that can be, writes and tells; returns how many could not."""
    present = _present(views)  # name -> (N,)
    has = np.stack(list(present.values()))  # (M, N)
    enough = np.asarray(has.any(axis=0) if _takes_missing(run.model) else has.all(axis=0))
    if not enough.any():
        there = ", ".join(f"{name} of {rows.sum()}" for name, rows in present.items())
        need = "any view" if _takes_missing(run.model) else f"every view, as objective {run.model.objective!r} needs"
        raise PipelineError(f"none of {len(clip_ids)} clips has {need}: there is {there}; add what is missing")
    said = _predict(run.model, views.take(enough))
    lacking = dict.fromkeys(clip_ids, "nothing to go by")
    for row, clip_id in enumerate(views.clip_ids):
        lacking[clip_id] = "no " + ", ".join(name for name, rows in present.items() if not rows[row])
    predicted = set(said.clip_ids)
    left_out = {clip_id: why for clip_id, why in lacking.items() if clip_id not in predicted}
    rows = ((clip_id, str(k), f"{c:.6f}", f"{a:.6f}") for clip_id, k, c, a in zip(*said, strict=True))
    write_chunks(out, table_chunks(("clip_id", "cluster", "confidence", "agreement"), rows))
    drifted = drift((run.model.labels_, run.model.confidence_), said.cluster, said.confidence)
    write_atomic(out.with_name(DRIFT), json.dumps(drifted.values, indent=2) + "\n")
    _tell(run, said, left_out, out)
    for line in in_words(drifted):
        say(line)
    return len(left_out)


def _present(views: Views) -> dict[str, NDArray[np.bool_]]:
    """name -> (N,), True where the clip has the view."""
    return {name: np.asarray(np.isfinite(view).all(axis=1)) for name, view in views.arrays.items()}


def _takes_missing(model: "TIB") -> bool:
    """Whether the model says something of a clip that lacks a modality: the reference network has no place for it."""
    return bool(model.objective != "reference")


def _predict(model: "TIB", views: Views) -> Predictions:
    from tib.estimator import agreement_of

    told = []
    try:
        for _, proba, by_modality in model.iter_posteriors(views.arrays):  # (n, K), each
            cluster = proba.argmax(axis=1)
            told.append((cluster, proba.max(axis=1), agreement_of(cluster, by_modality)))
    except ValueError as error:
        raise PipelineError(f"predict: {error}") from None
    return Predictions(views.clip_ids, *(np.concatenate(column) for column in zip(*told, strict=True)))


def _tell(run: Run, said: Predictions, left_out: Mapping[str, str], out: Path) -> None:
    rows: list[tuple[str, int, str, int]] = []
    for k in np.unique(said.cluster):
        confidence = said.confidence[said.cluster == k]
        rows.append((str(k), len(confidence), f"{confidence.mean():.3f}", int((confidence < LOW_CONFIDENCE).sum())))
    columns = ("cluster", "clips", "mean confidence", f"below {LOW_CONFIDENCE}")
    table(f"predict: {len(said.clip_ids)} clips by {run.folder}", columns, rows)
    for modality in untrained(run.encoders):
        say(f"predict: {modality}: RANDOM weights, untrained")
    unsure = [clip_id for clip_id, p in zip(said.clip_ids, said.confidence, strict=True) if p < LOW_CONFIDENCE]
    if unsure:
        say(f"predict: {len(unsure)} of low confidence, below {LOW_CONFIDENCE}: {_named(unsure)}")
    if left_out:
        told = [f"{clip_id} ({why})" for clip_id, why in left_out.items()]
        say(f"predict: {len(left_out)} clips have no prediction: {_named(told)}")
    n_used, mean = len(rows), said.confidence.mean()
    say(f"predict: wrote {out}: {len(said.clip_ids)} clips, {n_used} clusters, mean confidence {mean:.3f}")


def _named(clips: Sequence[str]) -> str:
    more = len(clips) - NAMED
    return ", ".join(clips[:NAMED]) + (f" and {more} more" if more > 0 else "")
