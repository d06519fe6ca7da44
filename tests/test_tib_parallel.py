"""Several processes train one model together, to what one process comes to alone; killed ones go on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from tib import TIB
from tib.group import Group
from tib.twin import blocks as blocks_module
from tib.twin.blocks import Block, Window
from tib.twin.net import TwinNet
from tib.twin.objective import Weights
from tib.twin.train import Data, Pace, Schedule, train

SETTINGS: dict[str, Any] = {"random_state": 0, "device": "cpu", "dtype": "float64", "restarts": 2}
CASES: dict[str, dict[str, Any]] = {
    "gaps, an odd batch": {"epochs": 4, "batch_size": 31, "schedule": "free"},
    "a running joint, a graph that is followed": {
        "epochs": 4, "batch_size": 16, "schedule": "anchored", "joint_momentum": 0.9
    },
    "blocks, both schedules": {"epochs": 3, "batch_size": 9, "superfluous_weight": 0.5, "block": 40},
    "nothing missing, one anchor more than processes": {
        "epochs": 1, "batch_size": 3, "schedule": "scratch", "complete": True
    },
}  # fmt: skip


def views_of(*, complete: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 101)
    views = {
        name: 2 * rng.normal(size=(3, d))[truth] + rng.normal(size=(101, d))
        for name, d in zip("abc", (5, 7, 6), strict=True)
    }
    if not complete:
        views["a"][::4], views["b"][1::4] = np.nan, np.nan
    return views


def fitted(case: dict[str, Any], steps: list[int]) -> dict[str, Any]:
    settings = {name: value for name, value in case.items() if name not in ("complete", "block")}
    blocks_module.BLOCK = case.get("block", 6000)
    model = TIB(3, **SETTINGS, **settings)
    model.fit(views_of(complete=case.get("complete", False)), on_step=lambda report: steps.append(report.step))
    return {
        "history": model.history_, "net": model.net_.state_dict(), "proba": torch.from_numpy(model.proba_),
        "schedule": model.schedule_, "steps": steps,
    }  # fmt: skip


def _process(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    try:
        torch.save({name: fitted(case, []) for name, case in CASES.items()}, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ended with, case by case."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(_process, (2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one_at_every_step(
    together: list[dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK", 6000)  # put back afterwards
    alone = fitted(CASES[name], [])
    assert len(alone["history"]) >= 6
    for rank, of_all in enumerate(together):
        found = of_all[name]
        assert found["schedule"] == alone["schedule"]
        assert found["steps"] == (alone["steps"] if rank == 0 else [])  # the first process alone calls back
        for one, other in zip(alone["history"], found["history"], strict=True):
            assert other == pytest.approx(one, abs=1e-6)
        for key, value in alone["net"].items():
            assert torch.allclose(found["net"][key], value, rtol=0, atol=1e-6), key
        assert torch.allclose(found["proba"], alone["proba"], rtol=0, atol=1e-6)
    for key, value in together[0][name]["net"].items():
        assert torch.equal(together[1][name]["net"][key], value), key


def _drawn(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        TIB(3, restarts=1, epochs=1, device="cpu").fit(views_of()).save(f"{folder}/{rank}")
    finally:
        distributed.destroy_process_group()


@pytest.mark.cluster
def test_a_seed_that_is_drawn_is_the_same_in_all(tmp_path: Path) -> None:
    multiprocessing.spawn(_drawn, (str(tmp_path),), nprocs=2)
    first, second = (TIB.load(tmp_path / str(rank)) for rank in range(2))
    assert first.seed_ == second.seed_
    assert np.array_equal(first.proba_, second.proba_)


def test_a_batch_smaller_than_the_group_is_refused() -> None:
    block = Block([torch.zeros(4, 2)] * 2, torch.ones(2, 4, dtype=torch.bool), torch.zeros(4, 1, dtype=torch.int64))
    data = Data(Window([block], 1), torch.arange(4)[None], torch.zeros(1, 4, dtype=torch.int64), complete=True)
    net = TwinNet([2, 2], 2, 1, torch.float32)
    with pytest.raises(ValueError, match=r"a batch of 2 anchors for 3 processes: start fewer of them"):
        train(
            net, data, Schedule("free", 0.0, 0.0, 0.0), Weights(1, 1, 0, 0, 0, 0.5, 1.0),
            Pace(2, 1, 0.01), torch.Generator(), lambda *told: False, group=Group(0, 3),
        )  # fmt: skip


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 2), (5, 4), (3, 1)])
def test_shares_are_all_and_nearly_equal(count: int, size: int) -> None:
    shares = [range(count)[Group(rank, size).share(count)] for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


TRAINED = """
import os, signal, sys
import numpy as np
import tib.checkpoint
from torch import distributed
from tib import TIB
from test_tib_parallel import views_of

tib.checkpoint.EVERY_S = 0.0
distributed.init_process_group("gloo")
rank, folder = distributed.get_rank(), sys.argv[1]

def on_step(report):
    with open(f"{folder}/steps", "a") as file:
        file.write(f"{report.step}\\n")

def kill(report):
    on_step(report)
    if report.step == 9 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

model = TIB(3, random_state=0, restarts=2, epochs=8, batch_size=31, device="cpu", schedule="free")
model.fit(views_of(), on_step=kill if "kill" in sys.argv else on_step, checkpoint=f"{folder}/checkpoint.pt")
model.save(f"{folder}/model_{rank}")
distributed.destroy_process_group()
"""


def torchrun(folder: Path, *arguments: str) -> list[int]:
    """The steps that were made, in order."""
    folder.mkdir()
    script = folder / "fit.py"
    script.write_text(TRAINED)
    tests = Path(__file__).parent
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
        str(script), str(folder), *arguments,
    ]  # fmt: skip
    path = os.pathsep.join([str(tests), str(tests.parent)])
    # Workers that share the agent's store find the killed ones' addresses in it, and sometimes meet nobody there.
    apart = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment = {**os.environ, **apart, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    subprocess.run(command, check=True, env=environment, timeout=240, capture_output=True)
    return [int(step) for step in (folder / "steps").read_text().split()]


@pytest.mark.cluster
def test_a_worker_that_is_killed_is_started_again_and_goes_on(tmp_path: Path) -> None:
    whole = torchrun(tmp_path / "whole")
    killed = torchrun(tmp_path / "killed", "kill")
    assert killed == [*range(1, 10), *range(9, whole[-1] + 1)]  # the step it was killed in is done again
    for rank in range(2):
        one, other = (TIB.load(tmp_path / name / f"model_{rank}") for name in ("whole", "killed"))
        assert np.array_equal(one.proba_, other.proba_)
        assert one.history_ == other.history_
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()
