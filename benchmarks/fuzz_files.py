"""Damaged text and binary files of a workdir, a run, a corpus and an import, read by the stages that read them.

`python -m benchmarks.fuzz_files --n 1000 --seed 0` prints counts as JSON. Each file is read, or refused by a
PipelineError: one line of words that names the file or the setting. Anything else is a violation, and exit code 1.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import structures as damaged
from benchmarks.fuzz_tree import can_write_csd, settings_of, with_own_audio, write_tree
from benchmarks.mutations import what_is_wrong_with
from extractors.errors import ExtractionError
from pipeline.assignments import ASSIGNMENTS, read_assignments, read_restarts
from pipeline.config import ExtractSettings, Settings, load_settings
from pipeline.console import Output, output
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of, show
from pipeline.export.content import gather
from pipeline.features import stores_of
from pipeline.files import write_atomic
from pipeline.ingest import ingest
from pipeline.manifest import read_labels, read_manifest, to_clip, write_labels, write_manifest
from pipeline.prepare import manifest_of, prepare
from pipeline.readers import Readers
from pipeline.reduce import load_reduction, reduce, views_of
from pipeline.report.run import read_material, read_run
from pipeline.run import load_run
from pipeline.status import status
from pipeline.view_files import read_views

TIME_LIMIT_S, MEMORY_GB = 30.0, 4.0  # to read one file by all that read it
SLOW_S = 10.0  # a person would take it for a hang
FILES_AT_ONCE = 200

Read = Callable[[Path], object]  # of the tree's root


@dataclass(frozen=True, slots=True)
class Target:
    """A file of the tree, how it is damaged, and what reads it.

    Attributes:
        path: relative to the tree; may have wildcards, and is the first that they match.
        reads: each on its own, so that one that refuses hides no other.
        names: what a message may name in place of the file.
    """

    path: str
    damage: damaged.Way
    reads: tuple[Read, ...]
    names: tuple[str, ...] = ()


@cache
def _settings(root: Path) -> Settings:
    return settings_of(root)


def _scratch(root: Path) -> Path:
    """A new workdir for what reading writes; gone when the case is over."""
    return root / "scratch"


def _status(root: Path) -> object:
    return status(_settings(root))


def _manifest(root: Path) -> object:
    """Read, and written as every stage writes its clips: ids that cannot be written must not get as far."""
    clips, media = manifest_of(_settings(root))
    write_manifest(_scratch(root) / "manifest.jsonl", clips)
    write_labels(_scratch(root) / "labels.csv", {clip.clip_id: "1" for clip in clips})
    write_atomic(_scratch(root) / "paths.txt", "\n".join(to_clip(clip, media).media_path for clip in clips))
    return clips


def _labels(root: Path) -> object:
    return read_labels(root / "work/labels.csv"), labels_of(_settings(root), views_of(_settings(root)))


def _corpus(kind: str, folder: str, **options: Any) -> Read:
    def read(root: Path) -> object:
        chosen = {f"corpus__{name}": value for name, value in options.items()}
        settings = load_settings(
            None, [], corpus__kind=kind, corpus__root=root / folder, workdir=_scratch(root), **chosen
        )
        prepare(settings)
        return read_manifest(_scratch(root) / "manifest.jsonl"), read_labels(_scratch(root) / "labels.csv")

    return read


def _stores(root: Path) -> object:
    settings = _settings(root)
    manifest, media = manifest_of(settings)
    stores = stores_of(settings, [to_clip(clip, media) for clip in manifest], "fuzz")
    for store, stamps in stores.values():
        store.failed.read()
        list(store.iter_sequences(stamps))
    return {modality: store.read(stamps) for modality, (store, stamps) in stores.items()}


def _reduce(root: Path) -> None:
    """In a copy, as it writes: the views that are there are of the file as it was."""
    shutil.copytree(root / "work", _scratch(root) / "work", ignore=shutil.ignore_patterns("results", "reduced"))
    reduce(_settings(root).model_copy(update={"workdir": _scratch(root) / "work"}))


def _views(root: Path) -> object:
    return views_of(_settings(root))


def _report(root: Path) -> object:
    settings = _settings(root)
    return read_material(settings, read_run(settings.results))


def _show(root: Path) -> object:
    show(_settings(root))
    folder = _settings(root).results
    return read_restarts(folder, read_assignments(folder / ASSIGNMENTS).clip_ids)


def _load_run(root: Path) -> object:
    run = load_run(_settings(root).results)
    return load_settings(run.folder / "config.yaml"), load_reduction(run.folder / "reduction")


def _export(root: Path) -> object:
    return gather(_settings(root), reduced=False), gather(_settings(root), reduced=True)


def _own_audio(root: Path) -> object:
    return status(with_own_audio(root))


def _cached(folder: str) -> Read:
    def read(root: Path) -> object:
        settings = load_settings(None, [], views=root / folder, workdir=_scratch(root))
        labels_of(settings, read_views(root / folder))
        return gather(settings, reduced=False)

    return read


def _ingest(source: str) -> Read:
    return lambda root: ingest(root / source, None, _scratch(root) / "imported")


def _ingest_again(root: Path) -> object:
    return ingest(root / "exports/npz", "npz", root / "imported")


def _config(root: Path) -> object:
    settings = load_settings(root / "fuzz.yaml")
    return settings.work, settings.results, settings.own_audio, settings.own_int8, settings.model_dump_json()


def _overrides(root: Path) -> object:
    lines = (root / "overrides.txt").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    return [load_settings(None, [line]).model_dump() for line in lines if line]


RUN = (_report, _status, _load_run, _export)
FOLDER = (_corpus("folder", "clips", table="clips.csv"), _corpus("folder", "clips"))
TARGETS = (
    Target("work/manifest.jsonl", damaged.in_json_lines, (_manifest, _stores, _status, _export)),
    Target("work/corpus.json", damaged.in_json, (_manifest, _status, _export)),
    Target("work/labels.csv", damaged.in_csv, (_labels, _status, _report)),
    Target("work/problems.csv", damaged.in_csv, (_status,)),
    Target("clips/clips.csv", damaged.in_csv, FOLDER),
    Target("texts/v0_0.txt", damaged.in_text, (_corpus("folder", "texts"),)),
    Target("mosi/Raw/Transcript/Segmented/v0.annotprocessed", damaged.in_text, (_corpus("mosi", "mosi"),)),
    Target("mosi/label.csv", damaged.in_csv, (_corpus("mosi", "mosi"),)),
    Target("mmsa/label.csv", damaged.in_csv, (_corpus("mmsa", "mmsa"), _corpus("mosi", "mmsa"))),
    Target("fuzz.yaml", damaged.in_yaml, (_config,)),
    Target("overrides.txt", damaged.in_overrides, (_overrides,), ("--set", "setting", *Settings.model_fields)),
    Target("work/features/audio/*/recipe.json", damaged.in_json, (_stores, _status, _reduce, _export)),
    Target("work/features/text/*/part-*.parquet", damaged.in_table, (_stores, _status, _reduce)),
    Target("work/features/audio/*/failures.csv", damaged.in_csv, (_stores, _status)),
    Target("work/pretrain/*/audio.json", damaged.in_json, (_own_audio,)),
    Target("work/reduced/text.npy", damaged.in_array, (_views, _status)),
    Target("work/reduced/clip_ids.json", damaged.in_json, (_views, _status)),
    Target("work/reduced/recipe.json", damaged.in_json, (_views, _status, _export)),
    Target("work/results/fuzz/run.json", damaged.in_json, RUN),
    Target("work/results/fuzz/metrics.json", damaged.in_json, (_report, _status, _show)),
    Target("work/results/fuzz/assignments.csv", damaged.in_csv, RUN),
    Target("work/results/fuzz/restarts.csv", damaged.in_csv, (_show,)),
    Target("work/results/fuzz/history.csv", damaged.in_csv, RUN),
    Target("work/results/fuzz/config.yaml", damaged.in_yaml, RUN),
    Target("work/results/fuzz/model.json", damaged.in_json, RUN),
    Target("work/results/fuzz/model.safetensors", damaged.in_tensors, RUN),
    Target("work/results/fuzz/reduction/recipe.json", damaged.in_json, (_load_run,)),
    Target("work/results/fuzz/reduction/reduction.safetensors", damaged.in_tensors, (_load_run,)),
    *(
        Target(f"cached/{name}", damage, (_cached("cached"), _ingest("cached")))
        for name, damage in (
            ("text.npy", damaged.in_array),
            ("labels.npy", damaged.in_array),
            ("clip_ids.json", damaged.in_json),
            ("transcripts.csv", damaged.in_csv),
        )
    ),
    Target("imported/labels.csv", damaged.in_csv, (_cached("imported"), _ingest("imported"))),
    Target("imported/import.json", damaged.in_json, (_ingest_again,)),
    Target("exports/npz/features.npz", damaged.in_arrays, (_ingest("exports/npz"),)),
    Target("exports/csv/features.csv", damaged.in_csv, (_ingest("exports/csv"),)),
    Target("exports/parquet/features.parquet", damaged.in_table, (_ingest("exports/parquet"),)),
    Target("exports/hf/data/*.parquet", damaged.in_table, (_ingest("exports/hf"),)),
    Target("exports/mmsa/features.pkl", damaged.in_pickle, (_ingest("exports/mmsa"),)),
    *(
        Target(f"csd/{name}.csd", damaged.damage, (_ingest("csd"),))
        for name in ("COVAREP", "labels", "words")
        if can_write_csd()
    ),
)


def fuzz_files(n: int, seed: int) -> dict[str, Any]:
    """Damages the files of a small valid tree one at a time and has the stages read them.

    Args:
        n: files, the targets in turn.
    Returns:
        {"files", "outcomes": file -> "read" or "refused" -> readings, "violations": those that must not be, "seconds"}.
    """
    started = time.monotonic()
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    violations: list[dict[str, Any]] = []
    settings = ExtractSettings(clip_time_limit_s=TIME_LIMIT_S, clip_memory_gb=MEMORY_GB)
    with TemporaryDirectory() as temporary, Readers(settings) as readers:
        readers.start()
        template = Path(temporary) / "tree"
        template.mkdir()
        write_tree(template)
        for first in range(0, n, FILES_AT_ONCE):
            numbers = range(first, min(n, first + FILES_AT_ONCE))
            results = readers.map(read_damaged, [template] * len(numbers), [seed] * len(numbers), numbers)
            for number, result in zip(numbers, results, strict=True):
                path = TARGETS[number % len(TARGETS)].path
                if isinstance(result, ExtractionError):  # it hung, or took the process with it
                    result = {"outcomes": [result.cause], "wrong": [f"{result.cause}: {result.message}"]}
                outcomes[path].update(result["outcomes"])
                violations += [{"number": number, "file": path, "wrong": wrong} for wrong in result["wrong"]]
    return {
        "files": n,
        "seed": seed,
        "outcomes": {path: dict(counts) for path, counts in outcomes.items()},
        "violations": violations,
        "seconds": round(time.monotonic() - started, 1),
    }


def read_damaged(template: Path, seed: int, number: int) -> dict[str, list[str]]:
    """One file of this process' own copy of the tree, damaged, read and restored.

    Returns:
        {"outcomes": "read" or "refused" a reading, "wrong": what must not be}.
    """
    root, target = _copy_of(template), TARGETS[number % len(TARGETS)]
    path = next(iter(sorted(root.glob(target.path))))
    whole, stamp = path.read_bytes(), path.stat()
    rng = np.random.default_rng([seed, number])
    path.write_bytes(target.damage(whole, rng))
    results: dict[str, list[str]] = {"outcomes": [], "wrong": []}
    try:
        with output(Output(quiet=True)):
            for read in target.reads:
                outcome, wrong = _read(read, root, target)
                results["outcomes"].append(outcome)
                results["wrong"] += [wrong] if wrong else []
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return results


def _read(read: Read, root: Path, target: Target) -> tuple[str, str | None]:
    """("read" or "refused", what must not be)."""
    started = time.process_time()  # whatever else the machine is doing
    try:
        read(root)
        outcome, wrong = "read", None
    except PipelineError as error:
        outcome, wrong = "refused", _wrong_with(str(error), target)
    except (Exception, SystemExit) as error:
        outcome, wrong = "raised", f"{type(error).__name__}: {str(error)[:300]}{_where(error)}"
    finally:
        shutil.rmtree(_scratch(root), ignore_errors=True)
    if time.process_time() - started > SLOW_S:
        wrong = f"it took {time.process_time() - started:.0f} s"
    return outcome, wrong


def _wrong_with(message: str, target: Target) -> str | None:
    told = message[:300]
    wrong = what_is_wrong_with(message)
    names = (*Path(target.path.replace("*", "")).parts, *target.names)
    if not wrong and not any(name in message for name in names if name):
        wrong = "it names neither file nor setting"
    return f"{wrong}: {told}" if wrong else None


def _where(error: BaseException) -> str:
    """The last line of the project's own that it passed."""
    at, here = error.__traceback__, ""
    while at is not None:
        code = at.tb_frame.f_code
        if f"{os.sep}pipeline{os.sep}" in code.co_filename or f"{os.sep}tib{os.sep}" in code.co_filename:
            here = f", in {Path(code.co_filename).name}:{at.tb_lineno} {code.co_name}"
        at = at.tb_next
    return here


@cache
def _copy_of(template: Path) -> Path:
    """Of this process alone, beside the template, with which it goes."""
    root = template.with_name(f"copy_{os.getpid()}")
    shutil.copytree(template, root)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_files", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    found = fuzz_files(options.n, options.seed)
    print(json.dumps(found, indent=2))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    from benchmarks import fuzz_files as module  # by the name that the reading processes know it by

    sys.exit(module.main())
