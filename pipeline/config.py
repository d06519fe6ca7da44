"""Settings: one pydantic model a section, read from a YAML file and `--set a.b=c`; unknown keys are refused.

The models are the reference for every setting: each field has its default, its unit and a sentence on what it does.
Classes behind the door take plain arguments; settings stop here.
"""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from pipeline.errors import PipelineError
from pipeline.provenance import stable_hash
from pipeline.storage import location

MODALITIES = ("visual", "text", "audio")
MAX_CONFIG_BYTES = 1_000_000
_shown = reprlib.Repr()  # a value as a message shows it, whatever its size
_shown.maxstring = _shown.maxother = 100


class Section(BaseModel):
    """A group of settings: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if isinstance(value, str | Path) and "\0" in str(value):
            raise ValueError("it holds a NUL character, which no name can; leave that out")
        return value


def _auto_or(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if value == "auto" else handler(value)


_OR_AUTO = (WrapValidator(_auto_or), PlainSerializer(lambda value: value, return_type=int | str))
AUTO: Any = "auto"  # the program chooses, and says what it chose
Count = Annotated[int, Field(ge=1), *_OR_AUTO]
Share = Annotated[
    float, Field(ge=0), WrapValidator(_auto_or), PlainSerializer(lambda value: value, return_type=float | str)
]


def _folder_name(name: str) -> str:
    """Folders are named after it: it may not lead elsewhere."""
    if name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"expected a plain name, got {name!r}; a folder goes into workdir or out")
    return name


class CorpusSettings(Section):
    """Where the raw clips are and how the folder is laid out. A setting left at null is the layout's own default."""

    kind: str = Field("folder", description="layout of the folder with the raw clips (docs/data-layouts.md)")
    root: Path | None = Field(None, description="folder with the raw clips (CLIPS= on the make command line)")
    label_rule: Literal["round7", "sign3", "sign2", "as_is"] | None = Field(
        None, description="how a raw label becomes a class (pipeline/corpora/label_rules.py)"
    )
    labels_csv: str | None = Field(None, description="mosi: a CSV with clip_id,label, for the raw layout")
    table: str | None = Field(
        None, description="the list of the clips, relative to root; folder: a CSV, parquet: a file or a pattern"
    )
    file_column: str | None = Field(None, description="folder, hf: column with the media file")
    transcript_column: str | None = Field(None, description="folder, hf: column with the words")
    label_column: str | None = Field(
        None, description="folder, hf, meld: column with the label; grid: word to score against"
    )
    video_column: str | None = Field(None, description="folder, hf: column with the recording or speaker clips share")
    clips_per_class: int | None = Field(None, ge=1, description="synthetic: clips drawn for each of 7 classes")
    seed: int | None = Field(None, ge=0, description="synthetic: seed of the whole corpus")

    def options(self) -> dict[str, Any]:
        """The settings that were given beside kind and root: what the layout's reader is called with."""
        return self.model_dump(exclude_none=True, exclude={"kind", "root"})


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


OWN = "self"  # extract.audio.weights: an encoder trained on this corpus' own clips
NOTHING_TO_TRAIN = ("audio/logmel_stats",)  # audio backbones without weights


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


class TranscribeSettings(Section):
    """Words by a speech recogniser, for clips that the corpus has none for, where `transcribe` is called."""

    model: str = Field("openai/whisper-base", description="Hugging Face model id, or a folder with a model")
    language: str | None = Field(
        None, description="Whisper: what is spoken, en or english; null is heard from each clip"
    )
    chunk_length_s: float = Field(30.0, ge=1, description="longer clips are cut into pieces of this, which overlap")
    batch_size: Count = Field(AUTO, description="pieces a forward pass")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is CUDA where there is one")


class PretrainSettings(Section):
    """Training the audio encoder on the corpus' own clips, unlabelled: which sound belongs to which picture."""

    epochs: int = Field(40, ge=1, description="passes over the clips, at most")
    batch_size: int = Field(64, ge=2, description="clips a step; each is compared with all the others of its step")
    learning_rate: float = Field(1e-4, gt=0, description="of Adam at its height; warmed up, then a cosine to 0")
    similarity: Literal["MISA", "SIMA", "SISA"] = Field("MISA", description="how a matchmap becomes one number")
    loss: Literal["info_nce", "masked_margin_softmax", "margin_ranking"] = Field(
        "info_nce", description="all others of the step at once | the same with a margin | one drawn, as published"
    )
    margin: float = Field(1.0, ge=0, description="of masked_margin_softmax and margin_ranking")
    temperature: float = Field(1.0, gt=0, description="of info_nce and masked_margin_softmax")
    negatives: Literal["auto", "other_clip", "other_video", "same_video"] = Field(
        "auto", description="what a clip is told apart from; auto is same_video where videos have several clips"
    )
    another_recording: bool = Field(True, description="let each sound come by another microphone each time")
    max_clips: int | None = Field(
        20_000, ge=2, description="clips of a larger corpus that are drawn to train and test on; null is all"
    )
    frames_per_clip: int = Field(8, ge=1, description="frames whose feature maps are kept; one is drawn each epoch")
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the clips, by video, that recall is measured on")
    patience: int | None = Field(10, ge=1, description="epochs without a better held-out recall before it stops")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto is bf16 where the processor has it")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is CUDA where there is one")
    seed: int = Field(0, ge=0, description="of the draw of clips, initial weights, split, order and frames")


class ReduceSettings(Section):
    """Embeddings -> views of few dims, fitted on these clips and saved for new ones."""

    dim: int | None = Field(60, ge=1, description="PCA to this many dims; null keeps all")
    standardize: bool = Field(True, description="each feature to mean 0 and sd 1 before the PCA")
    fit_clips: int | None = Field(
        None,
        ge=2,
        exclude_if=lambda n: n is None,
        description="fitted on so many of them, drawn at random; null is on all, exactly",
    )
    seed: int = Field(0, ge=0, description="of fit_clips' draw")


class TrainSettings(Section):
    """Views -> clusters, by TIB. `tib:` marks what the other objective has no use for."""

    n_clusters: Annotated[int, Field(ge=2), *_OR_AUTO] | None = Field(
        None, description="K, the number of clusters; auto proposes one"
    )
    max_clusters: int = Field(20, ge=2, description="the largest K that auto tries")
    objective: Literal["tib", "reference"] = Field("tib", description="reference is the published demo's training")
    restarts: int | None = Field(None, ge=1, description="networks side by side; null is 12 (tib), 1 (reference)")
    epochs: int | None = Field(
        None, ge=1, description="passes over the clips; null is 15 or 150 steps (tib), 500 (reference)"
    )
    batch_size: int | None = Field(None, ge=2, description="tib: clips a step; null is 128, or 16 a cluster")
    learning_rate: float | None = Field(None, gt=0, description="of Adam; null is 0.01 (tib), 0.05 (reference)")
    schedule: Literal["auto", "free", "anchored", "scratch"] = Field(
        "auto", description="tib: how far the graph is followed"
    )
    consistency_weight: float = Field(1.0, ge=0, description="tib: I(C^a; C^b) of two modalities")
    fusion_weight: float = Field(1.0, ge=0, description="tib: I(C; C') of a clip and its neighbour")
    superfluous_weight: float | None = Field(
        None, ge=0, description="KL(q(z|x) || N(0, I)); null is 0.001 (tib), 1 (reference)"
    )
    divergence_weight: float = Field(1e-3, ge=0, description="tib: symmetric KL of two modalities' codes")
    complementarity_weight: float = Field(0.01, ge=0, description="tib: what a modality adds to another")
    neighbour_share: float = Field(0.5, ge=0, le=1, description="tib: share of the joint made with neighbours")
    balance: float = Field(1.0, ge=0, description="tib: below 1 clusters may be more unequal, or die")
    early_stop: bool = Field(False, description="tib: stop when the clusters have settled")
    seed: int = Field(0, ge=0, le=2**62, description="the same seed gives the same clusters")
    device: str = Field("auto", description="auto (CUDA where there is one) | cpu | cuda | cuda:1")
    tensorboard: bool = Field(False, description="also write the losses to <results>/tensorboard")


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value not in ("auto", "local") and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"expected auto, local or host:port, got {value!r}")
    return value


class EngineSettings(Section):
    """What carries `extract`: this machine, or Ray on one machine or many (docs/ray.md)."""

    kind: Literal["local", "ray"] = Field("local", description="ray is an extra, and for many machines")
    address: Annotated[str, AfterValidator(_address)] = Field(
        "auto",
        description="ray: auto (the cluster of RAY_ADDRESS, or the one that runs here) | local (one started for this "
        "run, on this machine alone) | host:port",
    )
    readers: Count = Field(
        AUTO, description="ray: actors that read, each with extract.decode_workers processes; auto is one a machine"
    )
    encoders: Count = Field(
        AUTO, description="ray: actors that encode, of each modality; auto is one a GPU or a machine"
    )
    cpus_per_encoder: Count = Field(
        AUTO, description="ray: auto is a share of its machine, and as many threads as `extract` takes here"
    )
    gpus_per_encoder: Share = Field(AUTO, description="ray: below 1, several share one; auto shares out what there is")


class Settings(Section):
    """Everything a run is made from."""

    name: Annotated[str, AfterValidator(_folder_name)] = Field(
        "run", description="name of the run; the config file's own name where not given"
    )
    workdir: Path | None = Field(None, description="manifest, features, reduced views; default work/<name>")
    out: Path | None = Field(None, description="results; default <workdir>/results/<name>, results/<name> with views")
    views: Path | None = Field(None, description="cached features to cluster, in place of the workdir's own")
    labels: Path | None = Field(None, description="labels to score with: CSV (clip_id,label) or .npy")
    corpus: CorpusSettings = CorpusSettings()
    transcribe: TranscribeSettings = TranscribeSettings()
    extract: ExtractSettings = ExtractSettings()
    pretrain: PretrainSettings = PretrainSettings()
    reduce: ReduceSettings = ReduceSettings()
    train: TrainSettings = TrainSettings()
    engine: EngineSettings = EngineSettings()

    @property
    def work(self) -> Path:
        return self.workdir or Path("work") / self.name

    @property
    def features(self) -> Path:
        """Where the embeddings lie; in an object store it has a path's methods (pipeline/storage.py).

        Raises:
            PipelineError: a URL that nothing here can reach.
        """
        return location(self.extract.store) if self.extract.store else self.work / "features"

    @property
    def results(self) -> Path:
        if self.out:
            return self.out
        cached_features_alone = self.views is not None and self.workdir is None
        return (Path("results") if cached_features_alone else self.work / "results") / self.name

    @property
    def own_audio(self) -> Path:
        """Where the weights of an audio encoder lie that was trained on this corpus with these settings.

        `audio.json` beside them is written last; `checkpoint.pt` is there while it trains.
        """
        asked = {
            "pretrain": self.pretrain.model_dump(exclude={"device"}),
            "backbone": self.extract.audio.backbone if self.extract.audio else None,
            "image": self.extract.visual.in_torch().model_dump(
                include={"backbone", "weights", "seed", "precision", "crop"}
            )
            if self.extract.visual
            else None,
        }
        return self.work / "pretrain" / stable_hash(asked) / "audio.safetensors"

    @property
    def own_audio_is_trained(self) -> bool:
        """Whether training has ended, and the weights and their record are here."""
        return self.own_audio.is_file() and self.own_audio.with_suffix(".json").is_file()

    @property
    def uses_own_audio(self) -> bool:
        """Whether the sound is to be embedded with weights trained on this corpus, there already or not."""
        return self.extract.audio is not None and self.extract.audio.weights == str(self.own_audio)

    def with_own_audio(self) -> "Settings":
        """The same with `extract.audio.weights: self` spelt out as a path, which holds outside this workdir too."""
        audio = self.extract.audio
        if audio is None or audio.weights != OWN or audio.backbone in NOTHING_TO_TRAIN:
            return self
        spelt_out = audio.model_copy(update={"weights": str(self.own_audio)})
        return self.model_copy(update={"extract": self.extract.model_copy(update={"audio": spelt_out})})

    @property
    def own_int8(self) -> Path:
        """Where the int8 network lies that was calibrated on this corpus' frames; there whole or not at all."""
        asked = self.extract.visual.in_torch() if self.extract.visual else VisualSettings()
        made_from = {"backbone", "weights", "seed", "crop", "frames_per_clip", "fps"}
        return self.work / "quantised" / stable_hash(asked.model_dump(include=made_from)) / "model.xml"

    @property
    def uses_own_int8(self) -> bool:
        """Whether frames are to be embedded by that network, there already or not."""
        visual = self.extract.visual
        return visual is not None and visual.precision == "int8" and visual.quantised == self.own_int8

    def with_own_int8(self) -> "Settings":
        """The same with the path of that network spelt out where int8 is asked for, as `with_own_audio` does."""
        visual = self.extract.visual
        if visual is None or visual.precision != "int8" or visual.quantised:
            return self
        spelt_out = visual.model_copy(update={"quantised": self.own_int8})
        return self.model_copy(update={"extract": self.extract.model_copy(update={"visual": spelt_out})})


def load_settings(config: Path | None, overrides: Iterable[str] = (), **shortcuts: Any) -> Settings:
    """Settings from a YAML file, then `a.b=c` overrides, then shortcuts that are not None.

    Args:
        config: YAML file, or None for the defaults alone.
        overrides: strings `dotted.key=value`; the value is read as YAML.
        shortcuts: dotted keys with `__` for the dot (`train__seed=3`); None means not given.
    Raises:
        PipelineError: no such file, not YAML, not a mapping, an unknown key (names the nearest), a wrong value.
    """
    values = _read_yaml(config) if config else {}
    if config:
        values.setdefault("name", config.stem)
    given = []
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise PipelineError(f"--set takes key=value, got {override!r}; e.g. --set train.n_clusters=7")
        try:
            value = _load_yaml(text)
        except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
            raise PipelineError(f"--set {key}: cannot read {text!r} as YAML ({_first_line(error)})") from None
        if "#" in text and (value is None or isinstance(value, str)) and text.lstrip()[:1] not in ("'", '"'):
            value = text.strip()  # YAML takes " #..." for a comment; here it is part of a folder's name
        given.append(key.strip())
        _put(values, given[-1], value)
    for name, value in shortcuts.items():
        if value is not None:
            given.append(name.replace("__", "."))
            _put(values, given[-1], value)
    try:
        return Settings.model_validate(values).with_own_audio().with_own_int8()
    except ValidationError as error:
        lines = _lines_of(config, given) if config else {}
        raise PipelineError("; ".join(_explain(error, lines))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES // 1000} kB; expected a page of settings")
        values = _load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"no such config file: {path}; the shipped ones are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"cannot read {path} as UTF-8 text: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise PipelineError(f"{path} is not YAML: {_first_line(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise PipelineError(f"{path}: expected settings as `key: value`, got a {type(values).__name__}")
    return values


class _PlainLoader(yaml.SafeLoader):
    """YAML's plain values alone. An alias (`*name`) is refused: a few lines of them stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="an alias (*), which settings do not take: write it out", problem_mark=mark
            )
        return super().compose_node(parent, index)


def _load_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        yaml.YAMLError, ValueError: it is none, holds an alias, or is nested deeper than anything that is meant.
    """
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ValueError("it is nested too deeply; expected settings as `key: value`") from None


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else problem


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = values.setdefault(section, {})
        if inner is None:  # a modality that the file switched off is switched on by setting one of its keys
            inner = values[section] = {}
        if not isinstance(inner, dict):
            above = ".".join(sections[: depth + 1])
            raise PipelineError(f"cannot set {key}: {above} is {_shown.repr(inner)}, not a group of settings")
        values = inner
    values[last] = value


def _lines_of(config: Path, given: Iterable[str]) -> dict[str, str]:
    """Key -> "file:line" of a YAML file's keys that no option of the command line has changed."""
    changed = {".".join(key.split(".")[:depth]) for key in given for depth in range(1, key.count(".") + 2)}

    def walk(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, str]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            yield f"{prefix}{key.value}", f"{config}:{key.start_mark.line + 1}"
            yield from walk(value, f"{prefix}{key.value}.")

    lines = dict(walk(yaml.compose(config.read_text(encoding="utf-8"), yaml.SafeLoader), ""))
    return {key: line for key, line in lines.items() if key not in changed}


def _explain(error: ValidationError, lines: Mapping[str, str]) -> Iterator[str]:
    known = list(setting_names(Settings))
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "the name of a setting"
        where = f"{lines[key]}: " if key in lines else ""
        if item["type"] == "extra_forbidden":
            yield f"{where}unknown setting {key!r}; {nearest(key, known)}"
        elif item["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            close = difflib.get_close_matches(_shown.repr(item["input"]).strip("'"), choices, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            yield f"{where}{key}: unknown value {_shown.repr(item['input'])}; known: {', '.join(choices)}{hint}"
        elif item["type"] == "value_error":
            yield f"{where}{key}: {item['ctx']['error']}"
        else:
            yield f"{where}{key}: {item['msg'][0].lower()}{item['msg'][1:]}, got {_shown.repr(item['input'])}"


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted setting name of a model, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from setting_names(kind, f"{prefix}{name}.")


def nearest(key: str, known: Iterable[str]) -> str:
    """'did you mean ...?' with the closest known names: by the whole name, then by its last part anywhere."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    last = key.rsplit(".", 1)[-1]
    if not close:
        by_last = {name.rsplit(".", 1)[-1]: name for name in known}
        close = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)]
    if close:
        return f"did you mean {close[0]!r}?"
    section = key.rsplit(".", 1)[0] + "." if "." in key else ""
    siblings = [n for n in known if n.startswith(section) and "." not in n[len(section) :]]
    return f"known here: {', '.join(sorted(siblings or known))}"
