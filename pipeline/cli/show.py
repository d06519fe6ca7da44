"""How status and doctor look on a terminal, and what is left of them when it is quiet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipeline import console

if TYPE_CHECKING:
    from pipeline.compact import Compacted
    from pipeline.doctor import Check
    from pipeline.preflight import Preflight
    from pipeline.rerun import Comparison
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


def compact(done: "Mapping[str, Compacted]") -> None:
    """A line a modality."""
    for line in compact_lines({modality: asdict(one) for modality, one in done.items()}):
        console.say(line)


def compact_lines(values: Mapping[str, Any]) -> list[str]:
    return [
        f"compact: {modality}: {one['n_rows']} clips, {one['parts_before']} parts -> {one['parts_after']}"
        + (f", {one['n_dropped']} rows that have a newer one dropped" if one["n_dropped"] else "")
        for modality, one in values.items()
    ]


def rerun(found: "Comparison", folder: Path) -> None:
    """A table of both runs, what was different, and the verdict."""
    rows: list[tuple[str, ...]] = [("clips", *map(str, found.clips))]
    rows += [(name.upper(), *map(_score, both)) for name, both in found.scores.items() if any(both)]
    rows += [(f"{m} embeddings", "", _alike(same, "of one recipe")) for m, same in found.same_encoders.items()]
    rows.append(("what was clustered", "", _alike(found.same_views, "the same numbers")))
    console.table(f"rerun: {found.of}", ("", "then", "now"), rows)
    for name, ids in (("then", found.only_then), ("now", found.only_now)):
        if ids:
            console.say(f"rerun: {len(ids)} clips {name} alone: {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}")
    for one in found.different:
        console.say(f"rerun: different: {one.what}: {one.then} then, {one.now} now")
    if not found.different:
        told = "nothing that is recorded was different"
        ways = "" if found.identical else ": the run's files were changed, or this machine does not repeat itself"
        console.say(f"rerun: {told}{ways}")
    for line in rerun_lines(asdict(found)):
        console.say(line)
    console.say(f"rerun: wrote {folder}")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _alike(same: bool, what: str) -> str:
    return what if same else f"not {what}"


def rerun_lines(values: Mapping[str, Any]) -> list[str]:
    """The verdict."""
    if values["identical"]:
        return [f"rerun: the same: all {values['clips'][0]} clips are in the same clusters"]
    if values["share"] is None:
        return ["rerun: NOT the same: no clip is in both"]
    if values["share"] == 1 and not values["only_then"] and not values["only_now"]:
        return ["rerun: NOT the same: the same groups of clips, under other cluster numbers"]
    share = f"{values['share']:.1%} of the clips of both are in the same cluster, ARI {values['ari']:.3f}"
    return [f"rerun: NOT the same: {share}"]


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


def preflight(found: "Preflight") -> None:
    """What the corpus is, then a table of what deserves a look, a row a kind."""
    for one in found.checks():
        if one.state != "warning":
            check(one)
    if not found.findings:
        console.say("doctor: nothing in the clips deserves a look")
        return
    grid = Table()
    grid.add_column("found", no_wrap=True, style=_COLOURS["warning"])
    grid.add_column("times", justify="right")
    for name in ("e.g.", "what to do"):
        grid.add_column(name, overflow="fold")
    todo = {one.name: one.todo for one in found.checks()}
    for kind, findings in found.by_kind().items():
        example = console.printable(f"{findings[0].where}: {findings[0].message}")
        grid.add_row(kind, str(len(findings)), example, todo[kind])
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
