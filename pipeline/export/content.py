"""What there is to export: a workdir's or a folder's features, with what is known of each clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.align import read_stores
from pipeline.columns import read_column, split_name
from pipeline.config import Settings
from pipeline.console import say
from pipeline.corpora.base import CorpusClip
from pipeline.corpora.mmsa import find_label_file, segment_id
from pipeline.corpora.tables import read_records, read_table
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of
from pipeline.export.splits import video_of
from pipeline.features import chosen_stores, stores_of
from pipeline.ledger import stamped
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of
from pipeline.records import read_record
from pipeline.reduce import encoders_of, views_of
from pipeline.store import EmbeddingStore
from pipeline.view_files import read_views
from pipeline.views import Views

TAKEN_NAMES = ("clip_id", "clip_ids", "cluster", "confidence", "split", "transcript")
Stores = Mapping[str, tuple[EmbeddingStore, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Content:
    """One export's worth, whatever the format. Dicts are by clip_id and hold only the clips that have the thing.

    Attributes:
        settings: what led here.
        clip_ids: in the order of the views' rows.
        views: the features or the reduced views, aligned.
        reduced: which of them.
        labels: ground truth as the corpus' label rule left it.
        transcripts: the words, where there are any.
        splits: train, valid or test, where the corpus itself says so.
        videos: what each clip was cut from; every clip has one.
        assignments: (cluster, confidence) of the run in the results folder, if it is a run on these clips' views.
        encoders: each modality's recipe; {} for cached features.
        stores: where sequences may be, if they were asked for: by modality, with the stamps their rows must have.
    """

    settings: Settings
    clip_ids: list[str]
    views: Views
    reduced: bool
    labels: dict[str, str]
    transcripts: dict[str, str]
    splits: dict[str, str]
    videos: dict[str, str]
    assignments: dict[str, tuple[int, float]]
    encoders: dict[str, dict[str, Any]]
    stores: Stores


def gather(settings: Settings, *, reduced: bool, sequences: bool = False) -> Content:
    """Reads what there is. What is known of the clips is held; their features are in mapped files where they are many.

    Args:
        settings: `views` names cached features; without it they are the workdir's own.
        reduced: the views of few dims in place of the features.
        sequences: also where they may be.
    Raises:
        PipelineError: there are none, or something beside them cannot be read.
    """
    folder = settings.views or settings.work
    clips, root, kind = (
        _corpus_of(folder) if (folder / "corpus.json").exists() or not settings.views else ([], None, "")
    )
    stores: Stores = {}
    encoders: dict[str, dict[str, Any]] = {}
    if settings.views:
        views = _cached_views(settings.views, reduced)
    elif reduced:
        views, encoders = views_of(settings), encoders_of(settings)
    else:
        of_corpus = [to_clip(clip, root or folder) for clip in clips]
        if sequences:
            stores = stores_of(settings, of_corpus, "export")
            chosen = {modality: store for modality, (store, _) in stores.items()}
        else:
            chosen = chosen_stores(settings, "export")
        views = read_stores(chosen, stamped(of_corpus, tuple(chosen)))
        encoders = {modality: dict(store.recipe) for modality, store in chosen.items()}
    for name in views.arrays:
        if name in TAKEN_NAMES:
            raise PipelineError(f"a view is called {name!r}, which every format needs for something else; rename it")
    clip_ids = list(views.clip_ids)
    ids = set(clip_ids)
    spoken = {clip.clip_id: clip.transcript for clip in clips if clip.transcript}
    return Content(
        settings=settings,
        clip_ids=clip_ids,
        views=views,
        reduced=reduced,
        labels={i: label for i, label in labels_of(settings, views).items() if i in ids},
        transcripts={i: text for i, text in (spoken or read_column(folder, "transcript")).items() if i in ids},
        splits={i: split for i, split in _splits(folder, root).items() if i in ids},
        videos=_videos(clip_ids, clips, kind),
        assignments={i: said for i, said in _assignments(settings).items() if i in ids},
        encoders=encoders,
        stores=stores,
    )


def _corpus_of(work: Path) -> tuple[list[CorpusClip], Path | None, str]:
    """The manifest of a workdir, the folder of its media and the kind of its corpus."""
    clips, root = manifest_of(Settings(workdir=work))
    return clips, root, str(read_record(work / "corpus.json").get("kind"))


def _cached_views(folder: Path, reduced: bool) -> Views:
    """What the folder holds; where it is a workdir, its features or its reduced views, as asked."""
    is_workdir = folder.is_dir() and not any(folder.glob("*.npy"))
    inner = folder / ("reduced" if reduced else "features")
    if is_workdir and inner.is_dir():
        return read_views(inner)
    if reduced:
        raise PipelineError(f"--views {folder} holds no reduced views of its own; leave --reduced out")
    return read_views(folder)


def _splits(folder: Path, root: Path | None) -> dict[str, str]:
    """clip_id -> train, valid or test: of splits.csv beside the features, else of a corpus in MMSA's layout."""
    told = read_column(folder, "split")
    label_file = find_label_file(root) if root and not told else None
    if label_file:
        table = read_table(label_file, label_file.name)
        if {"video_id", "clip_id", "mode"} <= set(table.columns):
            cells = [row.cells for row in table.rows]
            told = {segment_id(cell["video_id"], cell["clip_id"]): cell["mode"] for cell in cells}
    named = {clip_id: split_name(split) for clip_id, split in told.items()}
    return {clip_id: split for clip_id, split in named.items() if split}


def _videos(clip_ids: Sequence[str], clips: Sequence[CorpusClip], kind: str) -> dict[str, str]:
    """clip_id -> what it shares with other clips: the recording or speaker that the corpus names, else its media file.

    Where files are segments, and for features without a corpus, it is what the id begins with.
    """
    files_are_segments = kind in ("mosi", "mmsa")
    known = {clip.clip_id: clip.video or ("" if files_are_segments else clip.media) for clip in clips}
    return {clip_id: known.get(clip_id) or video_of(clip_id) for clip_id in clip_ids}


def _assignments(settings: Settings) -> dict[str, tuple[int, float]]:
    """clip_id -> (cluster, confidence) of the run in the results folder; {} where it has none on these views."""
    out = settings.results
    if not (out / "run.json").exists():
        return {}
    try:
        digest = read_record(out / "run.json")["views_digest"]
        rows = read_records(out / "assignments.csv")
        assignments = {row["clip_id"]: (int(row["cluster"]), float(row["confidence"])) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"cannot read the run in {out} ({error}); run `train` again") from None
    if digest != _digest(settings):
        say(f"export: {out} holds a run on other views than these; its clusters are left out")
        return {}
    return assignments


def _digest(settings: Settings) -> str | None:
    try:
        return views_of(settings).digest()
    except PipelineError:  # not reduced, or with other settings: no run can be on it
        return None
