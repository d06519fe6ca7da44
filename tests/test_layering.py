"""The rooms' rules, read from the source: imports point one way, and no label reaches training."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("extractors", "tib", "pipeline")
MAY_IMPORT = {"extractors": {"extractors"}, "tib": {"tib"}, "pipeline": {"pipeline", "extractors", "tib"}}
LABEL_LIKE = {"y", "y_true", "label", "labels", "labels_true", "target", "targets", "classes", "ground_truth"}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported_rooms(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names & set(ROOMS)


def label_like_parameters(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            found += [argument.arg for argument in every if argument and argument.arg.lower() in LABEL_LIKE]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    files = sources(room)
    assert files, f"no source in {room}/"
    for path in files:
        wrong = imported_rooms(path.read_text()) - MAY_IMPORT[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {room} may import {MAY_IMPORT[room]}"


def test_training_never_sees_a_label():
    for path in sources("tib"):
        found = label_like_parameters(path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: label-like parameters {found}"


def test_the_checks_see_what_they_look_for():
    assert imported_rooms("from pipeline.store import x\nimport tib.losses") == {"pipeline", "tib"}
    assert label_like_parameters("def fit(self, views, y=None): ...\nf = lambda labels: 0") == ["y", "labels"]
