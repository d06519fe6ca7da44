"""From settings to an extractor and its recipe: the one place where the two rooms meet."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from extractors import registry
from extractors.base import Extractor
from extractors.errors import WeightsError
from pipeline import hardware
from pipeline.config import AudioSettings, TextSettings, VisualSettings
from pipeline.errors import PipelineError
from pipeline.provenance import LIBRARIES, stable_hash, versions

if TYPE_CHECKING:
    from extractors.visual_frames import FrameExtractor

EncoderSection = VisualSettings | TextSettings | AudioSettings

# How the work is done, not what comes out (batches agree to 1e-4); and where weights lie: their checksum tells.
_NOT_IN_RECIPE = {"batch_size", "device", "weights", "seed", "quantised"}


def build(modality: str, section: EncoderSection) -> Extractor:
    """Loads the extractor that a section of the settings describes.

    Raises:
        PipelineError: an unknown backbone, or weights that are missing or do not fit: names the setting.
    """
    arguments: dict[str, Any] = section.model_dump(
        exclude={"backbone", "frames_per_clip", "model", "runtime", "quantised"}
    )
    if isinstance(section, VisualSettings):
        arguments["count"] = section.frames_per_clip
    if isinstance(section, TextSettings):
        arguments["model_id"] = section.model
    if section.batch_size == "auto":
        arguments["batch_size"] = None  # the extractor's own, by its device
    if section.backbone not in registry.known(modality):
        known = ", ".join(registry.known(modality))
        raise PipelineError(f"extract.{modality}.backbone: unknown extractor {section.backbone!r}; known: {known}")
    try:
        if isinstance(section, VisualSettings) and section.runtime == "openvino":
            return _by_openvino(section, arguments)
        arguments["precision"] = precision_for(section.precision, section.device, section.backbone)
        return registry.create(section.backbone, **arguments)
    except WeightsError as error:  # names the extractor or the setting itself
        raise PipelineError(str(error)) from None
    except ValueError as error:
        raise PipelineError(f"extract.{modality}: {error}") from None


def _by_openvino(section: VisualSettings, arguments: dict[str, Any]) -> Extractor:
    extractor = registry.create(section.backbone, **{**arguments, "device": "cpu", "precision": "fp32"})
    precision = precision_for(section.precision, "cpu", section.backbone)
    cast("FrameExtractor", extractor).compile_with_openvino(precision, section.quantised)  # every visual one is
    return extractor


def precision_for(asked: str, device: str, backbone: str | None = None) -> str:
    """ "auto" is bf16 where the device multiplies it, fp16 on an older GPU; fp32 for a backbone that it costs too much.

    Args:
        device: "auto" | "cpu" | "cuda".
        backbone: of the registry; None is one that half precision suits.
    Raises:
        ValueError: an unknown device, or one that is not there.
    """
    if asked != "auto":
        return asked
    import torch

    from extractors.batching import resolve_device

    if backbone and not getattr(registry.extractor_class(backbone), "half_is_close", False):
        return "fp32"
    if resolve_device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if hardware.has_bf16() else "fp32"


def recipe_of(
    modality: str, section: EncoderSection, extractor: Extractor, *, keep_sequence: bool = False
) -> dict[str, Any]:
    """Everything that determines what is stored: its hash is the store's fingerprint.

    `keep_sequence` stands beside the encoder's settings, not among them, as it changes no embedding; where it is off
    it is not named, so that stores made before it was known are still found.
    """
    recipe = {
        "extractor": extractor.name,
        "modality": modality,
        "settings": section.model_dump(mode="json", exclude=_NOT_IN_RECIPE) | {"precision": extractor.precision},
        "weights": extractor.weights_record,
        "dim": extractor.dim,
        "versions": versions(_libraries(modality, section)),
    }
    return recipe | {"keep_sequence": True} if keep_sequence else recipe


def request_of(modality: str, section: EncoderSection, *, keep_sequence: bool = False) -> str:
    """Hash of what was asked for, without loading anything: the same request leads to the same recipe.

    Weights are stamped by size and time, so that a file exchanged in place is noticed.
    """
    settings = section.model_dump(mode="json", exclude={"batch_size", "device"})
    stamp = _weights_stamp(section.weights)
    if isinstance(section, VisualSettings) and section.precision == "int8":
        stamp += _weights_stamp(str(section.quantised.parent)) if section.quantised else []
    request = {"settings": settings, "weights": stamp, "versions": versions(_libraries(modality, section))}
    return stable_hash(request | {"keep_sequence": True} if keep_sequence else request, 20)


def _libraries(modality: str, section: EncoderSection) -> tuple[str, ...]:
    """Whose versions can change the numbers; OpenVINO's where it runs the network and is installed: `build` tells."""
    by_openvino = isinstance(section, VisualSettings) and section.runtime == "openvino"
    there = by_openvino and importlib.util.find_spec("openvino")
    return (*LIBRARIES[modality], "openvino") if there else LIBRARIES[modality]


def _weights_stamp(spec: str) -> list[tuple[str, int, int]]:
    if spec in ("hub", "random"):
        return []
    if spec.startswith("package:"):
        name = spec.removeprefix("package:")
        found = importlib.util.find_spec(name) if name.isidentifier() else None  # what is wrong with it, `build` says
        if found is None or found.origin is None:
            return []
        path = Path(found.origin)
    else:
        path = Path(spec).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
