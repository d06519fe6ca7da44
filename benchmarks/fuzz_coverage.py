"""Coverage-guided fuzzing of the parsers that read strangers' text: bytes are kept that reach code none before reached.

`python -m benchmarks.fuzz_coverage config --seconds 120`. It needs atheris, which is no dependency of the project:
`.venv/bin/uv pip install --target DIR atheris`, then `PYTHONPATH=DIR`. A finding ends it: the exception, and the bytes
in a file crash-* of the current folder. Each parser may refuse what it gets, by a PipelineError in words, and no more.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import PipelineError

Parse = Callable[[Path], object]


def _table(path: Path) -> object:
    from pipeline.corpora.tables import format_table, parse_rows, read_columns, read_table

    read_columns(path)
    table = read_table(path, path.name)
    rows = [tuple(row.cells.values()) for row in table.rows]
    written = format_table(tuple(table.columns), rows)
    assert [cells for _, cells in parse_rows(written)][1:] == [list(row) for row in rows]  # noqa: S101 - the property
    return rows


def _transcript(path: Path) -> object:
    from pipeline.corpora.base import Corpus
    from pipeline.corpora.mosi import _parse_transcript
    from pipeline.corpora.tables import decode_text

    corpus, found = Corpus(path.parent), dict[str, str]()
    _parse_transcript(corpus, "v.annotprocessed", decode_text(path.read_bytes())[0], found)
    return corpus.problems, found


def _labels(path: Path) -> object:
    from pipeline.manifest import read_labels

    return read_labels(path)


def _manifest(path: Path) -> object:
    from pipeline.manifest import read_manifest, write_manifest

    clips = read_manifest(path)
    write_manifest(path.with_name("again.jsonl"), clips)
    assert read_manifest(path.with_name("again.jsonl")) == clips  # noqa: S101 - the property
    return clips


def _config(path: Path) -> object:
    from pipeline.config import load_settings

    return load_settings(path).model_dump_json()


def _overrides(path: Path) -> object:
    from pipeline.config import load_settings

    return load_settings(None, [path.read_bytes().decode("utf-8", "replace")]).model_dump_json()


def _recipe(path: Path) -> object:
    from pipeline.records import Reduction, Run, read_metrics, read_record

    for read in (lambda: read_record(path, Reduction), lambda: read_record(path, Run), lambda: read_metrics(path)):
        try:
            read()
        except ValueError as error:
            if not str(error):
                raise
    return None


def _pickle(path: Path) -> object:
    from pipeline.unpickle import load_pickle

    return load_pickle(path)


# name -> what parses it, and how one begins
PARSERS: dict[str, tuple[Parse, bytes]] = {
    "table": (_table, b'file,transcript,label\na.mp4,"well, that",1\n'),
    "transcript": (_transcript, b"1_DELIM_WORDS OF IT\n2_DELIM_MORE\n"),
    "labels": (_labels, b"clip_id,label\na_1,positive\n"),
    "manifest": (_manifest, b'{"clip_id": "a", "media": "a.mp4", "start_s": 0.5, "end_s": null, "transcript": "x"}\n'),
    "config": (_config, b"corpus: {kind: mosi}\nextract: {text: null}\ntrain:\n  n_clusters: 7\n"),
    "overrides": (_overrides, b"train.n_clusters=7"),
    "recipe": (_recipe, b'{"inputs": "a", "settings": {}, "dim": 3, "explained": {"text": 0.5}, "features": {}}'),
    "pickle": (_pickle, b"\x80\x04}\x94(\x8c\x05train\x94}\x94\x8c\x02id\x94]\x94su."),
}


def parse(name: str, data: bytes) -> None:
    """Gives a parser these bytes, as a file; what is no PipelineError is raised."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:  # noqa: S108
        path = Path(folder) / "input.csv"
        path.write_bytes(data)
        with suppress(PipelineError):
            PARSERS[name][0](path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz_coverage", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        import atheris  # type: ignore
    except ImportError:
        print(
            "fuzz_coverage needs atheris: .venv/bin/uv pip install --target DIR atheris, then PYTHONPATH=DIR",
            file=sys.stderr,
        )
        return 2
    with atheris.instrument_imports(include=["pipeline", "yaml", "csv", "json"]):
        parse(options.parser, PARSERS[options.parser][1])  # imports what it needs, so that it is watched
    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "first").write_bytes(PARSERS[options.parser][1])
        flags = [f"-max_total_time={options.seconds}", f"-seed={options.seed + 1}", "-max_len=4096", "-timeout=20"]
        atheris.Setup([sys.argv[0], *flags, corpus], lambda data: parse(options.parser, data))
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
