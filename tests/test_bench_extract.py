"""The benchmark's clips are what they are said to be, and the plain extraction gives our extractors' own vectors."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from transformers import BertConfig, BertModel

from benchmarks import bench_extract
from benchmarks.extract_clips import generated_clips, many_clips
from benchmarks.plain_extraction import plain_audio, plain_bert, plain_davenet, plain_text, plain_vgg16, plain_visual
from extractors import registry
from extractors.media import read_media
from extractors.text_bert import BASE_MODEL, OFFLINE_TOKENIZER, local_tokenizer
from pipeline.corpora.folder import read_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clips(folder):
    return generated_clips(folder, 2, size=(320, 180), seconds=1.0)


def ours(extractor, clips):
    prepared = [extractor.preparer.prepare(clip, read_media(clip, extractor.preparer.needs)) for clip in clips]
    return {embedding.clip_id: embedding.vector for embedding in extractor.encode(prepared)}


def check_cosines(found, expected):
    assert list(found) == list(expected)
    for clip_id, vector in found.items():
        cosine = vector @ expected[clip_id] / np.linalg.norm(vector) / np.linalg.norm(expected[clip_id])
        assert cosine > 0.99999


# --- clips ---


def test_a_clip_is_like_a_recording(clips):
    for clip in clips:
        with av.open(clip.media_path) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.name, video.pix_fmt, video.width, video.height) == ("h264", "yuv420p", 320, 180)
            assert (audio.name, audio.rate, audio.channels) == ("aac", 44_100, 2)
            assert video.average_rate == 30
            assert 27 <= video.frames <= 33
            frames = list(container.decode(video=0))
        assert [frame.pts * frame.time_base for frame in frames] == [i / video.average_rate for i in range(len(frames))]
        kinds = [PictureType(frame.pict_type).name for frame in frames]
        assert kinds[0] == "I"
        assert set(kinds[1:]) == {"P", "B"}  # one long GOP
        assert len(frames) == video.frames


def test_clips_differ(clips):
    media = [read_media(clip, registry.extractor_class("audio/davenet").preparer.needs) for clip in clips]
    first, second = (part.require_waveform().samples for part in media)
    assert not np.allclose(first[:10_000], second[:10_000], atol=1e-3)
    assert clips[0].transcript != clips[1].transcript


def test_the_folder_reader_takes_them_with_their_words(clips, folder):
    corpus = read_folder(folder)
    assert corpus.problems == []
    assert [(clip.clip_id, clip.transcript) for clip in corpus.clips] == [(c.clip_id, c.transcript) for c in clips]


def test_clips_are_made_once_and_again_for_other_settings(tmp_path):
    def made():
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}

    clips = many_clips(tmp_path, 6)
    before = made()
    assert many_clips(tmp_path, 6) == clips
    assert made() == before
    assert len(many_clips(tmp_path, 5)) == len(made()) == 5
    assert read_folder(tmp_path).problems == []


def test_many_clips_are_copies_of_four_with_words_of_their_own(tmp_path):
    clips = many_clips(tmp_path, 40)
    assert len({Path(clip.media_path).read_bytes() for clip in clips}) == 4
    n_words = [len(clip.transcript.split()) for clip in clips]
    assert len({clip.transcript for clip in clips}) == 40
    assert min(n_words) >= 3
    assert max(n_words) <= 60
    assert 8 <= np.median(n_words) <= 16


@pytest.mark.parametrize("make", [generated_clips, many_clips])
def test_no_clips_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match="expected at least 1 clip, got n=0"):
        make(tmp_path, 0)


# --- the plain extraction ---


def test_pictures(clips):
    extractor = registry.create("visual/vgg16", weights="random", count=2, device="cpu")
    network = plain_vgg16(extractor.network.state_dict())
    check_cosines(dict(plain_visual(clips[:1], network, n_frames=2)), ours(extractor, clips[:1]))


def test_words(clips, tmp_path):
    torch.manual_seed(0)
    small = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    BertModel(small, add_pooling_layer=False).save_pretrained(tmp_path)
    extractor = registry.create("text/bert", weights=str(tmp_path), tokenizer=OFFLINE_TOKENIZER, device="cpu")
    network = plain_bert(extractor.network.config, extractor.network.state_dict())
    tokenizer, _ = local_tokenizer("random", BASE_MODEL, None)
    found, expected = dict(plain_text(clips, tokenizer, network)), ours(extractor, clips)
    assert list(found) == list(expected)
    for clip_id, vector in found.items():
        np.testing.assert_allclose(vector, expected[clip_id], rtol=0, atol=1e-5)


def test_sound(clips):
    extractor = registry.create("audio/davenet", weights="random", device="cpu")
    network = plain_davenet(extractor.network.state_dict())
    check_cosines(dict(plain_audio(clips, network)), ours(extractor, clips))


# --- what is measured ---


def test_the_sound_is_compared_with_the_plain_loop_the_bare_network_and_what_the_cores_allow(
    clips, tmp_path, monkeypatch
):
    monkeypatch.setattr(bench_extract, "WORK", tmp_path)
    extractor = registry.create("audio/davenet", weights="random", device="cpu")
    network = plain_davenet(extractor.network.state_dict())
    slices = [clips[:1], clips[1:]]
    case = bench_extract.Case("audio", extractor, lambda some: plain_audio(some, network), clips, slices)
    found = bench_extract.compare(case, rounds=2)
    assert found["least_cosine"] > 0.99999
    assert found["of_bare"] == pytest.approx(found["extract"] / found["bare"], rel=0.01)
    busy_s = sum(found["cpu_ms_a_clip"].values()) / 1e3 / torch.get_num_threads()  # of a clip, no core resting
    sound_s = sum(item.n_units for item in case.prepared) / 100 / len(clips)
    assert found["of_bare_at_most"] == pytest.approx(sound_s / busy_s / found["bare"], rel=0.05)

    all_of_it = bench_extract.together({"audio": extractor}, clips, rounds=1)
    assert all_of_it["over_bare"] > 1  # it reads, too
    assert all_of_it["over_bare_at_least"] > 0


def test_a_pass_of_vgg16_is_15_5_billion_products():
    network = registry.create("visual/vgg16", weights="random", device="cpu").network
    assert bench_extract.flops(network, (1, 3, 224, 224)) / 2e9 == pytest.approx(15.5, abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_large_product_has_a_rate(precision, monkeypatch):
    monkeypatch.setattr(bench_extract, "GEMM_SIZE", {"cpu": 256})
    assert bench_extract.gemm_peak(precision, torch.device("cpu")) > 0.1
