"""Corpus readers, one a layout: a folder of raw clips in; clips, labels and what does not match out."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.console import progress
from pipeline.corpora.base import Corpus, unknown_name
from pipeline.errors import PipelineError

# kind -> module:function, imported when asked for. A new corpus is one module and one line here.
READERS = {
    "mosi": "pipeline.corpora.mosi:read_mosi",
    "mmsa": "pipeline.corpora.mmsa:read_mmsa",
    "folder": "pipeline.corpora.folder:read_folder",
    "meld": "pipeline.corpora.meld:read_meld",
    "iemocap": "pipeline.corpora.iemocap:read_iemocap",
    "crema_d": "pipeline.corpora.crema_d:read_crema_d",
    "ravdess": "pipeline.corpora.ravdess:read_ravdess",
    "grid": "pipeline.corpora.grid:read_grid",
    "parquet": "pipeline.corpora.parquet:read_parquet",
    "hf": "pipeline.corpora.hf_folder:read_hf",
    "synthetic": "pipeline.corpora:read_synthetic",
}


def read_corpus(kind: str, root: Path, **options: Any) -> Corpus:
    """Reads a corpus of a known layout.

    Args:
        kind: one of READERS.
        root: the folder with the raw clips.
        options: what the layout's reader takes beside root; one left out is the reader's own default.
    Raises:
        PipelineError: an unknown kind, an option that the kind does not know, or what the reader refuses.
    """
    if kind not in READERS:
        raise PipelineError(f"corpus.kind: {unknown_name('corpus', kind, READERS)}")
    module, function = READERS[kind].split(":")
    reader = getattr(importlib.import_module(module), function)
    known = [name for name in inspect.signature(reader).parameters if name != "root"]
    for name in options:
        if name not in known:
            raise PipelineError(f"corpus.{name}: {unknown_name(f'setting of a {kind} corpus', name, known)}")
    corpus: Corpus = reader(root, **options)
    return corpus


def read_synthetic(root: Path, *, clips_per_class: int = 12, seed: int = 0) -> Corpus:
    """The demo's drawn corpus: written to root where it is not there yet, then read like any folder.

    Args:
        clips_per_class: clips of each of its 7 classes.
        seed: another seed is another cast and other clips.
    Raises:
        PipelineError: root holds another corpus, or cannot be written.
    """
    from pipeline.corpora.folder import read_folder
    from pipeline.corpora.synthetic import speakers, write_synthetic_corpus

    with progress(0, "drawing the demo's clips", "clip", delay_s=1.0) as bar:

        def show(n_done: int, n_clips: int) -> None:
            bar.total = n_clips
            bar.update(n_done - bar.n)

        write_synthetic_corpus(root, clips_per_class=clips_per_class, seed=seed, progress=show)
    corpus = read_folder(root)
    who = speakers(clips_per_class, seed)
    corpus.clips = [replace(clip, video=who.get(clip.media)) for clip in corpus.clips]
    return corpus
