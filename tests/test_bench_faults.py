"""The fault campaign, a little of it (damaged files are in test_fuzz.py): what a killed stage leaves is whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_nothing_is_lost():
    command = [sys.executable, "-m", "benchmarks.bench_faults", "--quick", "--only", "kills"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert json.loads(run.stdout)["kills"]["tried"] >= 8
