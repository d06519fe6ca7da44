"""What can be set (settings.py, encoders.py, made of values.py), and how it is read (loading.py)."""

from pipeline.config.encoders import (
    MODALITIES,
    AudioSettings,
    EncoderSettings,
    ExtractSettings,
    TextSettings,
    VisualSettings,
)
from pipeline.config.loading import load_settings, nearest, setting_names
from pipeline.config.settings import (
    CorpusSettings,
    EngineSettings,
    PretrainSettings,
    ReduceSettings,
    Settings,
    TrainSettings,
    TranscribeSettings,
)

__all__ = [
    "MODALITIES",
    "AudioSettings",
    "CorpusSettings",
    "EncoderSettings",
    "EngineSettings",
    "ExtractSettings",
    "PretrainSettings",
    "ReduceSettings",
    "Settings",
    "TextSettings",
    "TrainSettings",
    "TranscribeSettings",
    "VisualSettings",
    "load_settings",
    "nearest",
    "setting_names",
]
