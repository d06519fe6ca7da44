"""Settings of `extract`: each modality's encoder, and how clips are read."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.values import AUTO, Count, Section

MODALITIES = ("visual", "text", "audio")
OWN = "self"  # extract.audio.weights: an encoder trained on this corpus' own clips
NOTHING_TO_TRAIN = ("audio/logmel_stats",)  # audio backbones without weights


def _with_modality(modality: str) -> AfterValidator:
    """Lets `backbone: vgg16` stand for `visual/vgg16`."""
    return AfterValidator(lambda name: name if "/" in name else f"{modality}/{name}")


class EncoderSettings(Section):
    """What the three modalities' encoders share."""

    weights: str = Field("hub", description="hub | random | package:NAME | path of a state dict")
    seed: int = Field(0, ge=0, description="seed of the weights where they are random")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is CUDA where there is one")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto is bf16 where the processor has it, fp16 on an older GPU"
    )


class VisualSettings(EncoderSettings):
    """Sampled frames -> one vector a clip, the mean over its frames."""

    backbone: Annotated[str, _with_modality("visual")] = Field(
        "visual/vgg16", description="visual/vgg16 (4096-d) | visual/efficientnet_lite0 (1280-d)"
    )
    frames_per_clip: int | None = Field(8, ge=1, description="frames kept, evenly over the clip")
    fps: float | None = Field(None, gt=0, description="frames kept a second, instead of frames_per_clip")
    # Not named where it is off, so that stores, runs and trained audio encoders from before it was known still hold.
    crop: Literal["centre", "face"] = Field(
        "centre",
        exclude_if=lambda crop: crop == "centre",
        description="the frame's centre | a square around its largest face; the whole frame where none is found",
    )
    batch_size: Count = Field(AUTO, description="frames a forward pass; one that does not fit is halved")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(  # type: ignore[assignment]
        "auto", description="auto is bf16 where the processor has it, fp16 on an older GPU; int8 needs runtime openvino"
    )
    runtime: Literal["torch", "openvino"] = Field(
        "torch",
        exclude_if=lambda runtime: runtime == "torch",
        description="what runs the network; openvino is faster on a CPU, and an extra (docs/encoders.md)",
    )
    quantised: Path | None = Field(
        None,
        exclude_if=lambda path: path is None,
        description="int8: the network's model.xml; null is one made from this corpus' own frames",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_sampling(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("fps") is None:
            return values
        if values.get("frames_per_clip") is not None:
            raise ValueError("set fps or frames_per_clip, not both")
        return {**values, "frames_per_clip": None}

    @model_validator(mode="after")
    def _some_sampling(self) -> "VisualSettings":
        if self.fps is None and self.frames_per_clip is None:
            raise ValueError("one of fps and frames_per_clip must be set")
        return self

    @model_validator(mode="after")
    def _runtime_can(self) -> "VisualSettings":
        by_openvino = self.runtime == "openvino"
        if self.precision == "int8" and not by_openvino:
            raise ValueError("precision int8 is OpenVINO's alone; set runtime=openvino beside it")
        if by_openvino and self.precision == "fp16":
            raise ValueError("runtime openvino has no precision fp16; set auto, fp32, bf16 or int8")
        if by_openvino and self.device == "cuda":
            raise ValueError("runtime openvino runs on the CPU; set device=auto or cpu")
        return self

    def in_torch(self) -> "VisualSettings":
        """The same run by PyTorch: for feature maps, and for what an int8 network is made from."""
        precision = "auto" if self.precision == "int8" else self.precision
        return self.model_copy(update={"runtime": "torch", "precision": precision, "quantised": None})


class TextSettings(EncoderSettings):
    """Transcript -> one vector a clip."""

    backbone: Annotated[str, _with_modality("text")] = Field(
        "text/bert", description="text/bert (768-d for the base model)"
    )
    model: str = Field("bert-base-uncased", description="Hugging Face model id, for weights: hub")
    tokenizer: str | None = Field(None, description="package:NAME or folder, only for weights: random")
    pooling: Literal["mean", "cls"] = Field("mean", description="mask-weighted mean over tokens | first token")
    max_tokens: int = Field(512, ge=3, le=512, description="longer transcripts are cut, and reported")
    batch_size: Count = Field(AUTO, description="tokens a forward pass, padding counted")


class AudioSettings(EncoderSettings):
    """Waveform -> one vector a clip."""

    backbone: Annotated[str, _with_modality("audio")] = Field(
        "audio/davenet", description="audio/davenet | audio/resdavenet (1024-d) | audio/logmel_stats (84-d)"
    )
    weights: str = Field(
        OWN, description="self (trained on these very clips, see pretrain) | random | package:NAME | path"
    )
    batch_size: Count = Field(AUTO, description="log-mel frames (10 ms) a forward pass, padding counted")


class ExtractSettings(Section):
    """Raw clips -> embeddings. A modality set to null is left out."""

    visual: VisualSettings | None = VisualSettings()
    text: TextSettings | None = TextSettings()
    audio: AudioSettings | None = AudioSettings()
    store: str | None = Field(
        None,
        exclude_if=lambda store: store is None,
        description="where the embeddings lie, a folder or a URL (s3://bucket/x); null is features in the workdir",
    )
    chunk_size: int = Field(16, ge=1, description="clips a write; what a killed run can lose of each modality")
    keep_sequence: bool = Field(False, description="also keep the frames', tokens' and steps' vectors, for export")
    threads: Count = Field(AUTO, description="of the networks' arithmetic; auto is the cores of this process")
    decode_workers: Count = Field(
        AUTO, description="processes that read and decode media; auto is one a core, 16 at most"
    )
    clip_time_limit_s: float = Field(600.0, gt=0, description="to read one clip; one that takes longer has failed")
    clip_memory_gb: float = Field(
        4.0, ge=1, description="to read one clip, each process; one that needs more has failed"
    )

    def modalities(self) -> tuple[str, ...]:
        """The modalities that are switched on, in the project's order."""
        return tuple(m for m in MODALITIES if getattr(self, m) is not None)
