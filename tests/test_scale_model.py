"""The costs of a corpus of any size, and the simulation of the largest."""

import copy
import json
import subprocess
import sys

import pytest
import yaml

from benchmarks.scale_model import ASSUMPTIONS, Fleet, estimate, read_assumptions, simulate

LAPTOP, FARM = Fleet(1, 2, 0), Fleet(64, 64, 1)


@pytest.fixture
def assumed():
    return copy.deepcopy(read_assumptions(ASSUMPTIONS))


def test_it_says_what_was_measured(assumed):
    # docs/performance.md: 64 clips of the benchmark, all three encoders, 13.9 s on two cores
    assert estimate(64, LAPTOP, assumed).extract_s == pytest.approx(13.9, rel=0.05)


def test_costs_grow_with_the_clips_and_shrink_with_the_cores(assumed):
    few, many = estimate(1000, LAPTOP, assumed), estimate(10_000, LAPTOP, assumed)
    assert many.extract_s == pytest.approx(10 * few.extract_s)
    assert estimate(1000, Fleet(2, 4, 0), assumed).extract_s == pytest.approx(few.extract_s / 4)
    assert many.stored_tb == pytest.approx(10_000 * (23_552 + 720) / 1e12)


def test_the_bottleneck_is_what_takes_longest(assumed):
    assert estimate(1000, FARM, assumed).bottleneck == "cores"
    assumed["node"]["network_bytes_s"] = 1e6
    assert estimate(1000, FARM, assumed).bottleneck == "network"
    assumed["node"]["network_bytes_s"], assumed["clip"]["gpu_s"]["visual"] = 1e9, 10.0
    assert estimate(1000, FARM, assumed).bottleneck == "gpus"


def test_a_price_needs_every_price(assumed):
    assumed["prices"] = {"core_h": 0.04, "gpu_h": 2.0, "tb_month": None}
    assert estimate(1000, FARM, assumed).price is None
    assumed["prices"]["tb_month"] = 20.0
    found = estimate(1000, FARM, assumed)
    assert found.price == pytest.approx(0.04 * found.core_h + 2.0 * found.gpu_h + 20.0 * found.stored_tb)


def test_training_does_not_grow_for_ever_and_applying_does(assumed):
    some, many = (estimate(n, FARM, assumed) for n in (10**6, 10**8))
    assert many.train_s == some.train_s
    assert some.reduce_s < many.reduce_s < 20 * some.reduce_s, "fitted on as many clips"
    assumed["reduce"]["fit_clips"] = 10**9
    assert estimate(10**8, FARM, assumed).reduce_s == pytest.approx(100 * some.reduce_s)
    assert many.assign_s == pytest.approx(100 * some.assign_s)


def test_without_mishaps_the_simulation_is_the_estimate(assumed):
    assumed["simulation"]["straggler_share"], assumed["node"]["mtbf_h"] = 0, 1e12
    found = simulate(10_000_000, FARM, assumed)
    assert found.against_estimate == pytest.approx(1.0, abs=0.03)
    assert (found.node_failures, found.redone) == (0, 0)


def test_mishaps_cost_what_they_must(assumed):
    calm = simulate(10_000_000, FARM, assumed)
    assumed["node"]["mtbf_h"] = 0.3
    failing = simulate(10_000_000, FARM, assumed)
    assert failing.node_failures > 10
    assert failing.redone == failing.node_failures / -(-10_000_000 // 4096)
    assert failing.hours > calm.hours
    assumed["simulation"]["straggler_share"] = 0.5
    assert simulate(10_000_000, FARM, assumed).hours > 2 * calm.hours


def test_clips_that_come_in_slowly_do_not_wait(assumed):
    assumed["simulation"]["arrival_days"] = 30
    found = simulate(10_000_000, FARM, assumed)
    assert found.hours == pytest.approx(30 * 24, rel=0.01)
    assert found.wait_p50_s < 300
    assert found.cores_busy < 0.05


def test_the_seed_decides(assumed):
    assert simulate(1_000_000, FARM, assumed) == simulate(1_000_000, FARM, assumed)


def test_other_assumptions_are_read_from_a_file(tmp_path, assumed):
    assumed["fleets"] = {5000: {"nodes": 1, "cores": 8, "gpus": 0}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(assumed))
    command = [sys.executable, "-m", "benchmarks.scale_model", "--assumptions", str(tmp_path / "mine.yaml")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [row["n_clips"] for row in told["estimates"]] == [5000]
    assert told["simulations"]["5000"]["hours"] > 0
