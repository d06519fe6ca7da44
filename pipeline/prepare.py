"""Stage prepare: a corpus on disk -> manifest.jsonl and, apart, labels.csv; and a report of what does not match."""

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Settings
from pipeline.console import say
from pipeline.corpora import read_corpus
from pipeline.corpora.base import LOSING_KINDS, CorpusClip, Problem
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.manifest import corpus_root, read_manifest, write_labels, write_manifest, write_problems
from pipeline.transcripts import fill


def prepare(settings: Settings) -> int:
    """Reads the corpus and writes the manifest, the labels and the problems found.

    Returns:
        how many clips are lost to the manifest (duplicate ids, unreadable rows, files that are not there).
    Raises:
        PipelineError: no corpus root, or nothing in it that the layout knows.
    """
    if settings.corpus.root is None:
        raise PipelineError("corpus.root is not set: the folder with the raw clips (CLIPS=DIR, or --clips DIR)")
    corpus = read_corpus(settings.corpus.kind, settings.corpus.root, **settings.corpus.options())
    if settings.corpus.kind == "synthetic":
        say("prepare: a SYNTHETIC corpus, made here: drawn faces, synthesised voices, sentences from a lexicon")
    work, n_clips = settings.work, 0

    def counted() -> Iterator[CorpusClip]:
        nonlocal n_clips
        for clip in fill(corpus.clips, work, Path(corpus.root).resolve()):
            n_clips += 1
            yield clip

    changed = write_manifest(work / "manifest.jsonl", counted())
    root = {"kind": settings.corpus.kind, "root": str(Path(corpus.root).resolve())}
    changed |= write_atomic(work / "corpus.json", json.dumps(root, indent=2) + "\n")
    changed |= write_labels(work / "labels.csv", corpus.labels)
    write_problems(work / "problems.csv", corpus.problems)
    verb = "wrote" if changed else "nothing to do: up to date:"
    labelled = f"{len(corpus.labels)} with a label (kept apart)" if corpus.labels else "none with a label"
    say(f"prepare: {verb} {work / 'manifest.jsonl'}: {n_clips} clips, {labelled}")
    _tell(corpus.problems, work / "problems.csv")
    return sum(problem.kind in LOSING_KINDS for problem in corpus.problems)


def _tell(problems: list[Problem], path: Path) -> None:
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    for kind, found in by_kind.items():
        say(f"prepare: {len(found)} {kind}: e.g. {found[0].where}: {found[0].message}")
    if problems:
        say(f"prepare: all of them: {path}")


def manifest_of(settings: Settings) -> tuple[list[CorpusClip], Path]:
    """The clips that prepare wrote down, and the folder their media paths are relative to.

    Raises:
        PipelineError: prepare has not run here, or what it wrote is broken.
    """
    root = corpus_root(settings.work)
    return read_manifest(settings.work / "manifest.jsonl"), root
