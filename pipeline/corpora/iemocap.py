"""IEMOCAP: dialogs of two actors, minutes long, whose transcriptions say when each utterance begins and ends."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.label_rules import add_label
from pipeline.corpora.scan import check_root, is_media, refuse_empty, walk
from pipeline.corpora.tables import parse_number, read_text, split_lines

_RELEASE_FOLDERS = ("", "IEMOCAP_full_release/")
_FILMS, _SOUNDS, _SENTENCES = "dialog/avi", "dialog/wav", "sentences/wav"
_TRANSCRIPTIONS, _EVALUATIONS = "dialog/transcriptions", "dialog/EmoEvaluation"
_LAYOUT = f"Session<n>/{_FILMS}/DivX/<dialog>.avi or Session<n>/{_SENTENCES}/<dialog>/<utterance>.wav"
_NO_AGREEMENT = "xxx"
_SESSION = re.compile("Session[0-9]+")

# Ses01F_impro01_F000; XX in place of a number is an utterance that nobody judged: Ses03F_impro05_MXX0.
_ID = r"(Ses[0-9]{2}[FM]_[A-Za-z0-9_]+_[FM][0-9X]{3})"
_SPAN = r"\[\s*([0-9.]+)\s*-\s*([0-9.]+)\s*\]"
_SAID = re.compile(rf"{_ID}\s*(?:{_SPAN})?\s*:(.*)")
_JUDGED = re.compile(rf"{_SPAN}\s+{_ID}\s+(\w+)\b.*")
_SPEAKER_ALONE = re.compile(r"[FM]\s*:.*")


@dataclass(slots=True)
class _Session:
    """A session as it was found.

    Attributes:
        name: Session1 .. Session5.
        films, sounds: dialog -> its file.
        sentences: utterance id -> its file.
        words: utterance id -> what is said.
        spans_s: utterance id -> where it begins and ends in its dialog, seconds.
        judgements: utterance id -> the emotion that most judges named.
        where: utterance id -> file:line that first tells of it.
    """

    name: str
    films: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    spans_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    judgements: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)


def read_iemocap(root: Path) -> Corpus:
    """Reads IEMOCAP's full release.

    A clip is a span of `Session<n>/dialog/avi/DivX/<dialog>.avi`, from and to where the transcription (or, where that
    gives no times, the evaluation) says. Where there is no avi the clip is the sentence's own wav, and where that is
    missing too a span of the dialog's wav: sound without a picture.

    What clips share as their `video` is the session: its two actors are in all of its dialogs and in no other session,
    so only sessions keep a speaker on one side when clips are held out.

    The label is the evaluation's code as it stands (ang, dis, exc, fea, fru, hap, neu, oth, sad, sur); `xxx`, no
    agreement among the judges, is no label.

    Args:
        root: the folder that holds Session1 .. Session5, or the folder around IEMOCAP_full_release.
    Returns:
        A clip for each utterance that a transcription, an evaluation or a sentence's file tells of and that has media.
    Raises:
        PipelineError: root cannot be read, or no clips.
    Source: Busso et al. 2008, and the file names and lines of its full release.
    """
    check_root(root)
    corpus = Corpus(root)
    for folder in _session_folders(root):
        session = _read_session(corpus, folder)
        _add_clips(corpus, session)
        _report_silent(corpus, session)
    refuse_empty(corpus, _LAYOUT)
    corpus.sort()
    return corpus


def _session_folders(root: Path) -> list[str]:
    """The sessions' folders relative to root."""
    for release in _RELEASE_FOLDERS:
        inside = (root / release).glob("Session*")
        found = sorted(path.name for path in inside if _SESSION.fullmatch(path.name) and path.is_dir())
        if found:
            return [release + name for name in found]
    return []


def _read_session(corpus: Corpus, folder: str) -> _Session:
    session = _Session(PurePosixPath(folder).name)
    session.films = _files(corpus, f"{folder}/{_FILMS}", is_media)
    session.sounds = _files(corpus, f"{folder}/{_SOUNDS}", _is_wav)
    session.sentences = _files(corpus, f"{folder}/{_SENTENCES}", _is_wav)
    for path in _files(corpus, f"{folder}/{_TRANSCRIPTIONS}", _is_text).values():
        _read_transcription(corpus, session, path)
    evaluations = f"{folder}/{_EVALUATIONS}"
    for path in _files(corpus, evaluations, _is_text).values():
        if str(PurePosixPath(path).parent) == evaluations:  # its subfolders have each judge's own
            _read_evaluation(corpus, session, path)
    for utterance, path in session.sentences.items():
        session.where.setdefault(utterance, path)
    return session


def _is_wav(path: str) -> bool:
    return path.lower().endswith(".wav")


def _is_text(path: str) -> bool:
    return path.lower().endswith(".txt")


def _files(corpus: Corpus, folder: str, wanted: Callable[[str], bool]) -> dict[str, str]:
    """name without extension -> file, of the wanted ones below a folder; {} where there is no such folder."""
    if not (corpus.root / folder).is_dir():
        return {}
    tree = walk(corpus.root, folder)
    corpus.problems.extend(tree.lost(wanted))
    return {PurePosixPath(path).stem: path for path in reversed(tree.files) if wanted(path)}


def _lines(corpus: Corpus, path: str) -> Iterator[tuple[str, str]]:
    """(file:line, text) of each line that is not blank; none of a file that cannot be read."""
    for number, line in enumerate(split_lines(read_text(corpus, path) or ""), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _read_transcription(corpus: Corpus, session: _Session, path: str) -> None:
    for where, line in _lines(corpus, path):
        said = _SAID.fullmatch(line)
        if said is None:
            if _SPEAKER_ALONE.fullmatch(line):
                corpus.report("transcript_without_clip", where, f"words without an id or times: {line[:60]!r}")
            else:
                message = f"expected <utterance> [<start>-<end>]: <words>, got {line[:60]!r}"
                corpus.report("unreadable_row", where, message)
            continue
        utterance, start, end, words = said.groups()
        if utterance in session.words:
            corpus.report("duplicate_id", where, f"a second text for clip {utterance!r}; the first is kept")
            continue
        session.words[utterance] = words.strip()
        session.where[utterance] = where
        if start is not None:
            _note_span(corpus, session, utterance, (start, end), where)


def _read_evaluation(corpus: Corpus, session: _Session, path: str) -> None:
    for where, line in _lines(corpus, path):
        judged = _JUDGED.fullmatch(line)
        if judged is None:
            if line.startswith("["):  # other lines are the header, and what each judge said
                message = f"expected [<start> - <end>] <utterance> <emotion> [<v>, <a>, <d>], got {line[:60]!r}"
                corpus.report("unreadable_row", where, message)
            continue
        start, end, utterance, emotion = judged.groups()
        if utterance in session.judgements:
            corpus.report("duplicate_id", where, f"a second label for clip {utterance!r}; the first is kept")
            continue
        session.judgements[utterance] = emotion
        session.where.setdefault(utterance, where)
        if utterance not in session.spans_s:
            _note_span(corpus, session, utterance, (start, end), where)


def _note_span(corpus: Corpus, session: _Session, utterance: str, span: tuple[str, str], where: str) -> None:
    try:
        start_s, end_s = map(parse_number, span)
        if not start_s < end_s:
            raise ValueError(f"it ends at {end_s} s, not after its start at {start_s} s")
    except ValueError as error:
        corpus.report("unreadable_row", where, f"the times of {utterance!r} are left out: {error}")
    else:
        session.spans_s[utterance] = (start_s, end_s)


def _add_clips(corpus: Corpus, session: _Session) -> None:
    for utterance, where in session.where.items():
        clip = _clip(session, utterance)
        if clip is None:
            kind = "transcript_without_clip" if utterance in session.words else "label_without_clip"
            corpus.report(kind, where, _why_no_media(session, utterance))
            continue
        if not corpus.add(clip, where):
            continue
        if clip.transcript is None:
            corpus.report("clip_without_transcript", utterance, f"no line in {_TRANSCRIPTIONS} of {session.name}")
        emotion = session.judgements.get(utterance, _NO_AGREEMENT)
        if emotion != _NO_AGREEMENT:
            add_label(corpus, utterance, emotion, "as_is", where)


def _dialog(utterance: str) -> str:
    return utterance.rpartition("_")[0]


def _clip(session: _Session, utterance: str) -> CorpusClip | None:
    """The utterance with the best media there is; None where there is none."""
    dialog, span_s = _dialog(utterance), session.spans_s.get(utterance)
    words = session.words.get(utterance)
    long_file = session.films.get(dialog)
    if (long_file is None or span_s is None) and utterance in session.sentences:
        return CorpusClip(utterance, session.sentences[utterance], transcript=words, video=session.name)
    long_file = long_file or session.sounds.get(dialog)
    if long_file is None or span_s is None:
        return None
    return CorpusClip(utterance, long_file, *span_s, transcript=words, video=session.name)


def _why_no_media(session: _Session, utterance: str) -> str:
    dialog = _dialog(utterance)
    if dialog in session.films or dialog in session.sounds:
        return f"no times for {utterance!r}, so it cannot be cut from its dialog"
    return f"no {dialog}.avi, {utterance}.wav or {dialog}.wav in {session.name}"


def _report_silent(corpus: Corpus, session: _Session) -> None:
    """The dialogs of which nothing says where their utterances are."""
    told = {_dialog(utterance) for utterance in session.where}
    for dialog, path in (session.sounds | session.films).items():
        if dialog not in told:
            message = f"no {dialog}.txt in {_TRANSCRIPTIONS} or {_EVALUATIONS} says where its utterances are"
            corpus.report("missing_file", path, message)
