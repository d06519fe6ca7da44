"""CMU-MOSI as it is distributed: segmented videos, and a transcript file a video whose lines are its segments."""

from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.label_rules import add_label, check_label_rule
from pipeline.corpora.mmsa import find_label_file, read_mmsa, segment_id
from pipeline.corpora.scan import check_root, is_media, refuse_empty, walk
from pipeline.corpora.tables import read_table, read_text, split_lines
from pipeline.errors import PipelineError

_VIDEO_FOLDER = "Video/Segmented"
_TRANSCRIPT_FOLDER = "Transcript/Segmented"
_TRANSCRIPT_SUFFIX = ".annotprocessed"
_DELIMITER = "_DELIM_"
_LAYOUTS = f"Raw/{_VIDEO_FOLDER}/<video>_<n>.mp4 (as distributed), or label.csv with Raw/<video>/<n>.mp4 (MMSA)"


def read_mosi(root: Path, *, label_rule: str = "round7", labels_csv: str | None = None) -> Corpus:
    """Reads CMU-MOSI in either layout that people hold.

    Raw: `Raw/Video/Segmented/<video>_<n>.mp4` with `Raw/Transcript/Segmented/<video>.annotprocessed`, lines of
    `<n>_DELIM_<TEXT>`; it has no labels of its own. MMSA: `Raw/<video>/<n>.mp4` with `label.csv` (see `read_mmsa`).
    Both give a clip the id `<video>_<n>`.

    Args:
        root: the folder that holds Raw, or Raw itself.
        label_rule: how a label becomes a class; see `label_rules.apply_label_rule`.
        labels_csv: CSV with the columns clip_id and label, or video_id, clip_id and label (MMSA's label.csv is one),
            relative to root or absolute; it takes the place of the layout's own labels. The raw layout uses a
            `label.csv` in root where there is one.
    Raises:
        PipelineError: neither layout, no clips, an unknown rule, a labels_csv that cannot be used.
    """
    check_label_rule(label_rule)
    check_root(root)
    raw = next((prefix for prefix in ("Raw/", "") if (root / prefix / _VIDEO_FOLDER).is_dir()), None)
    labels = find_label_file(root)
    if raw is not None:
        corpus = _read_raw(root, raw)
    elif labels is not None:
        corpus, labels = read_mmsa(root, label_rule=label_rule), None
    else:
        corpus = Corpus(root)
        refuse_empty(corpus, _LAYOUTS)
    if labels_csv is not None:
        labels = root / labels_csv
    if labels is not None:
        _read_labels(corpus, labels, labels_csv or labels.name, label_rule)
    return corpus


def _read_raw(root: Path, raw: str) -> Corpus:
    """The raw layout; `raw` is what comes before Video/ and Transcript/ in a path: "Raw/" or ""."""
    videos = walk(root, raw + _VIDEO_FOLDER)
    corpus = Corpus(root, problems=videos.lost(is_media))
    transcripts = _read_transcripts(corpus, raw + _TRANSCRIPT_FOLDER)
    for path in videos.media():
        video, _, n = PurePosixPath(path).stem.rpartition("_")  # ids hold "_" themselves: the last one counts
        if not (video and n.isascii() and n.isdigit()):
            corpus.report("unreadable_row", path, "expected a file name <video>_<n>")
            continue
        clip_id = segment_id(video, n)
        kept = corpus.add(CorpusClip(clip_id, path, transcript=transcripts.get(clip_id), video=video), path)
        if kept and clip_id not in transcripts:
            message = f"no line {n}{_DELIMITER} in {_TRANSCRIPT_FOLDER}/{video}{_TRANSCRIPT_SUFFIX}"
            corpus.report("clip_without_transcript", clip_id, message)
    refuse_empty(corpus, _LAYOUTS)
    known = {clip.clip_id for clip in corpus.clips}
    for clip_id in transcripts:
        if clip_id not in known:
            corpus.report("transcript_without_clip", clip_id, f"no file {clip_id}.mp4 in {_VIDEO_FOLDER}")
    corpus.sort()
    return corpus


def _read_transcripts(corpus: Corpus, folder: str) -> dict[str, str]:
    """clip_id -> words, of every transcript file in the folder; {} where there is no such folder."""
    transcripts: dict[str, str] = {}
    if not (corpus.root / folder).is_dir():
        return transcripts
    tree = walk(corpus.root, folder)
    corpus.problems.extend(tree.lost(_is_transcript))
    for path in filter(_is_transcript, tree.files):
        text = read_text(corpus, path)
        if text is None:
            continue
        _parse_transcript(corpus, path, text, transcripts)
    return transcripts


def _is_transcript(path: str) -> bool:
    return path.lower().endswith(_TRANSCRIPT_SUFFIX)


def _parse_transcript(corpus: Corpus, path: str, text: str, transcripts: dict[str, str]) -> None:
    video = PurePosixPath(path).name[: -len(_TRANSCRIPT_SUFFIX)]
    for line_number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        where = f"{path}:{line_number}"
        n, delimiter, words = (part.strip() for part in line.partition(_DELIMITER))
        if not (delimiter and n.isascii() and n.isdigit()):
            corpus.report("unreadable_row", where, f"expected <n>{_DELIMITER}<text>, got {line.strip()[:60]!r}")
        elif segment_id(video, n) in transcripts:
            corpus.report("duplicate_id", where, f"a second text for clip {segment_id(video, n)!r}; the first is kept")
        else:
            transcripts[segment_id(video, n)] = words


def _read_labels(corpus: Corpus, path: Path, name: str, label_rule: str) -> None:
    if not path.is_file():
        raise PipelineError(f"no file {path}; set corpus.labels_csv to a CSV with the columns clip_id and label")
    table = read_table(path, name)
    table.require("clip_id")
    table.require("label")
    corpus.problems.extend(table.problems)
    corpus.labels.clear()
    known = {clip.clip_id for clip in corpus.clips}
    seen: set[str] = set()
    for row in table.rows:
        where = f"{name}:{row.line}"
        video, n = row.cells.get("video_id"), row.cells["clip_id"]
        if video is None:
            video, _, n = n.rpartition("_")
        clip_id = segment_id(video, n)
        if clip_id not in known:
            corpus.report("label_without_clip", where, f"no clip {clip_id!r}")
        elif clip_id in seen:
            corpus.report("duplicate_id", where, f"a second label for clip {clip_id!r}; the first is kept")
        else:
            add_label(corpus, clip_id, row.cells["label"], label_rule, where)
        seen.add(clip_id)
