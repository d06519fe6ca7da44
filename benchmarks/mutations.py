"""Damage to the bytes of a file, as disks, downloads and strangers do it; and what a message about it must be like."""

import re
from collections.abc import Callable, Sequence

import numpy as np

Random = np.random.Generator
FLIP_RATES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1)  # bits
# What a field may hold that was written to do harm, or by mistake: edges of every width, and signs.
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)
LONGEST_MESSAGE = 2000  # characters; more is a flood and no sentence
_WORD = re.compile(r"[A-Za-z]{2,}")
_TRACEBACK = re.compile(r'Traceback|File "[^"]*", line \d')


def flip_bits(data: bytes, rng: Random) -> bytes:
    """Some bits anywhere, at least one."""
    content = np.frombuffer(data, np.uint8).copy()
    n_flips = max(1, rng.binomial(8 * len(content), rng.choice(FLIP_RATES)))
    places = rng.integers(len(content), size=n_flips)
    np.bitwise_xor.at(content, places, (1 << rng.integers(8, size=n_flips)).astype(np.uint8))
    return content.tobytes()


def truncate(data: bytes, rng: Random) -> bytes:
    """The beginning alone, or the end alone."""
    cut = int(rng.integers(len(data)))
    return data[:cut] if rng.random() < 0.8 else data[cut:]


def damage_head(data: bytes, rng: Random) -> bytes:
    """Random bytes over a part of the first 512."""
    start = int(rng.integers(min(512, len(data))))
    noise = rng.bytes(int(rng.integers(1, 64)))
    return data[:start] + noise[: len(data) - start] + data[start + len(noise) :]


def zero_run(data: bytes, rng: Random) -> bytes:
    """A hole, as a download that was not finished leaves it."""
    start, end = _span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def swap_chunks(data: bytes, rng: Random) -> bytes:
    """Two neighbouring spans in the other order."""
    cuts = sorted(int(cut) for cut in rng.integers(len(data) + 1, size=3))
    return data[: cuts[0]] + data[cuts[1] : cuts[2]] + data[cuts[0] : cuts[1]] + data[cuts[2] :]


def repeat_chunk(data: bytes, rng: Random) -> bytes:
    """A span twice."""
    start, end = _span(data, rng)
    return data[:end] + data[start:end] + data[end:]


def drop_chunk(data: bytes, rng: Random) -> bytes:
    """A span left out, so that whatever counts bytes is wrong after it."""
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def write_edge(data: bytes, rng: Random) -> bytes:
    """A number at the edge of its type over 1, 2, 4 or 8 bytes, most often near the beginning."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 256)
    return edge_at(data, int(rng.integers(reach)), rng)


def edge_at(data: bytes, start: int, rng: Random) -> bytes:
    """The same at a place."""
    width = int(rng.choice((1, 2, 4, 8)))
    value = int(EDGES[rng.integers(len(EDGES))]) & (256**width - 1)
    field = value.to_bytes(width, "big" if rng.random() < 0.5 else "little")
    return data[:start] + field[: len(data) - start] + data[start + width :]


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip_bits,
    truncate,
    damage_head,
    zero_run,
    swap_chunks,
    repeat_chunk,
    drop_chunk,
    write_edge,
)


def damage(data: bytes, rng: Random, ways: Sequence[Callable[[bytes, Random], bytes]] = BYTES) -> bytes:
    """One of the ways, sometimes another on top; what is empty stays so."""
    for _ in range(1 if rng.random() < 0.8 else 2):
        data = ways[int(rng.integers(len(ways)))](data, rng) if data else data
    return data


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    """A few bytes to a third of them."""
    length = max(1, int(len(data) * 10 ** rng.uniform(-4, -0.5)))
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + length)


def what_is_wrong_with(message: str) -> str | None:
    """Why a message is none for a person; None where it is one: a line of words, of a length that can be read."""
    if len(message.splitlines()) != 1:
        return "it is not one line"
    if _TRACEBACK.search(message):
        return "it holds a traceback"
    if len(_WORD.findall(message)) < 3:
        return "it has no words"
    if len(message) > LONGEST_MESSAGE:
        return f"it has {len(message)} characters"
    return None
