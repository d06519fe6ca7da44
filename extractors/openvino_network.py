"""OpenVINO in PyTorch's place: the same network compiled for this processor, in fp32, bf16 or int8.

int8 needs frames to calibrate on; the network that comes of it is kept as OpenVINO's own model.xml and model.bin, with
record.json beside them. OpenVINO and NNCF, which quantises, are an extra and imported when they are wanted.
"""

import importlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.weights import file_sha256

RECORD = "record.json"
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: of the few operations between the quantised ones
PRECISIONS = tuple(_HINTS)
_WHICH_WEIGHTS = ("sha256", "seed")  # what of a weights record says which they are


class OpenVINONetwork(nn.Module):
    """Stands where the PyTorch network stood: (B, 3, S, S) float32 -> (B, D) float32, both on the CPU.

    Compiled at the first pass, for the threads that PyTorch has then.

    Args:
        model: convert()'s or quantise()'s.
        precision: one of PRECISIONS.
    """

    def __init__(self, model: Any, precision: str) -> None:
        super().__init__()
        self._model = model
        self._compiled: Any = None
        self._hint = _HINTS[precision]

    def forward(self, images: Tensor) -> Tensor:
        if self._compiled is None:
            self._compiled, self._model = self._compile(), None
        return torch.from_numpy(self._compiled(np.ascontiguousarray(images.numpy()))[0])

    def _compile(self) -> Any:
        # One stream: as fast as a request a thread (VGG16 on two cores: 25 frames/s and 24), and no queue.
        settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return _package("openvino").compile_model(
            self._model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": self._hint}
        )


def convert(network: nn.Module, side: int) -> Any:
    """A PyTorch network (B, 3, side, side) -> (B, D), in float32, as OpenVINO's model.

    Raises:
        ValueError: OpenVINO is not installed.
    """
    openvino = _package("openvino")
    shape = openvino.PartialShape([-1, 3, side, side])
    with torch.inference_mode(False), torch.no_grad():
        return openvino.convert_model(network, example_input=torch.zeros(1, 3, side, side), input=[shape])


def quantise(
    network: nn.Module, side: int, pieces: Sequence[NDArray[Any]], images: Callable[[NDArray[Any]], Tensor]
) -> Any:
    """The same in int8: weights by channel, what flows between the layers by the range it has on these pieces.

    Args:
        network, side: as convert() takes them.
        pieces: what to calibrate on; all of them are used.
        images: one of them -> (1, 3, S, S) float32.
    Raises:
        ValueError: OpenVINO or NNCF is not installed.
    """
    nncf = _package("nncf")
    nncf.set_log_level(logging.ERROR)
    frames = nncf.Dataset(pieces, lambda piece: images(piece).contiguous().numpy())
    # The slow bias correction takes about twice as long; EfficientNet-Lite0's cosine with fp32 goes from .976 to .998.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # its own progress bars
        return nncf.quantize(convert(network, side), frames, fast_bias_correction=False, subset_size=len(pieces))


def cosines(network: nn.Module, model: Any, images: Sequence[Tensor]) -> list[float]:
    """Of an int8 model's vectors with its PyTorch network's, image by image.

    Args:
        network: the one that the model was made from, in float32.
        images: (B, 3, S, S) float32 each.
    """
    quantised, found = OpenVINONetwork(model, "int8"), []
    with torch.inference_mode():
        for batch in images:
            pair = [form(batch).double() for form in (network, quantised)]  # (B, D) each
            found += nn.functional.cosine_similarity(*pair).tolist()
    return found


def save_quantised(model: Any, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes model.xml, model.bin and last record.json, with the checksum of the weights.

    Args:
        folder: is there, and is nobody else's.
        record: how it was made; under "weights" the record of the weights that it was made from.
    """
    path = folder / "model.xml"
    _package("openvino").save_model(model, path, compress_to_fp16=False)
    record = {"sha256": file_sha256(path.with_suffix(".bin")), **record}
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def load_quantised(path: Path | None, weights: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What save_quantised wrote: the model, and its record without the weights'.

    Args:
        path: model.xml.
        weights: the record of the weights that it must have been made from.
    Raises:
        ValueError: it is not there, not whole, or made from others.
    """
    openvino = _package("openvino")
    if path is None or not path.is_file():
        raise ValueError(f"no int8 network at {path}; `extract` makes one from the corpus' own frames")
    try:
        record = json.loads((path.parent / RECORD).read_text(encoding="utf-8"))
        made_from = record.pop("weights")
        if record["sha256"] != file_sha256(path.with_suffix(".bin")):
            raise ValueError("its checksum is another")
        model = openvino.Core().read_model(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())[:120]
        raise ValueError(
            f"the int8 network in {path.parent} is not whole ({told}); delete that folder and run `extract` again"
        ) from None
    if any(made_from.get(name) != weights.get(name) for name in _WHICH_WEIGHTS):
        raise ValueError(
            f"the int8 network in {path.parent} was made from other weights; delete that folder to make it anew, or "
            "give the weights that it was made from"
        )
    return model, record


def _package(name: str) -> Any:
    # Both would send usage data over the network, and write in the home folder, with this third package, unasked.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"runtime openvino needs the package {error.name}, which is not installed: .venv/bin/uv pip install "
            f"{error.name}; or take runtime torch"
        ) from None
