"""The documents say what the code does: links, paths, commands and settings, checked against the source."""

import importlib.util
import re
import shlex
from functools import cache
from itertools import pairwise

import pytest
import typer
import yaml
from documents import PAGES, ROOT, blocks, prose, rows, spans, text_of, tracked

from pipeline.cli import app
from pipeline.config import Settings, load_settings, setting_names

PAGE = pytest.mark.parametrize("page", PAGES)
WORKED_EXAMPLE = re.compile("resnet18|enterface")  # what CONTRIBUTING.md's examples write, in a copy of the project


def code_lines() -> list[tuple[str, str]]:
    """(page, command): every line of a block in no language, and every span of code."""
    found = []
    for page in PAGES:
        lines = [line for language, code in blocks(page) if language in ("", "sh") for line in code.splitlines()]
        found += [(page, line.split(" #")[0].strip()) for line in [*lines, *spans(page)]]
    return found


# --- links and paths ---


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@PAGE
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), f"{page}: no {target}"
        assert ROOT in [there.resolve(), *there.resolve().parents], f"{page}: {target} leaves the repository"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.M)
            assert anchor in map(slug, headings), f"{page}: {there.name} has no heading for #{anchor}"


@PAGE
def test_paths_named_in_the_text_exist(page):
    rooms = "|".join({name.split("/")[0] for name in tracked() if "/" in name})
    for span in spans(page):
        if re.fullmatch(rf"\.?/?({rooms})/[\w./-]*", span) and not WORKED_EXAMPLE.search(span):
            assert (ROOT / span).exists(), f"{page}: no {span}"


def test_the_index_names_every_page():
    index = text_of("docs/README.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"]({page.removeprefix('docs/')})" in index, f"docs/README.md leaves out {page}"


def test_the_readmes_tree_has_a_line_for_everything_at_the_top():
    tree = blocks("README.md")[-1][1]
    told = [line.split()[0] for line in tree.splitlines()]
    there = {name.split("/")[0] + "/" * ("/" in name) for name in tracked()} - {".gitignore", "README.md"}
    assert sorted(told) == sorted(there)


def test_the_readme_is_in_order():
    told = re.findall(r"^## (.+)$", text_of("README.md"), re.M)
    assert told == [
        *("Two commands", "On your own clips", "On CMU-MOSI", "On cached features"),
        *("In Python", "Results", "How it works", "The tree"),
    ]


@PAGE
def test_no_path_of_a_machine_and_no_address_but_https(page):
    assert not re.search(r"/(root|work|tmp|home)/|http://|file://", text_of(page))


# --- commands ---


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


@cache
def make_variables() -> set[str]:
    return set(re.findall(r"\$\(([A-Z]+)\)", (ROOT / "Makefile").read_text()))


def make_commands() -> list[tuple[str, str]]:
    return [(page, line) for page, line in code_lines() if re.match(r"make( |$)", line)]


def test_every_make_target_and_variable_exists():
    commands = make_commands()
    assert len(commands) > 20
    for page, line in commands:
        for word in shlex.split(line)[1:]:
            name, is_variable, value = word.partition("=")
            if is_variable and name.isupper():
                assert name in make_variables(), f"{page}: {line}: no variable {name}"
                if name == "CONFIG" and value and not WORKED_EXAMPLE.search(value):
                    assert (ROOT / value).is_file(), f"{page}: {line}: no {value}"
                if name == "SET":
                    load_settings(None, value.split())
            elif word.strip(".") and not word.startswith("-") and word != "|":
                assert word in make_targets(), f"{page}: {line}: no target {word}"


@cache
def stages() -> dict[str, set[str]]:
    """Stage -> its options."""
    commands = typer.main.get_command(app).commands
    return {
        name: {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        for name, command in commands.items()
    }


def test_every_stage_and_option_exists():
    commands = [(page, line) for page, line in code_lines() if "python -m pipeline" in line]
    assert commands
    for page, line in commands:
        stage, *words = shlex.split(line.split("-m pipeline", 1)[1]) or [""]
        if not stage or stage.isupper():
            continue
        assert stage in stages(), f"{page}: {line}: no stage {stage}"
        for word in words:
            if word.startswith("-"):
                assert word.split("=")[0] in stages()[stage], f"{page}: {line}: {stage} has no {word}"
        overrides = [value for option, value in pairwise(words) if option == "--set"]
        if "a.b=c" not in overrides:
            load_settings(None, overrides)


def test_every_option_named_in_the_text_exists():
    known = (
        set().union(*stages().values()) | {"--help", "--config", "--local-dir"} | {"--max-restarts", "--nproc-per-node"}
    )
    for page, line in code_lines():
        for option in re.findall(r"^--[a-z-]+", line):
            assert option in known, f"{page}: `{line}`"


def test_every_stage_has_its_place_in_the_readme_or_the_docs():
    told = "".join(text_of(page) for page in PAGES if page != "CHANGELOG.md")
    for stage in stages():
        assert f"`{stage}`" in told or f"python -m pipeline {stage}" in told, f"{stage} is in no document"


# --- settings ---


def settings_reference():
    path = ROOT / "docs/settings_reference.py"
    spec = importlib.util.spec_from_file_location("settings_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_settings_page_is_what_the_models_say():
    assert text_of("docs/settings.md") == settings_reference().page(), "run `make docs`"


def test_the_settings_page_has_every_setting_with_its_default():
    table = {cells[0]: cells[1] for cells in rows("docs/settings.md")}
    names = list(setting_names(Settings))
    leaves = {name for name in names if not any(other.startswith(f"{name}.") for other in names)}
    assert {f"`{name}`" for name in leaves} <= table.keys()
    assert table["`extract.visual.frames_per_clip`"] == "`8`"
    assert table["`train.divergence_weight`"] == "`0.001`"
    assert table["`train.early_stop`"] == "`false`"
    assert table["`workdir`"] == "`null`"


def test_every_setting_named_in_the_text_exists():
    known = set(setting_names(Settings))
    sections = "|".join(name for name in known if any(other.startswith(f"{name}.") for other in known))
    n_found = 0
    for page in PAGES:
        for span in spans(page):
            found = re.fullmatch(rf"((?:{sections})\.[a-z_.]+)(?:=(.+))?", span)
            if found and not span.endswith((".py", ".yaml")):
                n_found += 1
                assert found[1] in known, f"{page}: no setting {found[1]}"
                if found[2]:
                    load_settings(None, [span])
    assert n_found > 50


@PAGE
def test_settings_in_yaml_are_valid(page):
    for language, code in blocks(page):
        if language == "yaml":
            Settings.model_validate(yaml.safe_load(code))
