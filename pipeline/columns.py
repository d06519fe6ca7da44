"""What lies beside cached features, in a CSV of clip_id and one more column: transcripts.csv, splits.csv."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.corpora.tables import format_table, parse_rows
from pipeline.errors import PipelineError
from pipeline.files import write_atomic

# column -> its file
COLUMN_FILES = {"transcript": "transcripts.csv", "split": "splits.csv"}
SPLITS = ("train", "valid", "test")
_SPLIT_NAMES = {"val": "valid", "validation": "valid", "dev": "valid"}


def write_column(folder: Path, column: str, values: Mapping[str, str]) -> None:
    """Writes a column's file, a row a clip; nothing where there are no values."""
    if values:
        write_atomic(folder / COLUMN_FILES[column], format_table(("clip_id", column), values.items()))


def read_column(folder: Path, column: str) -> dict[str, str]:
    """clip_id -> value of a column's file; {} where there is none.

    Raises:
        PipelineError: another header, a row that is not two cells, an id twice.
    """
    path = folder / COLUMN_FILES[column]
    if not path.exists():
        return {}
    values: dict[str, str] = {}
    try:
        (_, header), *rows = parse_rows(path.read_bytes().decode("utf-8-sig")) or [(0, [])]
        if header != ["clip_id", column]:
            raise ValueError(f"expected the header clip_id,{column}, got {','.join(header)!r}")
        for line, row in rows:
            if len(row) != 2 or row[0] in values:
                raise ValueError(f"line {line}: expected an id of its own and a {column}, got {row}")
            values[row[0]] = row[1]
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}); correct it, or delete it") from None
    return values


def split_name(text: str) -> str | None:
    """train, valid or test as a corpus may write it; None for anything else."""
    name = text.strip().lower()
    name = _SPLIT_NAMES.get(name, name)
    return name if name in SPLITS else None
