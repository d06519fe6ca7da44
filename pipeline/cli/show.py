"""How status and doctor look on a terminal, and what is left of them when it is quiet."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipeline import console

if TYPE_CHECKING:
    from pipeline.doctor import Check
    from pipeline.status import Status

_COLOURS = {
    **{"done": "green", "to do": "yellow", "waits": "dim", "not used": "dim"},
    **{"ok": "green", "note": "dim", "warning": "yellow", "problem": "bold red"},
}


def status(found: "Status", again: Callable[[str], str]) -> None:
    """A table of the stages, one of the embeddings, and what comes next.

    Args:
        again: the command line of a stage with the settings at hand.
    """
    console.say(f"{found.name}: workdir {found.workdir}")
    console.say(f"{' ' * len(found.name)}  results {found.results}")
    grid = Table()
    for name in ("stage", "state", "has", "would now"):
        grid.add_column(name, overflow="fold")
    for stage in found.stages:
        grid.add_row(stage.stage, Text(stage.state, style=_COLOURS[stage.state]), stage.has, stage.would)
    console.show(grid)
    if found.modalities:
        columns = ("embeddings", "done", "failed", "pending", "clips", "recipe")
        rows = [(m.extractor, m.done, m.failed, m.pending, m.clips, m.fingerprint or "-") for m in found.modalities]
        console.table("", columns, rows)
    for one in found.modalities:
        if one.trained is False:
            console.say(f"{one.modality}: its encoder has RANDOM weights (untrained)")
    waits = next((stage for stage in found.stages if stage.state == "waits"), None)
    if found.next:
        console.say(f"next: {again(found.next)}")
    else:
        console.say(f"next: {waits.stage}, but {waits.would}" if waits else "next: nothing, all is done")


def status_lines(values: Mapping[str, Any]) -> list[str]:
    stages = [f"{one['stage']}: {one['state']}" for one in values["stages"]]
    return [*stages, f"next: {values['next'] or 'nothing'}"]


def check(found: "Check") -> None:
    """A line as soon as it is known; what to do stands below."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=7, style=_COLOURS[found.state])
    grid.add_column(width=14)
    grid.add_column(overflow="fold")
    grid.add_row(found.state, found.name, found.found)
    if found.todo:
        grid.add_row("", "", Text(f"-> {found.todo}", style="bold" if found.state in ("warning", "problem") else ""))
    console.show(grid)


def verdict(checks: Sequence["Check"]) -> tuple[int, str]:
    """The exit code, and what it means: 0 all is there, 1 something to look at, 2 a stage cannot run."""
    n_problems, n_warnings = (sum(check.state == state for check in checks) for state in ("problem", "warning"))
    if n_problems:
        told = (2, f"doctor: {n_problems} of these stop a stage; the arrows say what to do")
    elif n_warnings:
        told = (1, f"doctor: every stage can run; {n_warnings} of these deserve a look")
    else:
        told = (0, "doctor: every stage can run")
    console.say(told[1])
    return told


def doctor_lines(values: Mapping[str, Any]) -> list[str]:
    """What is wrong, and the verdict."""
    wrong = [one for one in values["checks"] if one["state"] in ("warning", "problem")]
    return [f"{one['state']}: {one['name']}: {one['found']} -> {one['todo']}" for one in wrong] + [values["verdict"]]
