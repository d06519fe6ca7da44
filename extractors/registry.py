"""Extractor names -> classes, imported only when asked for. A new backbone adds one line here."""

import importlib
import inspect
from difflib import get_close_matches
from typing import Any, cast

from extractors.base import Extractor

_CLASSES = {
    "audio/davenet": "extractors.audio_davenet:DAVEnetExtractor",
    "audio/logmel_stats": "extractors.audio_logmel_stats:LogMelStats",
    "audio/resdavenet": "extractors.audio_resdavenet:ResDAVEnetExtractor",
    "text/bert": "extractors.text_bert:BERT",
    "visual/efficientnet_lite0": "extractors.visual_efficientnet_lite:EfficientNetLite0",
    "visual/vgg16": "extractors.visual_vgg16:VGG16",
}


def known(modality: str | None = None) -> list[str]:
    """Names of the registered extractors, sorted; those of one modality where one is given."""
    return sorted(name for name in _CLASSES if modality is None or name.startswith(f"{modality}/"))


def extractor_class(name: str) -> type[Extractor]:
    """The class of a name; importing it may import torch and a model library.

    Raises:
        ValueError: an unknown name (the known ones of its modality are listed), or its library is not installed.
    """
    if name not in _CLASSES:
        near = get_close_matches(name, _CLASSES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        choices = known(name.split("/")[0]) or known()
        raise ValueError(f"unknown extractor {name!r}; known: {', '.join(choices)}{hint}")
    module_name, _, class_name = _CLASSES[name].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name} needs the package {error.name!r}, which is not installed; run `make setup`"
        ) from error
    return cast(type[Extractor], getattr(module, class_name))


def settings(name: str) -> list[str]:
    """The keyword arguments that create(name, ...) accepts, sorted."""
    return sorted(inspect.signature(extractor_class(name)).parameters)


def create(name: str, **arguments: Any) -> Extractor:
    """Make an extractor, weights loaded.

    Args:
        name: one of known().
        arguments: its settings; what is left out keeps the extractor's own default.
    Raises:
        ValueError: an unknown name, an unknown argument (the accepted ones are listed) or a value out of range.
        WeightsError: the weights cannot be had.
    """
    accepted = settings(name)
    for argument in arguments:
        if argument not in accepted:
            near = get_close_matches(argument, accepted, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{name} has no setting {argument!r}; it accepts: {', '.join(accepted)}{hint}")
    return extractor_class(name)(**arguments)
