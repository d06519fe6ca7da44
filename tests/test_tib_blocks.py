"""Clips in blocks: which are read when, who is where, and that the whole of them is clustered."""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from twin_factory import WEIGHTS, net_of, randn

import tib.checkpoint
from tib import TIB, StepReport
from tib.twin import blocks as blocks_module
from tib.twin.blocks import Block, Blocks, Window
from tib.twin.graph import nearest
from tib.twin.projection import Projection, fill_gaps
from tib.twin.train import MOST_STEPS, Data, Pace, Schedule, _Anchors, train
from tib.views import View

pytestmark = pytest.mark.usefixtures("one_thread")


def planted(n_clips: int, apart: float = 2.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, n_clips)
    views = {
        name: apart * rng.normal(size=(4, dim))[truth] + rng.normal(size=(n_clips, dim))
        for name, dim in (("text", 6), ("visual", 8), ("audio", 5))
    }
    views["audio"][::5] = np.nan
    return views, truth


def blocks_of(arrays: dict[str, np.ndarray], seed: int = 0) -> Blocks:
    views = {name: View(name, array, "float64", may_miss=True) for name, array in arrays.items()}
    projections = {
        name: Projection.fitted(view[np.flatnonzero(view.present)], torch.float64, 0) for name, view in views.items()
    }
    return Blocks(views, projections, torch.Generator().manual_seed(seed))


def test_blocks_are_random_and_of_one_size_and_hold_what_their_clips_alone_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK", 50)
    arrays, _ = planted(122)
    blocks = blocks_of(arrays)
    assert (len(blocks), blocks.size, tuple(blocks.rows.shape)) == (3, 40, (3, 40))
    assert len(set(blocks.rows.flatten().tolist())) == 120  # two are left over
    assert (blocks.rows.diff(dim=1) > 0).all()
    assert not torch.equal(blocks_of(arrays, seed=1).rows, blocks.rows)
    for rows, block in zip(blocks.rows.numpy(), blocks, strict=True):
        inputs = [blocks.projections[name](torch.from_numpy(array[rows])) for name, array in arrays.items()]
        present = torch.stack([~torch.from_numpy(array[rows]).isnan().any(1) for array in arrays.values()])
        assert torch.equal(block.present, present)
        assert torch.equal(block.neighbours, nearest(inputs, list(present), 8))
        for view, one, have in zip(block.views, inputs, present, strict=True):
            assert torch.equal(view, fill_gaps(one, have, block.neighbours))
    assert len(blocks[:2]) == 2


def test_a_graph_is_made_once_while_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(views: list[Tensor], present: list[Tensor], k: int) -> Tensor:
        made.append(len(views[0]))
        return nearest(views, present, k)

    monkeypatch.setattr(blocks_module, "BLOCK", 50)
    monkeypatch.setattr(blocks_module, "KEPT", 2)
    monkeypatch.setattr(blocks_module, "nearest", counted)
    blocks = blocks_of(planted(120)[0])
    first = [blocks[index].neighbours for index in (0, 1, 2)]
    again = [blocks[index].neighbours for index in (0, 1, 2)]
    assert made == [40] * 4  # the third is made again
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


class Counted(list[Block]):
    """Blocks that know how often each was read."""

    def __init__(self, count: int) -> None:
        super().__init__(block_of(index) for index in range(count))
        self.read = [0] * count

    def __getitem__(self, index: Any) -> Any:
        self.read[index] += 1
        return super().__getitem__(index)


def block_of(index: int, n_clips: int = 6) -> Block:
    """Every value of it tells its index."""
    views = [torch.full((n_clips, 2), float(index)) + randn(m, n_clips, 2) / 100 for m in range(2)]
    return Block(views, torch.ones(2, n_clips, dtype=torch.bool), torch.arange(n_clips)[:, None].roll(index, 0))


@pytest.mark.parametrize(("count", "restarts", "most"), [(1, 3, 12), (2, 5, 12), (7, 3, 12), (5, 5, 12), (9, 4, 2)])
def test_each_restart_goes_from_its_home_through_all_blocks(count: int, restarts: int, most: int) -> None:
    blocks = Counted(count)
    window = Window(blocks, restarts, most)
    homes = min(count, restarts, most)
    assert len(window.views[0]) == homes * 6  # no more is held
    for visit in range(2 * count):
        window.go_to(visit)
        for restart in range(restarts):
            expected = block_of((restart % homes + visit) % count)
            rows = torch.arange(6) + window.offsets[restart]
            for held, view in zip(window.views, expected.views, strict=True):
                assert torch.equal(held[rows], view)
            assert torch.equal(window.neighbours[rows], expected.neighbours)
            assert window.present[:, rows].all()
    if count > homes:  # a pass reads a block once for all restarts
        assert max(blocks.read[1:]) <= 3


def test_batches_stay_at_home_while_told_to_and_then_go_round() -> None:
    window = Window([block_of(index) for index in range(4)], 2)
    bags = torch.tensor([[0, 1, 2, 3], [1, 2, 4, 5]])
    anchors = _Anchors(Data(window, bags, bags, complete=True), 2, torch.Generator().manual_seed(0))
    visits = []
    for step in range(12):
        places = anchors.draw(at_home=step < 4)
        assert all(set(row.tolist()) <= set(bag.tolist()) for row, bag in zip(places, bags, strict=True))
        visits.append(window.visit)
    assert visits == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_graph_that_is_followed_is_never_left() -> None:
    seen: dict[float, set[int]] = {}
    for partition_weight in (0.0, 1.0):
        window = Window([block_of(index) for index in range(4)], 3)
        places = torch.arange(6).repeat(3, 1)
        data = Data(window, places, places % 2, complete=True)
        visits = seen.setdefault(partition_weight, set())
        train(
            net_of((2, 2), 3, 3), data, Schedule("test", 0.25, partition_weight, 0.1), WEIGHTS, Pace(3, 3, 0.01),
            torch.Generator().manual_seed(0), lambda *told, at=window, into=visits: bool(into.add(at.visit)),
        )  # fmt: skip
    assert seen[1.0] == {0}
    assert seen[0.0] == set(range(10))


def test_the_number_of_steps_counts_all_blocks_and_ends_somewhere() -> None:
    assert Pace(20, 2, 0.01).steps(3, 100, 7) == 70
    assert Pace(None, None, 0.01).steps(3, 5400, 1) == round(15 * 5400 / 128) < MOST_STEPS  # of a block as ever
    assert Pace(None, None, 0.01).steps(3, 5400, 167) == MOST_STEPS
    assert Pace(None, 15, 0.01).steps(3, 5400, 167) > MOST_STEPS  # asked for


# ------------------------------------------------------------------------------------------- all of it

SETTINGS: dict[str, Any] = {"restarts": 3, "epochs": 12, "random_state": 0, "device": "cpu", "batch_size": 32}


@pytest.mark.parametrize("n_clusters", [4, "auto"])
def test_files_in_blocks_are_clustered_like_arrays(
    n_clusters: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK", 100)
    views, truth = planted(430)
    for name, view in views.items():
        np.save(tmp_path / f"{name}.npy", view)
    files = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in views}
    reports: list[StepReport] = []
    predicted: list[np.ndarray] = []

    def on_step(report: StepReport) -> None:
        reports.append(report)
        if report.step == report.steps:
            predicted.append(report.predict())

    model = TIB(n_clusters, max_clusters=6, **SETTINGS).fit(files, on_step=on_step)
    assert model.n_clusters_ == 4
    assert adjusted_rand_score(truth, model.labels_) > 0.9
    assert np.array_equal(model.proba_, TIB(n_clusters, max_clusters=6, **SETTINGS).fit(views).proba_)
    assert np.array_equal(model.predict_proba(files), model.proba_)
    assert np.array_equal(predicted[-1], model.labels_)
    assert model.stability_["graph"] > 0.9
    assert reports[0].steps == round(12 * 5 * 77 / 32)  # five blocks of 86, bags of 77


def test_a_fit_in_blocks_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK", 60)
    monkeypatch.setattr(tib.checkpoint, "EVERY_S", 0.0)
    views, _ = planted(310)
    settings = SETTINGS | {"joint_momentum": 0.9, "schedule": "free", "epochs": 4}
    whole = TIB(4, **settings).fit(views)

    def kill(report: StepReport) -> None:
        if report.step == 20:  # away from home
            raise InterruptedError

    with pytest.raises(InterruptedError):
        TIB(4, **settings).fit(views, on_step=kill, checkpoint=tmp_path / "checkpoint.pt")
    again = TIB(4, **settings).fit(views, checkpoint=tmp_path / "checkpoint.pt")
    assert np.array_equal(again.proba_, whole.proba_)
    assert again.history_ == whole.history_


def test_posteriors_come_in_chunks() -> None:
    views, _ = planted(100)
    model = TIB(4, **SETTINGS | {"epochs": 2}).fit(views)
    chunks = list(model.iter_posteriors(views, chunk=30))
    assert inspect.isgenerator(model.iter_posteriors(views))
    assert [(rows.start, rows.stop) for rows, _, _ in chunks] == [(0, 30), (30, 60), (60, 90), (90, 100)]
    proba, alone = model.posteriors(views)
    for rows, fused, by_modality in chunks:
        assert fused == pytest.approx(proba[rows], abs=1e-6)
        for name, values in by_modality.items():
            assert values == pytest.approx(alone[name][rows], abs=1e-6, nan_ok=True)
    with pytest.raises(ValueError, match="chunk must be 1 clip or more, got 0"):
        model.iter_posteriors(views, chunk=0)


def test_scales_are_learned_from_a_sample_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = sys.modules["tib.twin.fit"]
    views, _ = planted(4000)
    checked = {name: View(name, view, "float64", may_miss=True) for name, view in views.items()}
    device = torch.device("cpu")
    whole = fit._projections(checked, torch.float64, 0, device)
    monkeypatch.setattr(fit, "LEARNED_FROM", 1000)
    some = fit._projections(checked, torch.float64, 0, device)
    for name, projection in whole.items():
        assert not torch.equal(projection.scale, some[name].scale)
        assert torch.allclose(projection.scale, some[name].scale, rtol=0.1)
    again = fit._projections(checked, torch.float64, 0, device)
    assert all(torch.equal(some[name].directions, again[name].directions) for name in some)


def test_one_block_is_what_it_was_before_there_were_blocks() -> None:
    """Figures of commit c93f12e, which held all clips in memory: the same draws in the same order."""
    rng = np.random.default_rng(5)
    truth = np.arange(60) % 3
    views = {
        name: 1.5 * rng.normal(size=(3, dim))[truth] + rng.normal(size=(60, dim))
        for name, dim in (("text", 4), ("visual", 70), ("audio", 5))
    }
    views["audio"][::7], views["text"][3::11] = np.nan, np.nan
    settings = {"restarts": 2, "epochs": 12, "batch_size": 20, "dtype": "float64"}
    model = TIB(3, random_state=3, device="cpu", **settings).fit(views)
    assert "".join(map(str, model.labels_)) == "201" * 20
    assert (model.schedule_, len(model.history_)) == ("anchored", 32)
    assert model.stability_ == pytest.approx({"graph": 1.0, "free": 0.6090442658025383, "anchored": 1.0}, rel=1e-6)
    assert model.restart_losses_.tolist() == pytest.approx([-1.149866423559931, -1.8214890389075553], rel=1e-6)
    assert model.history_[0]["partition"] == pytest.approx(2.3551983629460267, rel=1e-9)
    last = {"consistency": -0.9501909794266423, "fusion": -1.0496462180276542, "superfluous": 54.609590694291434,
            "divergence": 102.78597884284801, "complementarity": -0.024985685207691788,
            "partition": 0.035701375353549065, "loss": -1.4856777312337432, "step": 32}  # fmt: skip
    assert model.history_[-1] == pytest.approx(last, rel=1e-6)
