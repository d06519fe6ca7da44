"""`make bench-scale ARGS=--quick`, but for Ray, which `make test-ray` is for."""

import json
import subprocess
import sys


def test_what_grows_is_measured_at_small_sizes():
    words = ["-m", "benchmarks.bench_scale", "--quick", "--only", "store", "tib", "run", "model"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[part]["missed"] for part in ("store", "tib", "run", "model")] == [[]] * 4
    assert [one["clips"] for one in found["store"]["sizes"]] == [3_000, 30_000]
    assert found["tib"]["beyond_memory"]["rows"][0]["peak_gb"] < 3
    assert found["run"]["page_mb"] < 30
    assert {row["batch"] for row in found["tib"]["by_batch"]} == {256, "full"}
    assert {estimate["n_clips"] for estimate in found["model"]["estimates"]} >= {2_000, 100_000_000}
