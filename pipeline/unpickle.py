"""Pickles of NumPy arrays and plain containers, read without running anything that a pickle asks for.

A pickle is a program that may call whatever it names. Here every name is refused but those that NumPy's own pickles
hold (protocols 0 to 5, NumPy 1 and 2, Python 2), and these lead to stand-ins that take an array's parts and nothing
else. NumPy's own `dtype` is never handed a state: a forged one corrupts memory.
"""

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError

MAX_STEPS = 20_000_000  # opcodes: some 20 seconds and 2 GB; an array is a dozen of them, whatever its size
MEMO_SLACK = 1000  # how far a memo index may run ahead of the memo: it sets the size of a table
# Ways to make objects that arrays and plain containers do not need.
_REFUSED_STEPS = {
    *("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"),
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
}
_STEPS = {step.code.encode("latin1"): step for step in pickletools.opcodes}
_MEMO_STEPS = ("PUT", "BINPUT", "LONG_BINPUT")
_NUMERIC_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def load_pickle(path: Path) -> Any:
    """What a pickle holds: dicts, lists, tuples, sets, text, bytes, numbers, None, and arrays of numbers or text.

    Raises:
        PipelineError: it cannot be read or is cut off, or holds anything else, which is named and not run.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_steps(cast(IO[bytes], content))
            content.seek(0)
            return _Unpickler(content, encoding="latin1").load()  # NumPy's advice for pickles of Python 2
    except _Refused as error:
        raise PipelineError(f"{path} {error}") from None
    except MemoryError:
        raise PipelineError(f"{path} does not fit in memory; save its arrays as .npy, or in parts") from None
    except Exception as error:  # a damaged pickle breaks the unpickler in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PipelineError(
            f"cannot read {path} as a pickle ({reason}); it is damaged, cut off or none: get it again"
        ) from None


def _check_steps(content: IO[bytes]) -> None:
    """Reads the whole program without running it: that it ends, makes nothing but data, and asks for no huge memo."""
    n_stored = 0
    for number, (step, argument) in enumerate(_steps(content)):
        if step.name in _REFUSED_STEPS:
            raise _refusal(f"an object made by {step.name}")
        if number > MAX_STEPS:
            raise _Refused(f"holds more than {MAX_STEPS:,} items; save its numbers as arrays, not as lists")
        if step.name in _MEMO_STEPS and int(argument or 0) > n_stored + MEMO_SLACK:
            raise ValueError(f"its memo index {argument} leads nowhere")
        n_stored += step.name in _MEMO_STEPS or step.name == "MEMOIZE"


def _steps(content: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Each opcode and its argument; as pickletools.genops, which stops at the text of Python 2 that is not ASCII."""
    code = b""
    while code != b".":
        code = content.read(1)
        step = _STEPS.get(code)
        if step is None:
            raise ValueError(f"unknown opcode {code!r}" if code else "it ends before its STOP")
        if step.name == "STRING":
            yield step, content.readline()
        else:
            yield step, step.arg.reader(content) if step.arg else None


class _Refused(pickle.UnpicklingError):
    """A pickle that asks for more than is read from one; says what."""


def _refusal(what: str) -> _Refused:
    return _Refused(
        f"holds {what}; of a pickle only NumPy arrays, text, numbers, lists, tuples and dicts are read, as anything "
        "else could run code here. Save it as arrays (numpy.savez) where you trust it"
    )


class _Array(np.ndarray):
    """An array that takes its content from a checked state alone."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array's state is not of NumPy's form")
        shape, dtype, is_fortran, raw = state[-4:]  # before it a version, which pickles of 2005 lack
        size, dtype = _size(shape), _dtype(dtype)
        if dtype.hasobject:
            if not isinstance(raw, list) or len(raw) != size:
                raise ValueError(f"an array of {size} objects does not hold a list of so many")
        else:
            raw = bytes(_bytes(raw, size, dtype.itemsize))
        super().__setstate__((1, shape, dtype, bool(is_fortran), raw))  # type: ignore[arg-type]


class _Dtype:
    """A dtype of numbers, text or objects, known by its code."""

    __slots__ = ("value",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        text = str(code).lstrip("<>=|")
        if text not in _NUMERIC_CODES and not re.fullmatch(r"[SU]\d{1,8}|O[48]?", text):
            raise _refusal(f"an array of dtype {str(code)[:40]!r}")
        self.value = np.dtype(object if text.startswith("O") else text)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _refusal("an array of records")
        if state[1] in ("<", ">", "=", "|") and not self.value.hasobject:
            self.value = self.value.newbyteorder(state[1])


def _dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array's dtype is none")
    return dtype.value


def _size(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise ValueError(f"an array's shape is none: {str(shape)[:80]}")
    return math.prod(shape)


def _bytes(raw: Any, size: int, itemsize: int) -> bytes | bytearray:
    """The raw content, where it is as long as `size` items are; items of no bytes could be any number."""
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray) or len(raw) != size * itemsize or (size and not itemsize):
        got = f"{len(raw)} bytes" if isinstance(raw, bytes | bytearray) else type(raw).__name__
        raise ValueError(f"an array of {size} items of {itemsize} bytes holds {got}")
    return raw


def _empty(*_: Any) -> _Array:
    return np.ndarray.__new__(_Array, (0,))


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    if _dtype(dtype).hasobject or order not in ("C", "F", "K"):
        raise ValueError("an array's buffer is not of NumPy's form")
    size = _size(shape)
    if not size:
        return np.empty(shape, _dtype(dtype))
    flat = np.frombuffer(_bytes(buffer, size, _dtype(dtype).itemsize), _dtype(dtype))
    return flat.reshape(shape).transpose(axes) if order == "K" else flat.reshape(shape, order=order)


def _scalar(dtype: Any, raw: Any = "") -> Any:
    kind = _dtype(dtype)
    if kind.hasobject:
        raise _refusal("a scalar of objects")
    return np.frombuffer(_bytes(raw, 1, kind.itemsize), kind)[0] if kind.itemsize else kind.type()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _refusal(f"text encoded as {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise _refusal("a call of bytes")
    return b""


class _StandIn:
    """What a name leads to: it may be called, and cannot be changed as BUILD changes other objects."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _refusal("a state for a function")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _empty,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,  # bytes, in protocols 0 to 2
    ("__builtin__", "bytes"): _no_bytes,  # b"", there
}
for _core in ("core", "_core"):  # NumPy 1 and 2
    _STAND_INS |= {
        (f"numpy.{_core}.multiarray", "_reconstruct"): _empty,
        (f"numpy.{_core}.multiarray", "scalar"): _scalar,
        (f"numpy.{_core}.numeric", "_frombuffer"): _from_buffer,
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name that arrays need; every other is refused, unimported."""
        function = _STAND_INS.get((module, name))
        if function is None:
            raise _refusal(f"{module}.{name}")
        return _StandIn(function)
