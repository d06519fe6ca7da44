"""MELD: utterances of the series Friends; a CSV of words and emotions a split, a file `dia<d>_utt<u>.mp4` a row."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.label_rules import add_label
from pipeline.corpora.scan import Tree, check_root, is_media, refuse_empty, walk
from pipeline.corpora.tables import Table, read_table, split_lines
from pipeline.errors import PipelineError

_SPLITS = ("train", "dev", "test")
_TABLE = re.compile(rf"({'|'.join(_SPLITS)})_sent_emo\.csv", re.IGNORECASE)
# The test split has some clips a second time, as final_videos_testdia<d>_utt<u>.mp4.
_CLIP = re.compile(r"(final_videos_test)?dia([0-9]+)_utt([0-9]+)", re.IGNORECASE)
_LAYOUT = "train_splits/, dev_splits_complete/ or output_repeated_splits_test/ with dia<d>_utt<u>.mp4"
_LABEL_COLUMN = "Emotion"

_Key = tuple[str, int, int]  # split, dialogue, utterance


def read_meld(root: Path, *, label_column: str = _LABEL_COLUMN) -> Corpus:
    r"""Reads MELD as declare-lab distributes it, wherever under root its archives were unpacked.

    `<split>_sent_emo.csv` has the rows of a split (train, dev, test). A media file is of the split that a folder above
    it names, the nearest one first: `train_splits`, `dev_splits_complete`, `output_repeated_splits_test`. Dialogues are
    numbered from 0 in every split, so the clip id is `<split>_dia<d>_utt<u>`. What clips share as their `video` is the
    dialogue: one scene, one set, the same people.

    Windows' quotes, dashes and ellipses that were read in another encoding when the CSV was made (U+0092 or `â€™` for
    `’`) are mended, and that is told.

    Args:
        root: the folder that holds the CSVs and the media, at any depth.
        label_column: the column with the label: Emotion (7 classes) or Sentiment (3).
    Returns:
        A clip for each row whose file is there, and for each file without a row, one without words.
    Raises:
        PipelineError: root cannot be read, none of the three CSVs, one without its columns, no clips.
    Source: github.com/declare-lab/MELD: README.md, data/MELD/*.csv, issue 22 (files without rows, a row without file).
    """
    check_root(root)
    tree = walk(root)
    corpus = Corpus(root, problems=tree.lost(lambda path: is_media(path) or _table_split(path) is not None))
    tables = _find_tables(corpus, tree)
    media = _find_media(corpus, tree)
    for split, path in tables.items():
        table = read_table(root / path, path, mend=_mend)
        corpus.problems.extend(table.problems)
        _add_rows(corpus, split, table, media, label_column)
    known = {clip.media for clip in corpus.clips}
    for (split, dialogue, utterance), path in media.items():
        clip = _clip(split, dialogue, utterance, path)
        if path not in known and corpus.add(clip, path):
            corpus.report("clip_without_transcript", clip.clip_id, f"no row in {split}_sent_emo.csv for {path}")
    refuse_empty(corpus, _LAYOUT)
    corpus.sort()
    return corpus


def _clip(split: str, dialogue: int, utterance: int, path: str, words: str | None = None) -> CorpusClip:
    video = f"{split}_dia{dialogue}"
    return CorpusClip(f"{video}_utt{utterance}", path, transcript=words, video=video)


def _table_split(path: str) -> str | None:
    found = _TABLE.fullmatch(PurePosixPath(path).name)
    return found[1].lower() if found else None


def _find_tables(corpus: Corpus, tree: Tree) -> dict[str, str]:
    """split -> its CSV, the one that lies highest where there are several."""
    tables: dict[str, str] = {}
    for path in sorted(tree.files, key=lambda path: (path.count("/"), path)):
        split = _table_split(path)
        if split is not None and tables.setdefault(split, path) != path:
            corpus.report("duplicate_id", path, f"a second table of the split {split}; {tables[split]} is read")
    if not tables:
        raise PipelineError(
            f"no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv in {corpus.root} or below: "
            "expected MELD; put its CSVs there, or set corpus.kind to the layout you have"
        )
    return {split: tables[split] for split in _SPLITS if split in tables}


def _find_media(corpus: Corpus, tree: Tree) -> dict[_Key, str]:
    """(split, dialogue, utterance) -> its file."""
    media: dict[_Key, str] = {}
    for path in sorted(tree.media(), key=lambda path: "final_videos_test" in path):  # those after their namesakes
        found, split = _CLIP.fullmatch(PurePosixPath(path).stem), _folder_split(path)
        if found is None:
            corpus.report("unreadable_row", path, "expected a file name dia<d>_utt<u>")
        elif split is None:
            corpus.report("unreadable_row", path, f"no folder above it names its split; expected {_LAYOUT}")
        else:
            first = media.setdefault((split, int(found[2]), int(found[3])), path)
            if first != path:
                corpus.report("duplicate_id", path, f"a second file of its clip; {first} is kept")
    return media


def _folder_split(path: str) -> str | None:
    for folder in reversed(PurePosixPath(path).parts[:-1]):
        words = re.split("[^a-z]+", folder.lower())
        named = [split for split in _SPLITS if split in words]
        if len(named) == 1:
            return named[0]
    return None


def _add_rows(corpus: Corpus, split: str, table: Table, media: dict[_Key, str], label_column: str) -> None:
    for column in ("Utterance", "Dialogue_ID", "Utterance_ID"):
        table.require(column)
    table.require(label_column, "corpus.label_column")
    if not any(key[0] == split for key in media):
        message = f"no clips of the split {split}, so its {len(table.rows)} rows are left out; expected {_LAYOUT}"
        corpus.report("missing_file", table.name, message)
        return
    for row in table.rows:
        where, numbers = f"{table.name}:{row.line}", (row.cells["Dialogue_ID"], row.cells["Utterance_ID"])
        if not all(number.isascii() and number.isdigit() for number in numbers):
            corpus.report("unreadable_row", where, f"expected numbers in Dialogue_ID and Utterance_ID, got {numbers}")
            continue
        dialogue, utterance = map(int, numbers)
        path = media.get((split, dialogue, utterance))
        if path is None:
            corpus.report("missing_file", where, f"no file dia{dialogue}_utt{utterance} in a folder of {split}")
            continue
        clip = _clip(split, dialogue, utterance, path, row.cells["Utterance"])
        if corpus.add(clip, where):
            add_label(corpus, clip.clip_id, row.cells[label_column], "as_is", where)


def _misread() -> Iterator[tuple[str, str]]:
    """(what it became, the character that was meant), for every character that Windows-1252 has beyond ASCII."""
    for byte in range(0x80, 0x100):
        meant = bytes([byte]).decode("cp1252", errors="ignore")
        if byte < 0xA0 and meant:
            yield chr(byte), meant  # its byte taken for Latin-1: a control character, which no text holds
        if meant:
            as_latin1 = meant.encode("utf-8").decode("latin-1")
            yield as_latin1, meant
            yield "".join(bytes([ord(c)]).decode("cp1252", errors="ignore") or c for c in as_latin1), meant


_MEANT = dict(_misread())
_MISREAD = re.compile("|".join(map(re.escape, sorted(_MEANT, key=len, reverse=True))))


def _mend(text: str) -> tuple[str, str | None]:
    """Puts back the characters that were read in a wrong encoding, by the table alone, nothing guessed.

    Safe in English: `Ã©` is never meant there. Other languages have such pairs of their own.
    """
    lines = split_lines(text)
    mended = [_MISREAD.sub(lambda found: _MEANT[found[0]], line) for line in lines]
    changed = [number for number, pair in enumerate(zip(lines, mended, strict=True), start=1) if pair[0] != pair[1]]
    if not changed:
        return text, None
    note = f"{len(changed)} of its lines (first: {changed[0]}) held characters read in a wrong encoding; mended"
    return "".join(mended), note
