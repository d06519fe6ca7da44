"""The examples run as they stand, without a network, and what they show is true."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# One thread, as tests run side by side; and no way out to any host.
QUIET = {
    **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9"),
    **{"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
}


def example(name: str, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, EXAMPLES / name, *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.mark.slow
def test_cluster_features():
    done = example("cluster_features.py")
    assert done.returncode == 0, done.stderr
    fitted, new, silent = (float(score) for score in re.findall(r"ARI (?:with .*: )?(-?\d\.\d+)", done.stdout))
    assert min(fitted, new) > 0.8  # four planted feelings, found; 1 is perfect, 0 is chance
    assert 0.3 < silent < new  # without sound less is known
    assert sum(json.loads(re.search(r"clusters of (\[.*\]) clips", done.stdout)[1])) == 200
    assert done.stdout.endswith("it says the same: True\n")


@pytest.mark.slow
def test_own_clips_and_the_notebook_on_its_run(tmp_path, monkeypatch):
    done = example("own_clips.py", "--workdir", tmp_path, "--clusters", 3)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "results/own_clips"
    with (run / "assignments.csv").open(newline="") as file:
        assigned = {row["clip_id"]: int(row["cluster"]) for row in csv.DictReader(file)}
    with (tmp_path / "clips/clips.csv").open(newline="") as file:
        said = {row["file"].removesuffix(".mp4"): row["transcript"] for row in csv.DictReader(file)}
    assert assigned.keys() == said.keys()
    shown = re.findall(r"^cluster (\d): (\d+) clips$", done.stdout, re.M)
    assert {int(k): int(n) for k, n in shown} == Counter(assigned.values())
    for clip_id, words in re.findall(r"^  \d\.\d\d  (.+?): (.+)$", done.stdout, re.M):
        assert said[clip_id] == words

    page = (ROOT / "docs/data-layouts.md").read_text()
    for path in [*run.iterdir(), *(tmp_path / "reduced").iterdir(), *tmp_path.glob("*.*")]:
        name = re.sub(r"^(visual|text|audio)\.npy$", "<modality>.npy", path.name)
        assert name in page, f"docs/data-layouts.md leaves out {name}"

    for name, value in {**QUIET, "RUN": str(run)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "explore_run.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [
        output.data["application/vnd.plotly.v1+json"] for output in outputs if "plotly" in str(output.data.keys())
    ]
    assert [figure["layout"]["title"]["text"] for figure in figures] == [
        *("Confidence, by cluster", "p(cluster | clip) by all modalities"),
        *("Agreement of each modality alone", "Terms of the loss"),
    ]
    assert "http" not in "".join(output.data.get("text/html", "") for output in outputs)
    labels = outputs[-1].data["text/plain"].splitlines()[2:]  # a row a cluster, then a number a label
    assert {int(k): sum(map(int, counts)) for k, *counts in map(str.split, labels)} == Counter(assigned.values())


def test_own_clips_of_a_folder_that_is_not_there(tmp_path):
    done = example("own_clips.py", "--clips", tmp_path / "nowhere", "--workdir", tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*nowhere: no such folder; .*\n", done.stderr)


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(EXAMPLES / "explore_run.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
