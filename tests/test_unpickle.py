"""The restricted unpickler: every array that NumPy pickles comes back, everything that could run code does not."""

import builtins
import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline import unpickle
from pipeline.errors import PipelineError
from pipeline.export.mmsa import portable_pickle
from pipeline.unpickle import load_pickle

PROTOCOLS = pytest.mark.parametrize("protocol", range(6))


def load(tmp_path: Path, data: bytes):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def same(found, expected):
    """Containers compared one by one, arrays by dtype, shape and bits."""
    if isinstance(expected, np.ndarray):
        assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")  # NumPy swaps as it reads
        assert found.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(found), expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert type(found) is type(expected)
        assert found == expected


CONTENT = {
    "numbers": [1, -(2**70), 1.5, True, None, "ü\u2028", b"\x00\xff", (), ("a",), {"k": [{}]}],
    "arrays": [np.arange(6).reshape(2, 3).astype(kind) for kind in ("f2", "f4", "f8", "i1", "i8", "u2", "?")],
    "orders": [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2)],
    "swapped": np.arange(3, dtype=">f4"),
    "empty": np.zeros((0, 5, 2), np.float32),
    "text": np.array(["a", "", "née"]),
    "bytes": np.array([b"ab", b"c"]),
    "objects": np.array(["a", "b\nc", None, 3], dtype=object),
    "scalars": [np.float32(1.5), np.int64(-3), np.str_("x"), np.bool_(True)],
    "shared": [np.ones(2)] * 2,
}


@PROTOCOLS
def test_what_numpy_pickles_comes_back(tmp_path, protocol):
    same(load(tmp_path, pickle.dumps(CONTENT, protocol=protocol)), CONTENT)


@PROTOCOLS
def test_numpy_1_names_are_known(tmp_path, protocol):
    data = pickle.dumps({"a": np.arange(4.0), "b": np.float64(2.5)}, protocol=protocol)
    if protocol < 4:  # names stand as lines
        data = data.replace(b"numpy._core", b"numpy.core")
    else:  # names carry their length
        for name in (b"multiarray", b"numeric"):
            new, old = b"numpy._core." + name, b"numpy.core." + name
            data = data.replace(bytes([len(new)]) + new, bytes([len(old)]) + old)
        data = data[:2] + data[11:]  # the frame's length does not hold any more, and a frame is not needed
    same(load(tmp_path, data), {"a": np.arange(4.0), "b": np.float64(2.5)})


def test_a_pickle_of_python_2_is_read(tmp_path):
    """As cPickle of Python 2 writes {'a': numpy.array([1.0])}: names without underscore, content as a str."""
    raw = struct.pack("<d", 1.0).decode("latin1").encode("unicode_escape").decode().replace("'", "\\'")
    data = (
        "(dp1\nS'a'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntp5\nS'b'\np6\ntp7\nRp8\n"
        "(I1\n(I1\ntp9\ncnumpy\ndtype\np10\n(S'f8'\np11\nI0\nI1\ntp12\nRp13\n(I3\nS'<'\np14\nNNNI-1\nI-1\nI0\ntp15\nb"
        f"I00\nS'{raw}'\np16\ntp17\nbs."
    )
    same(load(tmp_path, data.encode("latin1")), {"a": np.array([1.0])})


def test_the_exports_own_pickle_names_nothing_that_moved_between_numpy_1_and_2(tmp_path):
    content = {key: CONTENT[key] for key in ("arrays", "orders", "empty", "text")}
    data = portable_pickle(content)
    strings = [argument for step, argument, _ in pickletools.genops(data) if step.name == "SHORT_BINUNICODE"]
    assert "numpy" in strings
    assert not [name for name in strings if name.startswith("numpy.")]
    same(load(tmp_path, data), content)
    same(pickle.loads(data), content)


# --- hostile ---


class Calls:
    """Pickles as a call of anything with anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


TRAP = "raise SystemExit('a pickle ran code')"
HOSTILE = {
    "os.system": Calls(os.system, "touch pwned"),
    "eval": Calls(builtins.eval, "open('pwned', 'w')"),
    "exec": Calls(exec, TRAP),
    "getattr": Calls(getattr, "x", "upper"),
    "import": Calls(__import__, "os"),
    "open": Calls(open, "pwned", "w"),
    "popen": Calls(subprocess.Popen, ["touch", "pwned"]),
    "numpy.load": Calls(np.load, "x.npy", None, True),
    "numpy.memmap": Calls(np.memmap, "pwned", "u1", "w+", 0, (1,)),
    "frombuffer": Calls(np.frombuffer, b"abcd"),
    "unpickle": Calls(pickle.loads, pickle.dumps(1)),
    "chained": Calls(map, os.system, ["touch pwned"]),
    "bytearray": Calls(bytearray, 10**12),
    "range": Calls(range, 10**12),
    "ordered": collections.OrderedDict(a=1),
    "path": Path("x"),
    "class": os.PathLike,
    "records": np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]),
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "complex": 1j,
}


@PROTOCOLS
@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_refused_by_name_and_not_run(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    nested = {"train": {"text": [np.zeros(2), {"deep": (HOSTILE[name],)}]}}
    with pytest.raises(PipelineError, match=r"x.pkl holds .+; of a pickle only NumPy arrays, text"):
        load(tmp_path, pickle.dumps(nested, protocol=protocol))
    assert not (tmp_path / "pwned").exists()


def test_the_name_is_told(tmp_path):
    with pytest.raises(PipelineError, match=rf"holds {os.system.__module__}.system; of a pickle"):
        load(tmp_path, pickle.dumps(HOSTILE["os.system"]))


NUMPY_DTYPE = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"(S'touch pwned'\nios\nsystem\n.", "an object made by INST"),
        (b"(cos\nsystem\nS'touch pwned'\no.", "an object made by OBJ"),
        (b"\x80\x02cos\nsystem\n)\x81.", "an object made by NEWOBJ"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93(\x8c\x0btouch pwnedtR.", "os.system"),
        (b"\x80\x02\x82\x01.", "an object made by EXT1"),
        (b"Pevil\n.", "an object made by PERSID"),
        (b"\x80\x05\x97.", "an object made by NEXT_BUFFER"),
        # By the memo: the name is pieced together and fetched back.
        (b"\x80\x04\x8c\x02os\x940\x8c\x06system\x940h\x00h\x01\x93(\x8c\x01atR.", "os.system"),
        # A function that may be called may not be changed.
        (b"cnumpy\nndarray\n}S'x'\nI1\nsb.", "a state for a function"),
        (b"c_codecs\nencode\n(N}S'__code__'\nI1\nstb.", "a state for a function"),
        (b"c_codecs\nencode\n(S'x'\nS'utf-16'\ntR.", "text encoded as 'utf-16'"),
        (b"c__builtin__\nbytes\n(I100000000000\ntR.", "a call of bytes"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS''\ntR.", "a scalar of objects"),
        (b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.", "an array of dtype 'V8'"),
        (b"cnumpy\ndtype\n(S'O8,f8'\nI0\nI1\ntR.", "an array of dtype 'O8,f8'"),
        (NUMPY_DTYPE + b"(I3\nS'|'\nN(S'a'\nt}I16\nI1\nI27\ntb.", "an array of records"),
    ],
)
def test_programs_by_hand_are_refused(tmp_path, monkeypatch, program, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=f"x.pkl holds {message}; of a pickle only"):
        load(tmp_path, program)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"", "cannot mmap an empty file"),
        (b"not a pickle at all", "unknown opcode"),
        (b"\x80\x04", "it ends before its STOP"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"ab.", "expected 1152921504606846976 bytes"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", "truncated|exhausted"),
        (b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".", "memo index 4294967295 leads nowhere"),
        (b"Np99999999\n.", "memo index 99999999 leads nowhere"),
        (b"I" + b"9" * 5000 + b"\n.", "4300 digits"),
        (b"h\x00.", "0|[Mm]emo"),
        (b"R.", "underflow|unexpected"),
        (ARRAY + b"I5\nb.", "an array's state is not of NumPy's form"),
        (
            ARRAY + b"(I1\n(I1000000000000\nt" + NUMPY_DTYPE + b"I0\nS'ab'\ntb.",
            "of 1000000000000 items .* 2 bytes",
        ),
        (ARRAY + b"(I1\n(I-1\nt" + NUMPY_DTYPE + b"I0\nS''\ntb.", "an array's shape is none"),
        (ARRAY + b"(I1\n(I1\ntS'f8'\nI0\nS''\ntb.", "an array's dtype is none"),
        (
            ARRAY + b"(I1\n(I999999999\ntcnumpy\ndtype\n(S'S0'\nI0\nI1\ntRI0\nS''\ntb.",
            "of 999999999 items of 0 bytes",
        ),
        (
            ARRAY + b"(I1\n(I9\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI0\n(I1\nltb.",
            "an array of 9 objects does not hold a list of so many",
        ),
        (
            b"cnumpy.core.numeric\n_frombuffer\n(S'ab'\n" + NUMPY_DTYPE + b"(I1\ntS'X'\ntR.",
            "an array's buffer is not of NumPy's form",
        ),
    ],
)
def test_damage_and_absurd_sizes_are_told(tmp_path, program, message):
    with pytest.raises(PipelineError, match=rf"cannot read .*x.pkl as a pickle \(.*({message}).*\); it is damaged"):
        load(tmp_path, program)


def test_a_pickle_cut_anywhere_is_refused(tmp_path):
    whole = pickle.dumps({"a": np.arange(5.0), "b": ["x", "y"]}, protocol=4)
    for end in range(len(whole)):
        with pytest.raises(PipelineError, match="as a pickle"):
            load(tmp_path, whole[:end])


def test_any_flipped_byte_gives_a_value_or_an_error(tmp_path):
    """No byte of an honest pickle can be turned into a crash or a call."""
    whole = pickle.dumps({"a": np.arange(3.0), "o": np.array(["x"], dtype=object)}, protocol=2)
    rng = np.random.default_rng(0)
    refused = 0
    for at in range(len(whole)):
        for value in rng.integers(0, 256, 3):
            try:
                load(tmp_path, whole[:at] + bytes([int(value)]) + whole[at + 1 :])
            except PipelineError:
                refused += 1
    assert refused > len(whole)


def test_too_many_items_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_STEPS", 100)
    with pytest.raises(PipelineError, match="holds more than 100 items; save its numbers as arrays"):
        load(tmp_path, pickle.dumps(list(range(200))))


def test_what_does_not_fit_in_memory_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(unpickle, "_check_steps", full)
    with pytest.raises(PipelineError, match="x.pkl does not fit in memory"):
        load(tmp_path, b"N.")


def test_a_deep_nest_is_read_without_recursion(tmp_path):
    depth = 50_000
    value = load(tmp_path, b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        [value] = value
    assert value == []


def test_nothing_is_imported_for_a_name(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PipelineError, match="holds trap.f"):
        load(tmp_path, b"ctrap\nf\n.")


def test_it_agrees_with_pickle_on_random_plain_data(tmp_path):
    rng = np.random.default_rng(1)
    for protocol in range(6):
        content = [rng.normal(size=tuple(rng.integers(0, 4, int(rng.integers(1, 4))))) for _ in range(20)]
        buffer = io.BytesIO()
        pickle.dump(content, buffer, protocol=protocol)
        same(load(tmp_path, buffer.getvalue()), pickle.loads(buffer.getvalue()))
