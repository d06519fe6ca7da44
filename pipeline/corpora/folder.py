"""A folder of media files, with a CSV of their transcripts and labels or a .txt beside each."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.label_rules import add_label, check_label_rule
from pipeline.corpora.scan import Tree, check_inside, check_root, is_media, refuse_empty, walk
from pipeline.corpora.tables import Row, Table, parse_number, read_columns, read_table, read_text
from pipeline.errors import PipelineError

_FILE_COLUMN, _TRANSCRIPT_COLUMN, _LABEL_COLUMN = "file", "transcript", "label"
_VIDEO_COLUMNS = ("video", "speaker")  # the first that is there
_DEFAULTS = (_FILE_COLUMN, _TRANSCRIPT_COLUMN, None, None)


@dataclass(frozen=True, slots=True)
class Columns:
    """What a table's columns are called; None where it has no such column."""

    file: str
    transcript: str | None
    label: str | None
    video: str | None


def read_folder(
    root: Path,
    *,
    table: str | None = None,
    file_column: str = _FILE_COLUMN,
    transcript_column: str = _TRANSCRIPT_COLUMN,
    label_column: str | None = None,
    video_column: str | None = None,
    label_rule: str = "as_is",
) -> Corpus:
    """Reads a folder of media files and its subfolders.

    With a table, a row is a clip: columns for file and transcript, optionally label, start_s and end_s (seconds into
    the file), clip_id. It may list any kind of file, audio alone included, and one file more than once when clip_id
    tells its spans apart. Without a table, a media file is a clip, its transcript `<name>.txt` beside it. The clip id
    is the path without its extension ("sub/a") unless the table has a clip_id column.

    Args:
        root: the folder; no clip may lie outside it.
        table: CSV, relative to root or absolute; None takes the one *.csv in root that has the file column.
        file_column: column with the media file, relative to root.
        transcript_column: column with the words; "" where the corpus has none.
        label_column: column with the label; None takes "label" if there is one.
        video_column: column with the recording or the speaker that clips share; None takes "video" or "speaker" if
            there is one.
        label_rule: how a label becomes a class; see `label_rules.apply_label_rule`.
    Returns:
        A clip for each row whose file is there, then for each media file that no row lists; where two have one id,
        the first stays.
    Raises:
        PipelineError: root cannot be read or holds no clips, a column or table that does not exist, several tables to
            choose from, an unknown rule.
    """
    check_label_rule(label_rule)
    check_root(root)
    path = root / table if table is not None else _find_table(root, file_column)
    tree = walk(root)
    corpus = Corpus(root)
    listed: set[str] = set()
    if path is not None:
        found = read_table(path, table or path.name)
        columns = _columns(found, file_column, transcript_column, label_column, video_column)
        corpus.problems.extend(found.problems)
        listed = add_rows(corpus, tree, found, columns, label_rule)
    elif (file_column, transcript_column or _TRANSCRIPT_COLUMN, label_column, video_column) != _DEFAULTS:
        raise PipelineError(
            f"no *.csv with a column {file_column!r} in {root}, and the columns that are set need one; "
            "set corpus.table or corpus.file_column"
        )
    corpus.problems.extend(tree.lost(is_media))
    _add_unlisted(corpus, tree, listed, path, with_text=bool(transcript_column))
    refuse_empty(corpus, "media files here and in subfolders, or a *.csv that lists files of any kind")
    corpus.sort()
    return corpus


def _find_table(root: Path, file_column: str) -> Path | None:
    paths = sorted(p for p in root.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith("."))
    try:
        tables = [path for path in paths if path.is_file() and file_column in read_columns(check_inside(root, path))]
    except OSError as error:
        raise PipelineError(f"cannot read {error.filename}: {error.strerror}; set corpus.table") from error
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise PipelineError(f"{root} has {len(tables)} tables with a column {file_column!r}: {names}; set corpus.table")
    return tables[0] if tables else None


def _columns(table: Table, file: str, transcript: str, label: str | None, video: str | None) -> Columns:
    table.require(file, "corpus.file_column")
    if transcript:
        table.require(transcript, "corpus.transcript_column")
    if label is not None:
        table.require(label, "corpus.label_column")
    elif _LABEL_COLUMN in table.columns:
        label = _LABEL_COLUMN
    if video is not None:
        table.require(video, "corpus.video_column")
    else:
        video = next((name for name in _VIDEO_COLUMNS if name in table.columns and name not in (file, label)), None)
    return Columns(file, transcript or None, label, video)


def add_rows(corpus: Corpus, tree: Tree, table: Table, columns: Columns, label_rule: str) -> set[str]:
    """Adds a clip for each row of a table, or reports why not.

    Beside the columns named, `clip_id`, `start_s` and `end_s` are read where the table has them.

    Args:
        tree: what is there; a file that it refused is reported at its row, and taken out of its list.
        columns: the file column holds paths relative to the corpus root.
    Returns:
        the files that rows list, whether they became clips or not.
    """
    files = set(tree.files)
    listed = set()
    for row in table.rows:
        where = f"{table.name}:{row.line}"
        name = row.cells[columns.file]
        try:
            media = _inside(name, files)
            refused = tree.refused.pop(media, None)  # reported here, at its row, instead
            listed.add(media)
            if refused is not None:
                corpus.report(refused.kind, where, f"{media}: {refused.message}")
            elif media not in files:
                corpus.report("missing_file", where, f"no file {name!r} in {corpus.root}")
            elif corpus.add(clip := _clip(row, media, columns), where) and columns.label:
                add_label(corpus, clip.clip_id, row.cells[columns.label], label_rule, where)
        except ValueError as error:
            corpus.report("unreadable_row", where, str(error))
    return listed


def _inside(name: str, files: set[str]) -> str:
    """A cell as a path of the tree. Backslashes are separators where no file has them in its name."""
    path = PurePosixPath(name if name in files else name.replace("\\", "/"))
    if not path.parts:
        raise ValueError("no file named")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the file {name!r} leaves the corpus root; put it there and give its path from the root")
    return path.as_posix()


def _clip(row: Row, media: str, columns: Columns) -> CorpusClip:
    start, end = row.cells.get("start_s"), row.cells.get("end_s")
    return CorpusClip(
        clip_id=row.cells.get("clip_id", path_id(media)),
        media=media,
        start_s=parse_number(start) if start else 0.0,
        end_s=parse_number(end) if end else None,
        transcript=row.cells[columns.transcript] if columns.transcript else None,
        video=(row.cells[columns.video].strip() or None) if columns.video else None,
    )


def path_id(path: str) -> str:
    """The clip id of a file that has no other: its path without the extension."""
    return PurePosixPath(path).with_suffix("").as_posix()


def _add_unlisted(corpus: Corpus, tree: Tree, listed: set[str], table: Path | None, *, with_text: bool) -> None:
    """The media files that no row lists: with the .txt beside them where there is no table at all."""
    texts = {path_id(path): path for path in reversed(tree.files) if path.lower().endswith(".txt")}
    for path in tree.media():
        if path in listed:
            continue
        clip_id = path_id(path)
        beside = texts.get(clip_id) if with_text and table is None else None
        transcript = _read_transcript(corpus, beside) if beside is not None else None
        if corpus.add(CorpusClip(clip_id, path, transcript=transcript), path) and beside is None and with_text:
            lacking = f"no row in {table.name}" if table else f"no {PurePosixPath(clip_id).name}.txt beside it"
            corpus.report("clip_without_transcript", clip_id, lacking)
    if table is None and with_text:
        ids = {clip.clip_id for clip in corpus.clips}
        for clip_id, path in sorted(texts.items()):
            if clip_id not in ids:
                corpus.report("transcript_without_clip", path, "no media file of this name beside it")


def _read_transcript(corpus: Corpus, path: str) -> str | None:
    text = read_text(corpus, path, if_unreadable="clip_without_transcript")
    return None if text is None else text.strip()
