"""Tiny untrained speech recognisers, written as save_pretrained writes real ones: they babble, but always the same."""

import json
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

WINDOW_S = 1  # that the tiny Whisper hears at once; real ones hear 30
_END = "<|endoftext|>"
_SPECIAL = ("<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")


def write_whisper(folder: Path, *, seed: int = 0) -> Path:
    """A Whisper of English and German with one layer, whose vocabulary is the bytes."""
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab={**alphabet, _END: len(alphabet)}, merges=[], pad_token=_END)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (_END, *_SPECIAL)}
    ends = {f"{name}_token_id": ids[_END] for name in ("pad", "bos", "eos")}
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in _SIZES.items()}
    config = WhisperConfig(
        **{"vocab_size": len(tokenizer), "num_mel_bins": 8, "d_model": 16, **sizes, **ends},
        **{"max_source_positions": 50 * WINDOW_S, "max_target_positions": 32, "init_std": 1.0},
        decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    generation = model.generation_config
    generation._from_model_config = False
    generation.is_multilingual, generation.num_beams, generation.max_new_tokens = True, 1, 8
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    generation.lang_to_id = {token: ids[token] for token in ("<|en|>", "<|de|>")}
    generation.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    # Letters and the space alone, so that what it says is text.
    said = {alphabet[letter] for letter in "abcdefghijklmnopqrstuvwxyzĠ"} | {ids[_END]}
    generation.suppress_tokens = [i for i in range(len(tokenizer)) if i not in said]
    for part in (model, tokenizer, WhisperFeatureExtractor(feature_size=8, chunk_length=WINDOW_S)):
        part.save_pretrained(folder)
    return folder


_SIZES = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}


def write_wav2vec2(folder: Path, *, seed: int = 0) -> Path:
    """A CTC model over six letters."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<unk>", "|", *"abcdef"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), bos_token=None, eos_token=None)
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        **{"vocab_size": len(tokens), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 16, "conv_dim": (8, 8), "conv_stride": (20, 16), "conv_kernel": (40, 16)},
        **{"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
        **{"pad_token_id": 0, "initializer_range": 1.0, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    )
    for part in (Wav2Vec2ForCTC(config), tokenizer, Wav2Vec2FeatureExtractor(return_attention_mask=True)):
        part.save_pretrained(folder)
    return folder
