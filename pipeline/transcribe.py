"""Stage transcribe: words for clips that the corpus has none for, by a speech recogniser. Only where it is asked for.

The corpus' own folder is left as it is. In the workdir:

transcripts.jsonl        see transcripts.py; `prepare` fills the manifest from it
transcripts_failed.csv   clip_id, stage, cause, message, source: the clips that have none
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from extractors.clip import Clip
from extractors.errors import ExtractionError, WeightsError, as_extraction_error
from extractors.media import Media, MediaNeeds, Waveform, read_media
from pipeline.config import Settings, TranscribeSettings
from pipeline.console import detail, progress, say
from pipeline.corpora.base import CorpusClip
from pipeline.corpora.tables import format_table, read_records
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.hardware import threads_of
from pipeline.manifest import to_clip, write_manifest
from pipeline.readers import Readers
from pipeline.sources import source_of
from pipeline.store import FAILURE_COLUMNS, Failure
from pipeline.transcripts import TRANSCRIPTS, Made, fill, read_transcripts, without_words, write_transcripts

if TYPE_CHECKING:
    from extractors.speech_recognition import SpeechRecogniser

FAILED = "transcripts_failed.csv"
CLIPS_AT_ONCE = 16  # read, then transcribed, while as many are being read
WRITTEN_EVERY_S = 30.0  # what a killed run can lose


def transcribe(
    settings: Settings,
    manifest: Sequence[CorpusClip],
    root: Path,
    *,
    every_clip: bool = False,
    retry_failed: bool = False,
) -> int:
    """Transcribes the clips without words that have no transcript by this model yet, and fills the manifest.

    Args:
        manifest: the corpus' clips, in order.
        root: folder their media paths are relative to.
        every_clip: also those that have words of their own, which stay in the manifest.
        retry_failed: also those that failed before and have not changed since.
    Returns:
        how many clips failed.
    Raises:
        PipelineError: the model cannot be had, or the workdir not be written; what was done is kept.
    """
    work = settings.work
    wanted = [to_clip(clip, root) for clip in manifest if every_clip or without_words(clip)]
    sources = {clip.clip_id: source_of(clip, "audio") for clip in wanted}
    folder, model = _model(settings.transcribe)
    made, failures = read_transcripts(work), _read_failures(work / FAILED)
    if retry_failed:
        failures = {}
    failures = {i: one for i, one in failures.items() if sources.get(i) == one.source}
    done = {i for i, one in made.items() if (one.model, one.source) == (model, sources.get(i))}
    pending = [clip for clip in wanted if clip.clip_id not in done | failures.keys()]
    if pending:
        with Readers(settings.extract) as readers:
            readers.start()  # beside the loading of the model
            recogniser = _load(folder, settings)
            say(f"transcribe: {model}; {len(pending)} of {len(wanted)} clips to do")
            _run(recogniser, pending, readers, _Results(work, model, sources, made, failures))
    else:
        say(f"transcribe: nothing to do: {len(wanted)} clips accounted for")
    write_manifest(work / "manifest.jsonl", fill(manifest, work, root))
    _tell(work, [made[clip.clip_id] for clip in wanted if clip.clip_id in made], failures)
    return len(failures)


class _Results:
    """What came of each clip, written now and then."""

    def __init__(
        self, work: Path, model: str, sources: dict[str, str], made: dict[str, Made], failures: dict[str, Failure]
    ) -> None:
        self._work, self._model, self._sources = work, model, sources
        self._made, self._failures = made, failures
        self._written = time.monotonic()

    def add(self, clip: Clip, outcome: str | ExtractionError) -> None:
        clip_id, source = clip.clip_id, self._sources[clip.clip_id]
        if isinstance(outcome, ExtractionError):
            detail(f"transcribe: {clip_id} failed, {outcome.cause}: {outcome.message}")
            self._made.pop(clip_id, None)
            self._failures[clip_id] = Failure(clip_id, outcome.stage, outcome.cause, outcome.message, source)
        else:
            self._made[clip_id] = Made(clip_id, outcome, self._model, source)
        if time.monotonic() - self._written > WRITTEN_EVERY_S:
            self.write()

    def write(self) -> None:
        write_transcripts(self._work, self._made.values())
        rows = [astuple(failure) for failure in self._failures.values()]
        if rows:
            write_atomic(self._work / FAILED, format_table(FAILURE_COLUMNS, rows))
        else:
            (self._work / FAILED).unlink(missing_ok=True)
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


def _run(recogniser: "SpeechRecogniser", clips: Sequence[Clip], readers: Readers, results: _Results) -> None:
    with progress(len(clips), "transcribe", "clip") as bar:
        try:
            for chunk in _read(readers, clips, MediaNeeds(sample_rate_hz=recogniser.sample_rate_hz)):
                heard = [sound for _, sound in chunk if isinstance(sound, Waveform)]
                said = iter(_said(recogniser, heard))
                for clip, sound in chunk:
                    results.add(clip, next(said) if isinstance(sound, Waveform) else sound)
                bar.update(len(chunk))
        finally:
            results.write()


def _read(
    readers: Readers, clips: Sequence[Clip], needs: MediaNeeds
) -> Iterator[list[tuple[Clip, Waveform | ExtractionError]]]:
    """Chunks of clips with their sound; the next one is being read while the caller has this one."""
    waiting: deque[list[tuple[Clip, Future[Media]]]] = deque()
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        waiting.append([(clip, readers.submit(read_media, clip, needs)) for clip in clips[start:][:CLIPS_AT_ONCE]])
        if len(waiting) > 1:
            yield [(clip, _sound(readers, future)) for clip, future in waiting.popleft()]
    for chunk in waiting:
        yield [(clip, _sound(readers, future)) for clip, future in chunk]


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


def _read_failures(path: Path) -> dict[str, Failure]:
    if not path.exists():
        return {}
    try:
        return {row["clip_id"]: Failure(**row) for row in read_records(path)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"cannot read {path} ({error}); delete it, and those clips are tried again") from None


def _tell(work: Path, made: Sequence[Made], failures: dict[str, Failure]) -> None:
    silent = sum(not one.text for one in made)
    heard = f", {silent} of them without a word" if silent else ""
    say(f"transcribe: {len(made)} transcripts made by a model{heard}, nobody has checked them: {work / TRANSCRIPTS}")
    if failures:
        first = next(iter(failures.values()))
        say(f"transcribe: {len(failures)} clips failed: see {work / FAILED}")
        say(f"  e.g. {first.clip_id}: {first.message}")
