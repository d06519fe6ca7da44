"""CONTRIBUTING.md's worked examples, followed to the letter in a copy of the project."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus_factory import write_folder_corpus
from media_factory import write_clip

ROOT = Path(__file__).resolve().parents[1]
# A path in bold, what in the file the lines go into where it is there already, and a block of code.
STEP = re.compile(r"^\*\*`(?P<path>[^`]+)`\*\*(?:, in `(?P<name>\w+)`:)?\n\n```\w+\n(?P<code>.*?)^```$", re.M | re.S)

pytestmark = pytest.mark.slow


def follow(title: str, project: Path) -> list[str]:
    """Does in a copy of the project what a section of CONTRIBUTING.md says; returns the files it wrote."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    steps = list(STEP.finditer(section))
    assert len(steps) == section.count("```") // 2, "a block of code without the path it belongs to"
    for room in ("extractors", "pipeline", "tib", "tests", "configs"):
        shutil.copytree(ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", project)
    for step in steps:
        path = project / step["path"]
        if not step["name"]:
            assert not path.exists(), f"{step['path']} is there already; the example needs another name"
            path.write_text(step["code"])
            continue
        source = path.read_text()
        table = re.search(rf"^{step['name']} = {{", source, re.M)
        assert table, f"{step['path']} has no {step['name']}"
        path.write_text(source[: table.end()] + f"\n{step['code']}" + source[table.end() :])
    return [step["path"] for step in steps if not step["name"]]


def python(project: Path, *words: str | Path) -> str:
    """Runs Python in the copy, whose modules come first; returns what was printed."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_style(project: Path, written: list[str]) -> None:
    sources = [path for path in written if path.endswith(".py")]
    python(project, "-m", "ruff", "check", *sources)
    python(project, "-m", "ruff", "format", "--check", *sources)


def test_a_backbone_is_added(tmp_path):
    written = follow("Add a backbone", tmp_path)
    check_style(tmp_path, written)
    python(
        tmp_path, "-m", "pytest", "tests/test_visual_resnet18.py", "tests/test_extractors.py", "-n0", "-k", "resnet18"
    )
    clips = write_folder_corpus(tmp_path / "clips", 2)
    options = ["--config", "configs/resnet18.yaml", "--clips", clips, "--only", "visual"]
    random = ["--set", "extract.visual.weights=random", "--set", "extract.visual.frames_per_clip=2"]
    python(tmp_path, "-m", "pipeline", "extract", *options, *random)
    store = next((tmp_path / "work/resnet18/features/visual").glob("*"))
    assert json.loads((store / "recipe.json").read_text())["recipe"]["extractor"] == "visual/resnet18"
    parts = [pq.read_table(path) for path in store.glob("*.parquet")]
    assert sorted(clip_id for part in parts for clip_id in part["clip_id"].to_pylist()) == ["clip_00", "clip_01"]
    assert parts[0].schema.field("embedding").type.list_size == 512


def test_a_corpus_is_added(tmp_path):
    written = follow("Add a corpus", tmp_path)
    check_style(tmp_path, written)
    python(tmp_path, "-m", "pytest", "tests/test_corpora_enterface.py", "-n0")
    names = ["s1_ha_1", "s2_fe_3"]
    for name in names:
        folder = tmp_path / "enterface" / f"subject {name[1]}"
        folder.mkdir(parents=True)
        write_clip(folder / f"{name}.avi", duration_s=0.4, fps=10)
    options = ["--config", "configs/enterface.yaml", "--clips", tmp_path / "enterface"]
    python(tmp_path, "-m", "pipeline", "prepare", *options)
    work = tmp_path / "work/enterface"
    clips = [json.loads(line) for line in (work / "manifest.jsonl").read_text().splitlines()]
    assert [(clip["clip_id"], clip["video"]) for clip in clips] == [(names[0], "s1"), (names[1], "s2")]
    assert (work / "labels.csv").read_text() == f"clip_id,label\n{names[0]},happiness\n{names[1]},fear\n"
