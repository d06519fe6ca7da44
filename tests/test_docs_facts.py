"""The documents state facts that the code states too: encoders, layouts, messages, figures, the README's Python."""

import ast
import importlib
import re
import tomllib
from functools import cache

import numpy as np
import pytest
import yaml
from documents import ROOT, blocks, rows, section, text_of

from extractors import registry
from extractors.errors import CAUSES
from pipeline.config import load_settings
from pipeline.corpora import READERS
from pipeline.corpora.base import LOSING_KINDS, PROBLEM_KINDS
from pipeline.corpora.label_rules import LABEL_RULES
from pipeline.corpora.scan import MEDIA_SUFFIXES
from tib.config import OWN_DEFAULTS

ROOMS = ("benchmarks", "extractors", "pipeline", "tib")

# --- encoders, layouts ---


@pytest.mark.parametrize("name", registry.known())
def test_every_backbone_is_described_as_it_is(name):
    described = re.sub(r"\s+", " ", section("docs/encoders.md", name))
    module = importlib.import_module(registry._CLASSES[name].split(":")[0])
    overview = next(cells for cells in rows("docs/encoders.md") if cells[0].startswith(f"`{name}`"))
    assert overview[3] == f"`{module.__name__.replace('.', '/')}.py`"
    dim = getattr(registry.extractor_class(name), "dim", 768)
    assert str(dim) in overview[1]
    default = getattr(load_settings(None).extract, name.split("/")[0]).backbone == name
    assert ("(default)" in overview[0]) == default
    if published := getattr(module, "WEIGHTS", None):
        assert published.licence in described
        assert published.sha256_prefix is None or f"SHA-256 is {published.sha256_prefix}" in described
        assert published.url is None or published.url in described
        assert (published.url is None) == ("no `hub`" in described)


def test_the_layouts_page_has_every_layout_rule_and_suffix():
    page = text_of("docs/data-layouts.md")
    assert all(f"\n### {kind}\n" in page for kind in READERS)
    assert {cells[0].strip("`") for cells in rows("docs/data-layouts.md")} >= set(LABEL_RULES)
    raw = re.sub(r"\s+", " ", page)
    assert ", ".join(suffix[1:] for suffix in MEDIA_SUFFIXES[:-1]) + f" or {MEDIA_SUFFIXES[-1][1:]}" in raw


# --- messages ---


@cache
def templates() -> str:
    """Every text in the source with a mark where a value goes in, a line each; and the Makefile."""
    found = [(ROOT / "Makefile").read_text()]
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value.replace("\n", " "))
                elif isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(parts).replace("\n", " "))
    return "\n".join(found)


def messages() -> list[str]:
    """What the troubleshooting page quotes: the column Message."""
    quoted, column = [], None
    for cells in rows("docs/troubleshooting.md"):
        if "Cause" in cells or "Exit code" in cells or "Problem" in cells:
            column = cells.index("Message") if "Message" in cells else None
        elif column is not None and cells[column].startswith("`"):
            quoted.append(cells[column].strip("`"))
    return quoted


@pytest.mark.parametrize("message", messages())
def test_a_quoted_message_is_in_the_source(message):
    fixed = [re.escape(part.strip()) for part in message.split("...") if part.strip(" ;:.,()")]
    assert fixed
    assert re.search("[^\n]*".join(fixed), templates()), f"no text in the source reads {message!r}"


def test_the_messages_are_many_and_the_search_can_fail():
    assert len(messages()) > 80
    assert not re.search(re.escape("unknown setting") + "[^\n]*" + re.escape("please"), templates())


def test_every_cause_and_every_kind_of_problem_is_explained():
    first = {cells[0].strip("`"): cells for cells in rows("docs/troubleshooting.md")}
    assert set(CAUSES) <= first.keys()
    assert set(PROBLEM_KINDS) <= first.keys()
    table = section("docs/troubleshooting.md", "Reading a corpus").split("| Problem |")[1]
    losing = set(re.findall(r"^\| `(\w+)` \|.*\| (?:not a clip|the first is kept) \|$", table, re.M))
    assert losing == set(LOSING_KINDS)


# --- what is shown ---


def test_the_readmes_figures_are_those_of_the_results():
    measured = {cells[0].split(" (")[0]: " ".join(cells).replace("*", "") for cells in rows("docs/results.md")}
    shown = [cells for cells in rows("README.md") if cells[0] in measured]
    assert len(shown) >= 4
    for cells in shown:
        for figure in cells[1:]:
            assert re.search(rf"(?<!\d){re.escape(figure)}(?! ±)", measured[cells[0]]), f"{cells[0]}: {figure}"
    for figure in re.findall(
        r"\.\d{3}(?: ± \.\d{3})?", re.sub(r"^\|.*$", "", section("README.md", "Results"), flags=re.M)
    ):
        assert figure in measured["mosi60, K=7"], figure


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    for name, value in {"restarts": 2, "epochs": 20}.items():  # to be quick
        monkeypatch.setitem(OWN_DEFAULTS["tib"], name, value)
    rng = np.random.default_rng(0)
    centres = np.repeat(np.arange(7), 6)
    views = {name: 5 * rng.normal(size=(7, 8))[centres] + rng.normal(size=(42, 8)) for name in ("t", "v", "a")}
    names = {f"X_{name}": view for name, view in views.items()}
    names["new_views"] = {"text": views["t"][:3], "visual": views["v"][:3]}
    codes = [code for language, code in blocks("README.md") if language == "python"]
    assert len(codes) == 2
    for code in codes:
        exec(code, names)  # noqa: S102
    assert names["assignments"].shape == (42,)
    assert names["search"].best_params_["n_clusters"] in (5, 6, 7)
    assert (tmp_path / "folder/model.safetensors").is_file()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
    assert all({"name"} == author.keys() for author in citation["authors"])
