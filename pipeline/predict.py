"""Stage predict: clusters for new clips, from the folder of a finished run alone.

<run>/predictions.csv            of features (--views): clip_id, cluster, confidence, agreement
<run>/predict/<name of DIR>/     of raw clips (--clips): a workdir of their own, predictions.csv in it; clips that come
                                 into DIR later are embedded by the next `predict`, those before are not again
drift.json                       beside either: how far these clips are from those of the training
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import OWN_AUDIO, OWN_INT8
from pipeline.config import ExtractSettings, Settings, load_settings
from pipeline.console import say
from pipeline.corpora import READERS
from pipeline.encoders import build, recipe_of, request_of
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.files import check_writable
from pipeline.joins import ClipTable
from pipeline.ledger import stamped
from pipeline.manifest import manifest_in, to_clip
from pipeline.predictions import BLOCK, Readers, predict_and_write, reader, readers_of
from pipeline.prepare import prepare
from pipeline.records import read_record
from pipeline.reduce import ARRAYS
from pipeline.run import Run, load_run
from pipeline.store import EmbeddingStore
from pipeline.view_files import read_views
from pipeline.views import ClipIds, Views, let_go, row_slices

PREDICTIONS = "predictions.csv"

# Of a run's settings those that speak of its own clips and not of new ones. Labels are no part of a prediction.
_OF_ITS_OWN_CLIPS = (
    *("views=null", "labels=null", "out=null", "corpus.table=null"),
    *("corpus.label_rule=null", "corpus.label_column=null", "corpus.labels_csv=null"),
    *("extract.keep_sequence=false", "extract.store=null"),
)
# Of the record of an encoder's weights what says where they were found; the checksum says which they are.
_CLOSE = ("fp32", "bf16", "fp16")  # precisions whose vectors are near enough to be of one space
_WHEREABOUTS = {"source", "name", "file", "licence"}


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
    with _embedded(run, settings) as views:
        return n_lost + predict_and_write(run, views.clip_ids, readers_of(views), out)


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
        with _embedded(run, Settings(workdir=folder)) as views:
            return predict_and_write(run, views.clip_ids, readers_of(views), out)
    views = read_views(folder)
    reduced = _is_reduced(run, folder)
    return predict_and_write(run, views.clip_ids, _for_model(run, views, reduced=reduced), out)


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


@contextmanager
def _embedded(run: Run, settings: Settings) -> Iterator[Views]:
    """A workdir's clips, and what their store holds of the run's encoders, reduced as the model takes it."""
    from tib import scratch

    manifest, root = manifest_in(settings.work)
    modalities = tuple(run.model.view_names_)
    with ClipTable(stamped((to_clip(clip, root) for clip in manifest), modalities), modalities) as clips:
        arrays, found = {}, False
        for modality in modalities:
            fitted = run.reductions[modality]
            try:
                view = scratch.empty((clips.n_clips, fitted.dim), np.float32)
            except OSError as error:
                raise PipelineError(f"predict: {error.strerror}") from None
            for rows in row_slices(len(view), BLOCK):
                view[rows] = np.nan
                let_go(view)
            for store in _stores_of(settings.features, modality, run.encoders[modality]):
                for at, block in clips.locate(modality, store).vectors():
                    view[at], found = fitted.apply(block), True
                    let_go(view)
            arrays[modality] = view
        if not found:
            raise PipelineError(
                f"none of {clips.n_clips} clips has an embedding in {settings.features}; see the failures.csv there"
            )
        yield Views(ClipIds(clips.n_clips, lambda: (i for _, batch in clips.clip_ids() for i in batch)), arrays)


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


def _for_model(run: Run, views: Views, *, reduced: bool = False) -> Readers:
    """The views that the model was fitted on, in its order; one that is not there is rows of NaN.

    Args:
        reduced: known to be the run's own reduced views; else the dims tell.
    """
    names, readers = run.model.view_names_, {}
    for name in names:
        dim, view = run.model.n_features_in_[name], views.arrays.get(name)
        fitted = None if reduced else run.reductions.get(name)
        if view is None:
            readers[name] = reader(np.broadcast_to(np.float32(np.nan), (len(views.clip_ids), dim)))
        elif fitted and view.shape[1] == len(fitted.mean):
            readers[name] = reader(view, fitted.apply)
        elif view.shape[1] == dim:
            readers[name] = reader(view)
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
    return readers
