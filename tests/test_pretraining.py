"""Training an audio network on pairs: the split, the loop, and that a run taken up anew ends with the same weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pretraining_factory import SmallExtractor

from extractors.audio_davenet import DAVEnetExtractor
from extractors.audio_spectrograms import SpectrogramExtractor
from extractors.pretraining.networks import ImageHead
from extractors.pretraining.pairs import Pairs, split_by_video
from extractors.pretraining.train import Pretraining, Training, learning_rate_factor


def pairs_of(n: int = 12, frames: int = 3, seed: int = 0) -> Pairs:
    """Clips of n // 2 videos whose picture and sound share a hidden kind: bright low tones or dark high ones."""
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 4
    maps = random.normal(size=(n, frames, 8, 3, 3)) + 2 * (np.arange(8) % 4 == kinds[:, None])[:, None, :, None, None]
    mels = []
    for kind in kinds:
        mel = random.normal(-40, 5, size=(40, int(random.integers(30, 60))))
        mel[10 * kind : 10 * kind + 10] += 30
        mels.append(np.minimum(mel, 0).astype(np.float32))
    return Pairs(maps.astype(np.float16), mels, [f"video {index // 2}" for index in range(n)])


def training(**changes) -> Training:
    asked = {
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "similarity": "MISA",
        "loss": "info_nce",
        "margin": 1.0,
        "temperature": 1.0,
        "negatives": "other_clip",
        "another_recording": False,
        "patience": None,
        "seed": 0,
    }
    return Training(**{**asked, **changes})


def run_of(
    how: Training, pairs: Pairs | None = None, audio: type[SpectrogramExtractor] = SmallExtractor
) -> Pretraining:
    pairs = pairs or pairs_of()
    trained, held_out = split_by_video(pairs.videos, 0.3, at_most=100, seed=how.seed)
    return Pretraining(
        pairs,
        trained,
        held_out,
        audio=audio,
        training=how,
        device=torch.device("cpu"),
        precision="fp32",
    )


class Interrupted(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    ("loss", "stop_at", "audio"),
    [
        ("info_nce", 1, SmallExtractor),
        ("info_nce", 2, SmallExtractor),
        ("margin_ranking", 5, SmallExtractor),
        ("masked_margin_softmax", 3, DAVEnetExtractor),
    ],
)
def test_a_run_taken_up_from_a_checkpoint_ends_with_the_same_weights(loss, stop_at, audio, one_thread, tmp_path):
    whole = run_of(training(loss=loss), audio=audio)
    expected = whole.run(lambda state: None, lambda epoch: None)
    cut = run_of(training(loss=loss), audio=audio)

    def stop(state: Pretraining) -> None:
        if state.step == stop_at:
            torch.save(state.state(), tmp_path / "checkpoint.pt")
            raise Interrupted

    with pytest.raises(Interrupted):
        cut.run(stop, lambda epoch: None)
    again = run_of(training(loss=loss), audio=audio)
    again.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert again.step == stop_at
    found = again.run(lambda state: None, lambda epoch: None)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [epoch.held_out for epoch in again.history] == [epoch.held_out for epoch in whole.history]


def test_it_learns_which_sound_belongs_to_which_picture(one_thread):
    """Of 4 kinds of clip, held-out pairs of unseen videos: far above the chance of picking one of 24 at random."""
    run = run_of(training(epochs=40, batch_size=24, learning_rate=3e-3), pairs_of(80, seed=1))
    seen = []
    run.run(lambda state: None, seen.append)
    before, after = run.history[0].held_out, run.history[run.best_epoch].held_out
    assert after.n_pairs == 24
    assert after.mean_recall > 0.6 > before.mean_recall  # 4 kinds: (1/6 + 5/6 + 1) / 3 is the best there is, .67
    assert [epoch.number for epoch in seen] == list(range(41))


def test_patience_ends_it_early(one_thread):
    run = run_of(training(epochs=50, learning_rate=1e-12, patience=2))
    run.run(lambda state: None, lambda epoch: None)
    assert run.finished
    assert len(run.history) - 1 - run.best_epoch == 2
    assert run.step < run.steps


def test_no_video_stands_on_both_sides():
    videos = [f"video {index // 7}" for index in range(70)]
    trained, held_out = split_by_video(videos, 0.2, at_most=1000, seed=3)
    assert sorted([*trained, *held_out]) == list(range(70))
    assert len(held_out) == 14
    assert not {videos[i] for i in trained} & {videos[i] for i in held_out}
    other, _ = split_by_video(videos, 0.2, at_most=1000, seed=4)
    assert other.tolist() != trained.tolist()
    assert len(split_by_video(videos, 0.9, at_most=10, seed=0)[1]) == 7


def test_clips_of_one_video_are_split_one_by_one():
    trained, held_out = split_by_video(["only"] * 10, 0.2, at_most=100, seed=0)
    assert (len(trained), len(held_out)) == (8, 2)


@pytest.mark.parametrize("videos", [["a"] * 5, ["a", "a", "a", "b", "b", "b"], []])
def test_too_few_clips_are_refused(videos):
    with pytest.raises(ValueError, match=rf"{len(videos)} clips of .* are too few: expected at least 4 to train on"):
        split_by_video(videos, 0.2, at_most=100, seed=0)


@pytest.mark.parametrize("negatives", ["other_clip", "other_video", "same_video"])
def test_negatives_are_what_the_setting_says(negatives):
    run = run_of(training(negatives=negatives))
    rows = np.array([0, 1, 4, 5, 7])  # videos 0, 0, 2, 2, 3
    same_video = np.array([[run.pairs.videos[i] == run.pairs.videos[j] for j in rows] for i in rows])
    expected = {
        "other_clip": ~np.eye(5, dtype=bool),
        "other_video": ~same_video,
        "same_video": same_video & ~np.eye(5, dtype=bool),
    }[negatives]
    assert run._negatives(rows).numpy().tolist() == expected.tolist()


def test_an_epoch_sees_every_clip_once_and_draws_its_frames_anew():
    run = run_of(training(epochs=2, batch_size=3))
    epochs = []
    for _ in range(2):
        drawn = []
        for _ in range(run.n_batches):
            rows, frames, _ = run._drawn()
            drawn += zip(rows.tolist(), frames.tolist(), strict=True)
            run.step += 1
        epochs.append(drawn)
    for drawn in epochs:
        assert sorted(row for row, _ in drawn) == sorted(run.trained.tolist())
    assert sorted(epochs[0]) != sorted(epochs[1])


def test_steps_of_one_video_stay_together():
    run = run_of(training(negatives="same_video", batch_size=4), pairs_of(24))
    rows, _, _ = run._drawn()
    counts = [[run.pairs.videos[row] for row in rows].count(run.pairs.videos[row]) for row in rows]
    assert min(counts) >= 1
    assert sum(count == 2 for count in counts) >= 2


def test_the_image_side_is_standardised_by_the_training_maps():
    head = ImageHead(3, 5)
    maps = (
        torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        * torch.tensor([5.0, 0.5, 0.0])[:, None, None]
    )
    maps += torch.tensor([100.0, -3.0, 2.0])[:, None, None]
    head.standardise_by(maps.split(2))
    standard = (maps - head.mean) / head.sd
    assert torch.allclose(standard.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(standard.var((0, 2, 3), correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3)
    assert head(maps).shape == (7, 5, 16)


def test_the_learning_rate_rises_and_falls():
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert factors[-1] < 1e-3
    assert learning_rate_factor(0, 1) == 1.0


def test_a_loss_that_is_no_number_is_told():
    run = run_of(training())
    with torch.no_grad():
        run.networks.image.conv.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1; lower the learning rate"):
        run._train_step(*run._drawn())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "triplet"}, "unknown loss 'triplet'; known: margin_ranking"),
        ({"similarity": "MAX"}, "unknown similarity 'MAX'"),
        ({"negatives": "none"}, "unknown negatives 'none'"),
        ({"batch_size": 1}, "batch_size >= 2"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        training(**changes)


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected maps \(N, F, C, H, W\) with N log-mels and N videos"):
        Pairs(np.zeros((2, 1, 3, 4, 4), np.float16), [np.zeros((40, 9), np.float32)], ["a", "b"])
