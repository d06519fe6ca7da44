"""GRID: `s<speaker>/<sentence>.mpg`, a name whose six signs spell the sentence, and `.align` with what was said."""

import re
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip, unknown_name
from pipeline.corpora.recordings import Recording, add_recordings, media_paths
from pipeline.corpora.scan import Tree, check_root, is_media, refuse_empty, walk
from pipeline.corpora.tables import parse_number, read_text, split_lines
from pipeline.errors import PipelineError

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The sentence's six words and the sign of the name that stands for each: bbaf2n is "bin blue at f two now".
WORDS: dict[str, dict[str, str]] = {
    "command": {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    "color": {"b": "blue", "g": "green", "r": "red", "w": "white"},
    "preposition": {"a": "at", "b": "by", "i": "in", "w": "with"},
    "letter": {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    "digit": {"z": "zero", **{str(n): word for n, word in enumerate(_DIGITS) if n}},
    "adverb": {"a": "again", "n": "now", "p": "please", "s": "soon"},
}
_NAME = re.compile("".join(f"[{''.join(letters)}]" for letters in WORDS.values()))
_SPEAKER = re.compile(r"(s\d+)(?:[._ -].*)?", re.IGNORECASE)  # s1; s1.mpg_6000.part1, s1_processed
_SILENCES = ("sil", "sp")
_FULL_SIZE = "mpg_6000"  # the folder of the better of the two videos that are distributed
_LAYOUT = "s<speaker>/<sentence>.mpg, sentences as bbaf2n"


def read_grid(root: Path, *, label_column: str | None = None) -> Corpus:
    """Reads the GRID audio-visual sentence corpus, laid out in any of the ways that people have it.

    The speaker is the nearest folder s1, s2, ... above a file, root itself included; a file under none has no speaker.
    The clip id is `<speaker>_<sentence>`, its video the speaker. The words are those of `<sentence>.align`, lines of
    `<start> <end> <word>` in 1/25000 s, wherever it lies under a folder of the same speaker; without one, those that
    the name spells. A recording is one clip: of its files mpg_6000 goes before other video, video before sound alone.

    Args:
        root: the folder with the speakers' folders, or one of these.
        label_column: the word of the sentence to score against: command, color, preposition, letter, digit or adverb;
            None for no labels.
    Returns:
        A clip for each recording.
    Raises:
        PipelineError: a word that the sentences do not have, root cannot be read, or holds no file so named.

    Source: Cooke et al. 2006, An audio-visual corpus for speech perception and automatic speech recognition.
    """
    if label_column is not None and label_column not in WORDS:
        raise PipelineError(f"corpus.label_column: {unknown_name('word of a GRID sentence', label_column, WORDS)}")
    check_root(root)
    tree = walk(root)
    corpus = Corpus(root, problems=tree.lost(_is_align))
    aligned = _read_alignments(corpus, tree)
    recordings = []
    for path in media_paths(tree):
        name = PurePosixPath(path).stem.lower()
        if _NAME.fullmatch(name) is None:
            corpus.report("unreadable_row", path, "expected a name of GRID's six signs, as bbaf2n")
            continue
        speaker = _speaker(root, path)
        clip_id = f"{speaker}_{name}" if speaker else name
        spelt = {word: letters[letter] for letter, (word, letters) in zip(name, WORDS.items(), strict=True)}
        words = aligned.get(clip_id, ("", " ".join(spelt.values())))[1]
        clip = CorpusClip(clip_id, path, transcript=words, video=speaker)
        recordings.append(Recording(clip_id, _rank(path), clip, spelt[label_column] if label_column else None))
    add_recordings(corpus, tree, recordings)
    refuse_empty(corpus, _LAYOUT)
    known = {clip.clip_id for clip in corpus.clips}
    for clip_id, (path, _) in aligned.items():
        if clip_id not in known:
            corpus.report("transcript_without_clip", path, f"no video and no sound of {clip_id!r}")
    corpus.sort()
    return corpus


def _speaker(root: Path, path: str) -> str | None:
    for folder in (*reversed(PurePosixPath(path).parts[:-1]), root.absolute().name):
        if found := _SPEAKER.fullmatch(folder):
            return found[1].lower()
    return None


def _rank(path: str) -> int:
    if not is_media(path):
        return 2
    return 0 if _FULL_SIZE in path else 1


def _is_align(path: str) -> bool:
    return path.lower().endswith(".align")


def _read_alignments(corpus: Corpus, tree: Tree) -> dict[str, tuple[str, str]]:
    """clip_id -> (file, the words in it); of a file without words nothing."""
    aligned: dict[str, tuple[str, str]] = {}
    for path in filter(_is_align, tree.files):
        text = read_text(corpus, path)
        if text is None:
            continue
        name, speaker = PurePosixPath(path).stem.lower(), _speaker(corpus.root, path)
        if words := _words(corpus, path, text):
            aligned.setdefault(f"{speaker}_{name}" if speaker else name, (path, words))
    return aligned


def _words(corpus: Corpus, path: str, text: str) -> str:
    """The words of an alignment without its silences; "" where a line cannot be read, so that none is left out."""
    words = []
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            start, end, word = line.split()
            if parse_number(start) > parse_number(end):
                raise ValueError("it ends before it begins")
        except ValueError:
            message = f"expected <start> <end> <word>, got {line.strip()[:60]!r}; the words of the name are taken"
            corpus.report("unreadable_row", f"{path}:{number}", message)
            return ""
        if word.lower() not in _SILENCES:
            words.append(word)
    return " ".join(words)
