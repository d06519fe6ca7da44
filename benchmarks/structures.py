"""Damage to what a file means: JSON, YAML, CSV, arrays and tables that are well formed and hold what nobody expects."""

import copy
import csv
import io
import json
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.mutations import Random, damage

Way = Callable[[bytes, Random], bytes]
LONG = 300_000  # characters; the csv module takes 131,072 in a cell
DEEP = (50, 2_000, 200_000)  # brackets; Python's own limit is 1,000 calls
TEXTS = (
    *("", " ", "x", "7", "-3.5", "nan", "inf", "1e999", "true", "null", "\0", "\x1b[31mred", "a\nb", "a\rb", "\u2028"),
    *("\ud800", "\ufeff", "née", "喜欢", "\U0001f600", "=1+1", '"', "'", ",", ";", "../../etc/passwd", "/etc/passwd"),
    *("..", "a/../b", "a\\b", "x" * 300, "x" * LONG, "9" * 5000, "1_000", "__class__", "{}", "%s", "<b>", "self"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63), 2**70),
    *([], {}, [[]], {"": None}, [None], [0] * 2000, {"recipe": 1}, {"trained": "no"}, [["a", "b"]]),
)
ENCODINGS = ("utf-16", "utf-32", "latin-1", "cp1252", "utf-8-sig", "utf-7", "gb18030")
DTYPES = ("f2", ">f4", "f8", "i1", "i8", "u8", "?", "c16", "U8", "S3", "M8[s]", "V4")


def in_json(data: bytes, rng: Random) -> bytes:
    """A value, a key or the text of a JSON document."""
    if rng.random() < 0.4:
        return in_text(data, rng)
    return json.dumps(changed(json.loads(data), rng), ensure_ascii=bool(rng.random() < 0.5)).encode(
        "utf-8", "surrogatepass"
    )


def in_json_lines(data: bytes, rng: Random) -> bytes:
    """One line of several, or their order and number."""
    if rng.random() < 0.2:
        return in_text(data, rng)
    lines = data.splitlines()
    i, j = (int(place) for place in rng.integers(len(lines), size=2))
    if rng.random() < 0.7:
        lines[i] = in_json(lines[i], rng)
    elif rng.random() < 0.5:
        lines.insert(j, lines[i])
    else:
        del lines[i:]
    return b"\n".join(lines)


def in_yaml(data: bytes, rng: Random) -> bytes:
    """A value or a key of a YAML document, or a construct of YAML that settings have no need of."""
    choice = rng.random()
    if choice < 0.3:
        return in_text(data, rng)
    if choice < 0.6:
        return data + b"\n" + _trap(rng)
    return yaml.safe_dump(changed(yaml.safe_load(data), rng), allow_unicode=True).encode("utf-8", "surrogatepass")


def in_overrides(data: bytes, rng: Random) -> bytes:
    """`key=value` a line: another value, key or sign."""
    lines = data.decode().splitlines()
    i = int(rng.integers(len(lines)))
    key, _, value = lines[i].partition("=")
    choice = rng.random()
    if choice < 0.5:
        value = _trap(rng).decode() if rng.random() < 0.4 else _text(rng)
    elif choice < 0.7:
        key = _text(rng) if rng.random() < 0.5 else f"{key}.{_text(rng)}"
    else:
        return in_text(lines[i].encode(), rng)
    return f"{key}={value}".encode("utf-8", "surrogatepass")


def in_csv(data: bytes, rng: Random) -> bytes:
    """A cell, a row, a column or the quotes of a CSV."""
    choice = rng.random()
    if choice < 0.25:
        return in_text(data, rng)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    row = rows[rng.integers(len(rows))] if rng.random() < 0.7 else rows[0]
    if choice < 0.65 and row:
        row[rng.integers(len(row))] = _text(rng)
    elif choice < 0.75:
        rows.insert(int(rng.integers(len(rows) + 1)), list(row))
    elif choice < 0.85 and row:
        del row[rng.integers(len(row))]
    elif choice < 0.9:
        rows.remove(row)
    else:
        row.append(_text(rng))
    text = io.StringIO()
    delimiter = rng.choice((",", ",", ",", ";", "\t", "|"))
    csv.writer(text, delimiter=delimiter, lineterminator=rng.choice(("\n", "\r\n", "\r"))).writerows(rows)
    written = text.getvalue().encode("utf-8", "surrogatepass")
    return written.replace(b'"', b"", 1) if rng.random() < 0.1 else written


def in_text(data: bytes, rng: Random) -> bytes:
    """The bytes, the encoding, or something absurd somewhere in the text."""
    choice = rng.random()
    if choice < 0.5 or not data:
        return damage(data, rng)
    text = data.decode("utf-8", "replace")
    if choice < 0.65:
        return text.encode(ENCODINGS[rng.integers(len(ENCODINGS))], "replace")
    at = int(rng.integers(len(text) + 1))
    inserted = "[{("[rng.integers(3)] * int(rng.choice(DEEP)) if choice < 0.75 else _text(rng)
    return (text[:at] + inserted + text[at:]).encode("utf-8", "surrogatepass")


def in_array(data: bytes, rng: Random) -> bytes:
    """The values, shape or dtype of an .npy."""
    if rng.random() < 0.4:
        return damage(data, rng)
    return _npy(changed_array(np.load(io.BytesIO(data), allow_pickle=False), rng))


def in_arrays(data: bytes, rng: Random) -> bytes:
    """One array of an .npz, its name, or the archive."""
    if rng.random() < 0.4:
        return damage(data, rng)
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = dict(file)
    name = list(arrays)[rng.integers(len(arrays))]
    array = arrays.pop(name)
    if rng.random() < 0.8:
        arrays[name if rng.random() < 0.8 else "labels"] = changed_array(array, rng)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def in_pickle(data: bytes, rng: Random) -> bytes:
    """An entry of a pickle of arrays; or one that would call something."""
    if rng.random() < 0.4:
        return damage(data, rng)
    content = pickle.loads(data)  # noqa: S301 - made here
    return pickle.dumps(_Calls() if rng.random() < 0.05 else changed(content, rng), protocol=int(rng.integers(6)))


class _Calls:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('a pickle was run')",)


def in_table(data: bytes, rng: Random) -> bytes:
    """A column of a Parquet file: gone, of another type, with nulls; rows twice or none."""
    if rng.random() < 0.4:
        return damage(data, rng)
    table = pq.read_table(io.BytesIO(data), partitioning=None)
    place = int(rng.integers(table.num_columns))
    name, column = table.column_names[place], table.column(place).combine_chunks()
    n = len(table)
    columns: tuple[Callable[[], Any], ...] = (
        lambda: pa.nulls(n),
        lambda: pa.array([None if i % 3 else value for i, value in enumerate(column.to_pylist())]),
        lambda: pa.array([str(value) for value in column.to_pylist()]),
        lambda: pa.array([[0.5] * (i % 3) for i in range(n)]),
        lambda: pa.array([[1.0, None, float("nan")] for _ in range(n)]),
        lambda: pa.array([[float("inf")] * 4 for _ in range(n)], pa.list_(pa.float32(), 4)),
        lambda: pa.array([_ascii(rng) for _ in range(n)]),
        lambda: pa.array([b"\xff\xfe"] * n),
        lambda: pa.array([{"a": 1}] * n),
        lambda: pa.array([2**40] * n),
        lambda: column.dictionary_encode() if pa.types.is_string(column.type) else column,
    )
    choice = rng.random()
    if choice < 0.1:
        table = table.drop_columns([name])
    elif choice < 0.2:
        table = pa.concat_tables([table, table])
    elif choice < 0.25:
        table = table.slice(0, 0)
    elif choice < 0.35:
        table = table.rename_columns([_ascii(rng) if other == name else other for other in table.column_names])
    else:
        table = table.set_column(place, name, columns[rng.integers(len(columns))]())
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def in_tensors(data: bytes, rng: Random) -> bytes:
    """The header of a safetensors file, which is JSON, or its bytes."""
    if rng.random() < 0.5:
        return damage(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = in_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def changed(value: Any, rng: Random) -> Any:
    """A copy with one thing in it gone, renamed, twice or replaced by what does not belong there."""
    value = copy.deepcopy(value)
    place, nodes = value, []
    while isinstance(place, dict | list) and len(place):
        nodes.append(place)
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = keys[rng.integers(len(keys))]
        place = place[key]
        if rng.random() < 0.3:
            break
    if not nodes:
        return _value(rng)
    holder = nodes[-1]
    choice = rng.random()
    if choice < 0.15:
        del holder[key]
    elif choice < 0.25 and isinstance(holder, dict):
        holder[_text(rng)] = holder.pop(key)
    elif choice < 0.3 and isinstance(holder, list):
        holder.append(copy.deepcopy(place))
    elif choice < 0.35:
        return _value(rng) if rng.random() < 0.5 else [value]
    elif isinstance(place, np.ndarray) and rng.random() < 0.7:
        holder[key] = changed_array(place, rng)
    else:
        holder[key] = _value(rng)
    return value


def changed_array(array: Any, rng: Random) -> Any:
    """Another dtype, shape or length; NaN and Inf in it."""
    choice = rng.random()
    try:
        if choice < 0.25:
            return array.astype(DTYPES[rng.integers(len(DTYPES))])
        if choice < 0.4 and array.dtype.kind == "f":
            odd = array.copy()
            odd[rng.random(odd.shape) < rng.choice((0.05, 0.5, 1.0))] = rng.choice((np.nan, np.inf, -np.inf, 1e38))
            return odd
        shapes = ((-1,), (1, -1), (-1, 1), (1, *array.shape), array.shape[::-1])
        if choice < 0.6:
            return array.reshape(shapes[rng.integers(len(shapes))])
        if choice < 0.8:
            return array[: rng.integers(len(array) + 1)]
        return array[..., :0] if rng.random() < 0.5 else np.concatenate([array, array])
    except (ValueError, TypeError):
        return np.array(float(rng.random()))


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _value(rng: Random) -> Any:
    return VALUES[rng.integers(len(VALUES))] if rng.random() < 0.5 else _text(rng)


def _text(rng: Random) -> str:
    return TEXTS[rng.integers(len(TEXTS))]


def _ascii(rng: Random) -> str:
    return _text(rng).encode("ascii", "ignore").decode()[:300]


def _trap(rng: Random) -> bytes:
    """YAML that grows, that holds itself, that names types, or that is no mapping."""
    nine = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    bomb = ", ".join(["{a0: &a0 [x, x]", *nine])
    traps = (
        bomb + "}",
        f"train: {bomb}, n_clusters: *a11}}",
        "train: &t {n_clusters: *t}",
        "train: &t {x: *t, y: [*t]}",
        "reduce: &r [*r]",
        "&k [*k]",
        "train: !!python/object/apply:os.system ['true']",
        "train: !!python/name:os.system",
        "train: !!set {a, b}",
        "train: !!binary aGVsbG8=",
        "workdir: !!binary aGVsbG8=",
        "train: !!omap [a: 1]",
        "name: !!timestamp 2001-99-99",
        "name: 2001-12-14t21:59:43.10-05:00",
        "reduce: {dim: 0o17, seed: 0x7fffffffffffffffffff}",
        "train: {n_clusters: 1:30:00}",
        "? {a: b}\n: c",
        "? [a, b]\n: c",
        "1: 2\nnull: 3\ntrue: 4",
        "train: {<<: *nothing}",
        "train: {<<: [1, 2]}",
        "train: {<<: {n_clusters: 3}}",
        "reduce: |\n  text\n\ttab",
        "--- 1\n--- 2",
        "%YAML 9.9\n---\na: 1",
        "{" * 3000,
        "[" * 3000 + "]" * 3000,
        "a: " * 500,
        "- " * 2000,
        "train: {n_clusters: " + "9" * 5000 + "}",
        "train: {learning_rate: .nan, epochs: .inf}",
        "name: '" + "x" * 100_000 + "'",
        "x" * 100_000 + ": 1",
        "extract: {visual: {fps: 1e400}}",
    )
    return traps[rng.integers(len(traps))].encode()
