"""Settings: one pydantic model a section.

The models are the reference for every setting: each field has its default, its unit and a sentence on what it does.
Classes behind the door take plain arguments; settings stop here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pipeline.config.encoders import NOTHING_TO_TRAIN, OWN, ExtractSettings, VisualSettings
from pipeline.config.values import AUTO, OR_AUTO, Count, Section, Share
from pipeline.provenance import stable_hash
from pipeline.storage import location


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
        20_000,
        ge=2,
        exclude_if=lambda n: n == 20_000,  # so that encoders from before it was known still hold
        description="clips of a larger corpus that are drawn to train and test on; null is all",
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

    n_clusters: Annotated[int, Field(ge=2), *OR_AUTO] | None = Field(
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
