"""One contract for every registered extractor, and the registry."""

import inspect
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from extractors import registry
from extractors.base import MODALITIES, Embedding, Extractor, Prepared
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.media import FrameBatch, Media, Waveform
from pipeline import hardware
from pipeline.encoders import precision_for

DIMS = {
    "audio/davenet": 1024,
    "audio/logmel_stats": 84,
    "audio/resdavenet": 1024,
    "text/bert": 768,
    "visual/efficientnet_lite0": 1280,
    "visual/vgg16": 4096,
}
FRAMES_A_STEP = {"audio/davenet": 16, "audio/resdavenet": 16}  # their output is 16 times shorter than their input
ALL = pytest.mark.parametrize("name", registry.known())
NETWORKS = pytest.mark.parametrize("name", sorted(DIMS.keys() - {"audio/logmel_stats"}))


@cache
def extractor(name: str) -> Extractor:
    """Untrained and kept for the session: VGG16 and BERT take seconds to build."""
    return registry.create(name, weights="random", seed=3, device="cpu", batch_size=2)


@cache
def samples() -> list[tuple[Clip, Media]]:
    """Clips of unlike lengths: 2, 1 and 1 frames of odd sizes, 3 to 40 words, 50 ms to 2 s of sound."""
    rng = np.random.default_rng(0)
    made = []
    for i, (n_frames, n_words, n_samples) in enumerate([(2, 40, 32_000), (1, 3, 800), (1, 12, 11_111)]):
        frames = rng.integers(0, 256, (n_frames, 3, 90 + 17 * i, 120), dtype=np.uint8)
        sound = (0.1 * rng.standard_normal(n_samples)).astype(np.float32)
        words = " ".join(rng.choice(["happy", "sad", "so", "unbelievable", "film"], n_words))
        media = Media(FrameBatch(frames, np.arange(n_frames, dtype=np.float64)), Waveform(sound, 16_000))
        made.append((Clip(f"clip{i}", f"clip{i}.mp4", transcript=words), media))
    return made


@cache
def prepared(name: str) -> list[Prepared]:
    made = extractor(name)  # before the threads: two that draw initial weights at once draw from one generator
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda sample: made.preparer.prepare(*sample), samples()))


@cache
def together(name: str) -> list[Embedding]:
    embeddings = extractor(name).encode(prepared(name))
    assert all(isinstance(embedding, Embedding) for embedding in embeddings)
    return embeddings


# --- the contract ---


@ALL
def test_names_and_dimensions(name):
    made = extractor(name)
    assert made.name == name
    assert name.split("/")[0] in MODALITIES
    assert made.dim == DIMS[name]
    assert [(e.clip_id, e.vector.shape) for e in together(name)] == [(f"clip{i}", (DIMS[name],)) for i in range(3)]


@ALL
def test_a_clip_does_not_depend_on_its_batch_or_place(name):
    alone = [extractor(name).encode([item])[0] for item in prepared(name)[1:]]
    for single, batched in zip(alone, together(name)[1:], strict=True):
        np.testing.assert_allclose(single.vector, batched.vector, rtol=0, atol=1e-4 * np.abs(single.vector).max())
        assert single.n_units == batched.n_units


@NETWORKS
def test_a_clip_does_not_depend_on_the_threads(name):
    before, made = torch.get_num_threads(), extractor(name)
    by_threads = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            by_threads.append(made.encode(prepared(name)))
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*by_threads, strict=True):
        np.testing.assert_allclose(three.vector, one.vector, rtol=0, atol=1e-4 * np.abs(one.vector).max())


@ALL
def test_clips_are_told_apart(name):
    first, second, _ = together(name)
    assert np.abs(first.vector - second.vector).max() > 1e-3


@ALL
def test_it_reads_only_what_its_modality_needs(name):
    needs = extractor(name).preparer.needs
    wanted = {
        "visual": (True, False),
        "text": (False, False),
        "audio": (False, True),
    }[name.split("/")[0]]
    assert (needs.frames is not None, needs.sample_rate_hz is not None) == wanted


@NETWORKS
def test_an_untrained_extractor_says_so_in_its_record(name):
    record = extractor(name).weights_record
    assert (record["source"], record["trained"], record["seed"]) == ("random", False, 3)
    assert json.loads(json.dumps(record)) == record


@ALL
def test_nothing_to_encode(name):
    assert extractor(name).encode([]) == []


@ALL
def test_settings_are_plain_keywords_with_defaults(name):
    assert {"weights", "seed", "batch_size", "device", "precision"} <= set(registry.settings(name))
    parameters = inspect.signature(registry.extractor_class(name)).parameters.values()
    assert all(p.kind == p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)


@ALL
def test_the_sequence_is_what_the_vector_is_the_mean_of_and_changes_it_not(name):
    for kept, plain in zip(extractor(name).encode(prepared(name), keep_sequence=True), together(name), strict=True):
        assert plain.sequence is None
        np.testing.assert_array_equal(kept.vector, plain.vector)
        assert kept.sequence.dtype == np.float32
        scale = np.abs(plain.vector).max()
        np.testing.assert_allclose(kept.sequence.mean(axis=0), plain.vector, rtol=0, atol=1e-5 * scale)
        assert len(kept.sequence) == max(1, kept.n_units // FRAMES_A_STEP.get(name, 1))


@pytest.mark.parametrize("name", ["visual/efficientnet_lite0", *registry.known("audio")])
def test_a_failed_reading_is_passed_on(name):
    broken = Media(*[ExtractionError("read", "undecodable", "not readable")] * 2)
    with pytest.raises(ExtractionError, match="not readable"):
        extractor(name).preparer.prepare(Clip("a", "a.mp4"), broken)


@NETWORKS
def test_bf16_is_close_and_still_float32_outside(name):
    made = registry.create(name, weights="random", seed=3, device="cpu", precision="bf16")
    for low, full in zip(made.encode(prepared(name)), together(name), strict=True):
        assert low.vector.dtype == np.float32
        cosine = low.vector @ full.vector / np.linalg.norm(low.vector) / np.linalg.norm(full.vector)
        assert cosine > (0.9999 if made.half_is_close else 0.99)


def test_half_precision_is_the_rule_only_where_it_is_close(monkeypatch):
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = {name: precision_for("auto", "auto", name) for name in registry.known()}
    assert {name for name, precision in found.items() if precision == "fp32"} == {
        "audio/logmel_stats",
        "visual/efficientnet_lite0",
    }
    assert precision_for("bf16", "auto", "visual/efficientnet_lite0") == "bf16"
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    assert precision_for("auto", "cpu", "visual/vgg16") == "fp32"


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@ALL
def test_cuda_agrees_with_the_cpu(name):
    made = registry.create(name, weights="random", seed=3, device="cuda")
    for on_cuda, on_cpu in zip(made.encode(prepared(name)), together(name), strict=True):
        np.testing.assert_allclose(on_cuda.vector, on_cpu.vector, rtol=1e-2, atol=1e-2)  # TF32 convolutions


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@NETWORKS
def test_half_precision_on_cuda_is_close(name, precision):
    made = registry.create(name, weights="random", seed=3, device="cuda", precision=precision)
    for low, full in zip(made.encode(prepared(name)), together(name), strict=True):
        cosine = low.vector @ full.vector / np.linalg.norm(low.vector) / np.linalg.norm(full.vector)
        assert cosine > (0.9999 if made.half_is_close else 0.99)


@pytest.mark.needs_cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_full_gpu_halves_the_batch_and_goes_on():
    made = registry.create("visual/vgg16", weights="random", seed=3, device="cuda")
    clips = [replace(item, clip_id=f"{item.clip_id}/{i}") for i in range(64) for item in prepared("visual/vgg16")]
    n_frames = sum(len(item.inputs) for item in clips)
    made.batch_size = n_frames
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 1e9  # the first layer makes 13 MB of a frame
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = made.encode(clips)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= made.batch_size < n_frames
    for embedding in found:
        expected = next(e for e in together("visual/vgg16") if e.clip_id == embedding.clip_id.split("/")[0])
        np.testing.assert_allclose(embedding.vector, expected.vector, rtol=1e-2, atol=1e-2)


# --- the registry ---


def test_known_names_by_modality():
    assert registry.known() == sorted(DIMS)
    assert registry.known("visual") == ["visual/efficientnet_lite0", "visual/vgg16"]
    assert registry.known("smell") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "visual/vg16",
            r"unknown extractor 'visual/vg16'; known: visual/eff\w+, visual/vgg16 \(did you mean 'visual/vgg",
        ),
        (
            "smell/nose",
            r"unknown extractor 'smell/nose'; known: audio/davenet, .+, text/bert, visual/eff\w+, visual/vgg16$",
        ),
    ],
)
def test_an_unknown_name_lists_the_known(name, message):
    with pytest.raises(ValueError, match=message):
        registry.create(name)


def test_an_unknown_setting_lists_the_accepted():
    message = (
        r"audio/davenet has no setting 'batchsize'; it accepts: batch_size, device, .*\(did you mean 'batch_size'\?\)"
    )
    with pytest.raises(ValueError, match=message):
        registry.create("audio/davenet", batchsize=3)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(registry._CLASSES, "visual/other", "no_such_library.nets:Other")
    with pytest.raises(ValueError, match="visual/other needs the package 'no_such_library', which is not installed"):
        registry.create("visual/other")


def test_listing_extractors_imports_no_model_library():
    code = (
        "import sys; from extractors import registry; registry.known(); "
        "sys.exit(bool({'torch', 'torchvision', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
