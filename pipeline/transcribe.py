"""Stage transcribe: words for clips that the corpus has none for, by a speech recogniser. Only where it is asked for.

The corpus' own folder is left as it is; what is made lies in the workdir (transcripts.py), and `prepare` fills the
manifest from it.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from extractors.clip import Clip
from extractors.errors import ExtractionError, WeightsError, as_extraction_error
from extractors.media import Media, MediaNeeds, Waveform, read_media
from pipeline.config import Settings, TranscribeSettings
from pipeline.console import detail, progress, say
from pipeline.corpora.base import CorpusClip
from pipeline.errors import PipelineError
from pipeline.failures import FAILURES, Failure
from pipeline.hardware import threads_of
from pipeline.ledger import Ledger
from pipeline.manifest import to_clip, write_manifest
from pipeline.readers import Readers
from pipeline.transcripts import Made, Newest, Transcripts, fill, without_words

if TYPE_CHECKING:
    from extractors.speech_recognition import SpeechRecogniser

CLIPS_AT_ONCE = 16  # read, then transcribed, while as many are being read
WRITTEN_EVERY_S = 30.0  # what a killed run can lose
Pending = tuple[Clip, str]  # and the stamp of its sound


def transcribe(
    settings: Settings,
    manifest: Iterable[CorpusClip],
    root: Path,
    *,
    every_clip: bool = False,
    retry_failed: bool = False,
) -> int:
    """Transcribes the clips without words that have no transcript by this model yet, and fills the manifest.

    Args:
        manifest: the corpus' clips, in order; gone through several times.
        root: folder their media paths are relative to.
        every_clip: also those that have words of their own, which stay in the manifest.
        retry_failed: also those that failed before and have not changed since.
    Returns:
        how many clips failed.
    Raises:
        PipelineError: the model cannot be had, or the workdir not be written; what was done is kept.
    """

    def wanted() -> Iterator[Clip]:
        return (to_clip(clip, root) for clip in manifest if every_clip or without_words(clip))

    folder, model = _model(settings.transcribe)
    transcripts = Transcripts(settings.work, model)
    transcripts.mend()
    with Ledger(wanted, ("audio",)) as ledger:
        n_pending, n_failed = ledger.account("audio", transcripts, retry_failed=retry_failed)
        if n_pending:
            with Readers(settings.extract) as readers:
                readers.start()  # beside the loading of the model
                recogniser = _load(folder, settings)
                say(f"transcribe: {model}; {n_pending} of {ledger.n_clips} clips to do")
                pending = ((clip, stamps["audio"]) for _, clip, stamps in ledger.pending(["audio"]))
                _run(recogniser, pending, n_pending, readers, _Results(transcripts))
            _, n_failed = ledger.account("audio", transcripts)
        else:
            say(f"transcribe: nothing to do: {ledger.n_clips} clips accounted for")
        transcripts.failed.write(ledger.failures("audio"))
        first = next(ledger.failures("audio"), None)
    with Newest(transcripts.path) as newest:
        newest.tidy()
        _tell(newest.of(wanted()), transcripts, n_failed, first)
    write_manifest(settings.work / "manifest.jsonl", fill(manifest, settings.work, root))
    return n_failed


class _Results:
    """What came of each clip, written now and then."""

    def __init__(self, transcripts: Transcripts) -> None:
        self._transcripts = transcripts
        self._made: list[Made] = []
        self._failures: list[Failure] = []
        self._written = time.monotonic()

    def add(self, clip: Clip, source: str, outcome: str | ExtractionError) -> None:
        clip_id = clip.clip_id
        if isinstance(outcome, ExtractionError):
            detail(f"transcribe: {clip_id} failed, {outcome.cause}: {outcome.message}")
            self._failures.append(Failure(clip_id, outcome.stage, outcome.cause, outcome.message, source))
        else:
            self._made.append(Made(clip_id, outcome, self._transcripts.model, source))
        if time.monotonic() - self._written > WRITTEN_EVERY_S:
            self.write()

    def write(self) -> None:
        self._transcripts.append(self._made)
        self._transcripts.failed.add(self._failures)
        self._made, self._failures = [], []
        self._written = time.monotonic()


def _model(settings: TranscribeSettings) -> tuple[Path, str]:
    """The model's folder, and what its transcripts are marked with: all that changes what it says."""
    from extractors.speech_recognition import model_folder, model_sha256

    try:
        folder = model_folder(settings.model)
        checksum = model_sha256(folder)[:12]
    except WeightsError as error:
        raise PipelineError(str(error)) from None
    language = f", {settings.language}" if settings.language else ""
    name = folder.name if Path(settings.model).expanduser().is_dir() else settings.model
    return folder, f"{name} (sha256 {checksum}{language})"


def _load(folder: Path, settings: Settings) -> "SpeechRecogniser":
    import torch

    from extractors.speech_recognition import SpeechRecogniser

    section = settings.transcribe
    torch.set_num_threads(threads_of(settings.extract.threads))
    try:
        return SpeechRecogniser(
            folder,
            language=section.language,
            chunk_length_s=section.chunk_length_s,
            batch_size=section.batch_size if isinstance(section.batch_size, int) else None,
            device=section.device,
        )
    except WeightsError as error:
        raise PipelineError(str(error)) from None
    except ValueError as error:
        raise PipelineError(f"transcribe: {error}") from None


def _run(
    recogniser: "SpeechRecogniser", clips: Iterator[Pending], n_clips: int, readers: Readers, results: _Results
) -> None:
    with progress(n_clips, "transcribe", "clip") as bar:
        try:
            for chunk in _read(readers, clips, MediaNeeds(sample_rate_hz=recogniser.sample_rate_hz)):
                heard = [sound for _, sound in chunk if isinstance(sound, Waveform)]
                said = iter(_said(recogniser, heard))
                for (clip, source), sound in chunk:
                    results.add(clip, source, next(said) if isinstance(sound, Waveform) else sound)
                bar.update(len(chunk))
        finally:
            results.write()


def _read(
    readers: Readers, clips: Iterator[Pending], needs: MediaNeeds
) -> Iterator[list[tuple[Pending, Waveform | ExtractionError]]]:
    """Chunks of clips with their sound; the next one is being read while the caller has this one."""
    waiting: deque[list[tuple[Pending, Future[Media]]]] = deque()
    while some := list(islice(clips, CLIPS_AT_ONCE)):
        waiting.append([(one, readers.submit(read_media, one[0], needs)) for one in some])
        if len(waiting) > 1:
            yield [(one, _sound(readers, future)) for one, future in waiting.popleft()]
    for chunk in waiting:
        yield [(one, _sound(readers, future)) for one, future in chunk]


def _sound(readers: Readers, future: "Future[Media]") -> Waveform | ExtractionError:
    try:
        return readers.result(future).require_waveform()
    except PipelineError:  # the readers are gone
        raise
    except Exception as error:  # a decoder's surprise belongs to the clip, not to the run
        return as_extraction_error("read", error)


def _said(recogniser: "SpeechRecogniser", sounds: Sequence[Waveform]) -> list[str | ExtractionError]:
    """Together; if that breaks, one by one, so that only the clip at fault is lost."""
    if not sounds:
        return []
    try:
        return list(recogniser.transcribe([sound.samples for sound in sounds]))
    except Exception as error:
        if len(sounds) == 1:
            return [as_extraction_error("encode", error)]
        return [_said(recogniser, [sound])[0] for sound in sounds]


def _tell(
    wanted: Iterator[tuple[Clip, Made | None]], transcripts: Transcripts, n_failed: int, first: Failure | None
) -> None:
    n_made, n_silent = 0, 0
    for _, made in wanted:
        n_made += made is not None
        n_silent += made is not None and not made.text
    heard = f", {n_silent} of them without a word" if n_silent else ""
    say(f"transcribe: {n_made} transcripts made by a model{heard}, nobody has checked them: {transcripts.path}")
    if first:
        say(f"transcribe: {n_failed} clips failed: see {transcripts.failed.folder / FAILURES}")
        say(f"  e.g. {first.clip_id}: {first.message}")
