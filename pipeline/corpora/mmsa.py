"""The MMSA tree: `Raw/<video>/<n>.mp4` and `label.csv` (video_id, clip_id, text, label, annotation, mode, ...)."""

from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.label_rules import add_label, check_label_rule
from pipeline.corpora.scan import check_inside, check_root, is_media, refuse_empty, walk
from pipeline.corpora.tables import Table, read_table
from pipeline.errors import PipelineError

LABEL_FILE = "label.csv"
_COLUMNS = ("video_id", "clip_id", "text", "label")


def segment_id(video: str, n: str) -> str:
    """The clip id `<video>_<n>`; a numeric n loses its leading zeros, so that every layout gives a clip one id."""
    return f"{video}_{n.lstrip('0') or '0'}" if n.isascii() and n.isdigit() else f"{video}_{n}"


def find_label_file(root: Path) -> Path | None:
    """`label.csv` in root, or beside it where root is the folder Raw; None where there is neither.

    Raises:
        PipelineError: it is a link to elsewhere.
    """
    folders = [root]
    if root.absolute().name.lower() == "raw":
        folders.append(root / "..")
    there = (folder for folder in folders if (folder / LABEL_FILE).is_file())
    return next((check_inside(folder, folder / LABEL_FILE) for folder in there), None)


def read_mmsa(root: Path, *, label_rule: str = "round7") -> Corpus:
    """Reads CMU-MOSI, CMU-MOSEI or CH-SIMS as MMSA lays them out.

    The clip id is `<video>_<n>`. `n` of the table and of the file name match as they are, else as numbers (0001 and 1).

    Args:
        root: the folder with `label.csv` and `Raw`, or Raw itself.
        label_rule: how a label becomes a class; see `label_rules.apply_label_rule`.
    Returns:
        A clip for each media file: with the words and the label of its row, or without both where it has no row.
    Raises:
        PipelineError: no label.csv or one without its columns, no clips, an unknown rule, a root that cannot be read.
    """
    check_label_rule(label_rule)
    check_root(root)
    label_file = find_label_file(root)
    if label_file is None:
        raise PipelineError(
            f"no {LABEL_FILE} in {root}; expected the MMSA layout, {LABEL_FILE} beside Raw/<video>/<n>.mp4: "
            "set corpus.root (CLIPS=) to the folder that holds both, or corpus.kind to the layout you have"
        )
    table = read_table(label_file, LABEL_FILE)
    for column in _COLUMNS:
        table.require(column)
    tree = walk(root, "Raw" if (root / "Raw").is_dir() else "")
    corpus = Corpus(root, problems=[*tree.lost(is_media), *table.problems])
    _add_clips(corpus, table, tree.media(), label_rule)
    refuse_empty(corpus, f"Raw/<video>/<n>.mp4 for the rows of {LABEL_FILE}")
    corpus.sort()
    return corpus


def _add_clips(corpus: Corpus, table: Table, media: list[str], label_rule: str) -> None:
    exact: dict[tuple[str, str], str] = {}
    by_id: dict[str, str] = {}
    for path in media:
        exact.setdefault(_video_and_n(path), path)
        by_id.setdefault(segment_id(*_video_and_n(path)), path)
    listed = set()
    for row in table.rows:
        video, n = row.cells["video_id"], row.cells["clip_id"]
        clip_id, where = segment_id(video, n), f"{table.name}:{row.line}"
        found = exact.get((video, n)) or by_id.get(clip_id)
        if found is None:
            corpus.report("transcript_without_clip", where, f"no media file for clip {n!r} of video {video!r}")
            continue
        listed.add(found)
        if corpus.add(CorpusClip(clip_id, found, transcript=row.cells["text"], video=video), where):
            add_label(corpus, clip_id, row.cells["label"], label_rule, where)
    for path in media:
        video, n = _video_and_n(path)
        clip_id = segment_id(video, n)
        if path not in listed and corpus.add(CorpusClip(clip_id, path, video=video), path):
            corpus.report("clip_without_transcript", clip_id, f"no row in {table.name} for {path}")


def _video_and_n(path: str) -> tuple[str, str]:
    name = PurePosixPath(path)
    return name.parent.name, name.stem
