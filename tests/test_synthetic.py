"""The demo corpus: deterministic, resumable, balanced; the files are what they say, the voice follows the class."""

import csv
import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import Media, MediaNeeds, read_media
from pipeline.corpora.synthetic import corpus as corpus_module
from pipeline.corpora.synthetic import write_synthetic_corpus
from pipeline.corpora.synthetic.plan import CUES, LABELS, plan_clips
from pipeline.errors import PipelineError


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "corpus"
    write_synthetic_corpus(root, clips_per_class=2, seed=3)
    return root


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(path: Path) -> Media:
    return read_media(Clip("x", str(path)), MediaNeeds(FrameSampling(count=4), 16000))


def test_every_class_is_there_equally_often_with_words(small):
    rows = rows_of(small)
    assert Counter(row["label"] for row in rows) == Counter({str(label): 2 for label in LABELS})
    assert all(row["transcript"].strip() for row in rows)
    assert {row["file"] for row in rows} == {f"clips/{p.name}" for p in (small / "clips").iterdir()}


def test_neither_names_nor_order_tell_the_class():
    plans = plan_clips(12, seed=0)
    labels = [plan.label for plan in plans]
    numbers = [plan.number for plan in plans]
    assert numbers == sorted(numbers)
    assert abs(np.corrcoef(numbers, labels)[0, 1]) < 0.3
    # a shuffled order changes class about 6 times in 7; blocks of a class would change it 6 times in all
    assert sum(a != b for a, b in pairwise(labels)) > 60


def test_no_modality_alone_tells_the_classes_and_together_they_do():
    for modality in ("face", "voice", "words"):
        assert len({getattr(cues, modality) for cues in CUES.values()}) < len(LABELS)
    assert len(set(CUES.values())) == len(LABELS)


def test_clips_are_h264_and_aac_of_two_to_three_seconds(small):
    for path in (small / "clips").iterdir():
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.audio[0].codec_context.name == "aac"
            assert container.duration is not None
            assert 1.8 <= container.duration / av.time_base <= 3.4


def test_the_same_seed_gives_the_same_clips_whatever_was_there_before(small, tmp_path):
    interrupted = tmp_path / "corpus"
    shutil.copytree(small, interrupted)
    names = sorted(p.name for p in (small / "clips").iterdir())
    for name in names[:2]:
        (interrupted / "clips" / name).unlink()
    (interrupted / "corpus.json").rename(interrupted / "corpus.unfinished.json")  # as a killed run leaves it
    write_synthetic_corpus(interrupted, clips_per_class=2, seed=3)
    assert (interrupted / "corpus.json").exists()
    for name in names[:2]:
        again, before = read(interrupted / "clips" / name), read(small / "clips" / name)
        np.testing.assert_array_equal(again.require_frames().frames, before.require_frames().frames)
        np.testing.assert_array_equal(again.require_waveform().samples, before.require_waveform().samples)


def test_a_whole_corpus_is_left_alone(small, monkeypatch):
    monkeypatch.setattr(corpus_module, "_make_clip", lambda *args: pytest.fail("a clip was made again"))
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    write_synthetic_corpus(small, clips_per_class=2, seed=3)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_a_half_written_corpus_is_not_taken_for_whole(tmp_path, monkeypatch):
    def stop(path, plan, seed):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_module, "_make_clip", stop)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_corpus(tmp_path, clips_per_class=1, seed=0)
    assert not (tmp_path / "corpus.json").exists()
    assert (tmp_path / "corpus.unfinished.json").exists()


def loudness(media: Media) -> float:
    return float(np.sqrt(np.mean(media.require_waveform().samples ** 2)))


def test_the_voice_follows_the_class(small):
    by_style: dict[str, list[float]] = {}
    for plan in plan_clips(2, seed=3):
        by_style.setdefault(plan.cues.voice, []).append(loudness(read(small / "clips" / f"{plan.clip_id}.mp4")))
    assert np.mean(by_style["charged"]) > 1.5 * np.mean(by_style["subdued"])


def test_it_says_that_it_is_synthetic(small):
    assert json.loads((small / "corpus.json").read_text())["statement"].startswith("Synthetic:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips_per_class": 2, "seed": 4}, "holds another demo corpus .*seed 3.* than the one asked for .*seed 4"),
        ({"clips_per_class": 3, "seed": 3}, "holds another demo corpus .*clips_per_class 2"),
        ({"clips_per_class": 0, "seed": 3}, "expected clips_per_class >= 1 and seed >= 0, got 0 and 3"),
    ],
)
def test_another_corpus_in_the_same_folder_is_refused(small, arguments, message):
    with pytest.raises(PipelineError, match=message):
        write_synthetic_corpus(small, **arguments)


def test_strangers_clips_are_not_written_over(tmp_path):
    (tmp_path / "mine.mp4").write_bytes(b"")
    with pytest.raises(PipelineError, match="so it is no demo corpus; give another folder"):
        write_synthetic_corpus(tmp_path)


def test_a_broken_description_is_named(tmp_path):
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(PipelineError, match="is not readable as JSON"):
        write_synthetic_corpus(tmp_path)
