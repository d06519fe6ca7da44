"""Words from sound by a speech recogniser of Hugging Face: Whisper, or a CTC model such as wav2vec 2.0."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from numpy.typing import NDArray
from transformers import pipeline
from transformers.utils import logging

from extractors.batching import resolve_device
from extractors.errors import WeightsError
from extractors.text_bert import check_blob
from extractors.weights import file_sha256

DEFAULT_BATCH = {"cpu": 4, "cuda": 16}
TASK: Final = "automatic-speech-recognition"
_FILES = "config.json, model.safetensors, preprocessor_config.json and the tokenizer's files"
# Weights in safetensors alone: a pickle of strangers is not read. Not the second copies that some models come with.
_HUB_FILES = ("*.json", "*.txt", "model.safetensors", "model-*-of-*.safetensors")


def model_folder(model: str) -> Path:
    """The folder of a model: as it is, or in Hugging Face's own cache, downloaded only where it is not whole there.

    Args:
        model: a folder written by save_pretrained, or a model's id on https://huggingface.co.
    Raises:
        WeightsError: no model there, no such id, no connection.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not _is_model(folder):
            raise WeightsError(f"no speech recogniser in {folder}: expected {_FILES}; point transcribe.model at one")
        return folder
    failure = "it lacks config.json or model.safetensors"
    for local_files_only in (True, False):
        try:
            found = snapshot_download(model, allow_patterns=list(_HUB_FILES), local_files_only=local_files_only)
        except (OSError, HFValidationError) as error:  # not cached, no network, an HTTP status; no such name
            failure = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        if _is_model(Path(found)):
            return Path(found)
    raise WeightsError(
        f"cannot download {model} from https://huggingface.co/{model} ({failure}); get {_FILES} by other means and "
        "point transcribe.model at their folder"
    )


def model_sha256(folder: Path) -> str:
    """SHA-256 of a model's weights; of several files that of their checksums, one a line.

    Raises:
        WeightsError: a file of Hugging Face's cache is not what its name says.
    """
    checksums = []
    for path in _weights(folder):
        checksums.append(file_sha256(path))
        check_blob(path, checksums[-1])
    return checksums[0] if len(checksums) == 1 else hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and bool(_weights(folder))


class SpeechRecogniser:
    """What is said in a waveform.

    Attributes:
        sample_rate_hz: of the waveforms that it takes.

    Args:
        folder: see model_folder.
        language: spoken, "en" or "english", for a Whisper of many languages; None is heard from each piece of sound.
        chunk_length_s: longer sound is cut into pieces of this length, which overlap by a third; less where the model
            takes no more at once.
        batch_size: pieces in a forward pass; None is the default for the device.
        device: "auto" | "cpu" | "cuda".
    Raises:
        ValueError: an unknown device, or CUDA where there is none.
        WeightsError: another kind of model, files that are damaged or missing, a language that it does not know.
    """

    def __init__(
        self,
        folder: Path,
        *,
        language: str | None = None,
        chunk_length_s: float = 30.0,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> None:
        on = resolve_device(device)
        half = on.type == "cuda"
        try:
            with _hushed():
                self._pipe: Any = pipeline(
                    TASK,
                    model=str(folder),
                    device=on,
                    dtype=torch.float16 if half else torch.float32,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},
                    ignore_warning=True,
                )
            if language and self._pipe.model.config.model_type != "whisper":
                raise ValueError("only Whisper is told the language")
            features: Any = self._pipe.feature_extractor
            self.sample_rate_hz = int(features.sampling_rate)
            self._options: dict[str, Any] = {
                "chunk_length_s": min(chunk_length_s, getattr(features, "chunk_length", None) or chunk_length_s),
                "batch_size": (batch_size or DEFAULT_BATCH[on.type]) if self._pads() else 1,
                **({"generate_kwargs": {"language": language}} if language else {}),
            }
            self.transcribe([np.zeros(self.sample_rate_hz, dtype=np.float32)])  # told now, not of every clip
        except Exception as error:  # of files that do not fit, transformers raises whatever they lead to
            told = " ".join(str(error).split())[:200]
            asked = f" in language {language!r}" if language else ""
            raise WeightsError(
                f"{folder}: cannot transcribe with this model{asked} ({type(error).__name__}: {told}); point "
                f"transcribe.model at one for {TASK}: {_FILES}"
            ) from error

    def _pads(self) -> bool:
        return getattr(self._pipe.tokenizer, "pad_token_id", None) is not None

    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        """What is said in each, "" where that is nothing.

        Args:
            waveforms: (L,) mono in [-1, 1] each, at sample_rate_hz.
        """
        # As arrays: what is given as a file is decoded by FFmpeg, which has to be installed for that.
        inputs = [{"raw": samples, "sampling_rate": self.sample_rate_hz} for samples in waveforms]
        with _hushed(), torch.inference_mode():
            return [" ".join(said["text"].split()) for said in self._pipe(inputs, **self._options)]


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the remarks and the bar of transformers, which are for those who call it."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
