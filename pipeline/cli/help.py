"""`--help` of a stage with every setting that it uses, and a hint to the nearest where a word is mistyped."""

import difflib
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import CompletionItem, TyperCommand, TyperGroup

from pipeline.cli.settings_help import Setting, all_settings, section_descriptions
from pipeline.errors import PipelineError

_PLACES = ("name", "workdir")
# Stage -> the settings and sections that it uses.
USES: dict[str, tuple[str, ...]] = {
    "prepare": (*_PLACES, "corpus"),
    "transcribe": (*_PLACES, "corpus", "transcribe"),
    "pretrain-audio": (*_PLACES, "corpus", "pretrain"),
    "extract": (*_PLACES, "corpus", "extract", "pretrain", "engine"),
    "compact": (*_PLACES, "extract"),
    "reduce": (*_PLACES, "reduce"),
    "train": (*_PLACES, "out", "views", "labels", "train"),
    "evaluate": (*_PLACES, "out", "views", "labels"),
    "report": (*_PLACES, "out", "views"),
    "predict": ("extract", "engine"),
    "run": (*_PLACES, "out", "labels", "corpus", "pretrain", "extract", "reduce", "train", "engine"),
    "export": (*_PLACES, "out", "views", "labels"),
}
# Stage -> whose settings it must be given too, though it does nothing with them but find its input.
_ALSO = {
    "pretrain-audio": "extract",
    "reduce": "extract",
    "train": "extract and reduce",
    "export": "extract and reduce",
    "status": "run",
}


class StageCommand(TyperCommand):
    """A command whose help ends with its settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        for panel in _panels(str(self.name)):
            Console().print(panel)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)
            if not hasattr(error, "possibilities"):  # click's own class for it is not for others to import
                raise
            known = [name for param in self.params for name in param.opts]
            raise PipelineError(f"{self.name} has no option {option!r}; {_hint(str(option), known)}") from None

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        # bash gives `--set a.b=c` as three words. What is asked for is c where the last `=` is the last word, or is the
        # one that is asked about and not among them.
        settings = ctx.params.get("set_") or [""]
        at_value = ctx.args[-1:] == ["="] or ctx.args.count("=") < len(settings)
        words = [word for one in all_settings() if at_value and one.key == settings[-1] for word in one.words]
        fitting = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        return fitting or super().shell_complete(ctx, incomplete)


class StageGroup(TyperGroup):
    """The stages; a mistyped one is told the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands and not ctx.resilient_parsing:
            raise PipelineError(f"no such stage {args[0]!r}; {_hint(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


def _hint(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _panels(stage: str) -> list[Panel | Text]:
    """A panel a section, and a line on what else counts."""
    uses = USES.get(stage, ())
    shown = [setting for setting in all_settings() if _is_used(setting, uses)]
    described = section_descriptions()
    panels: list[Panel | Text] = []
    if shown:
        panels.append(Text(" Settings and their defaults: in the YAML file, or each by --set NAME=VALUE\n"))
    for section in dict.fromkeys(setting.section for setting in shown):
        rows = [setting for setting in shown if setting.section == section]
        panels.append(_panel(section, described[section] if section else "", rows))
    if stage in _ALSO:
        panels.append(Text(f" The settings of {_ALSO[stage]} count here too: they say what is read.\n"))
    return panels


def _is_used(setting: Setting, uses: Iterable[str]) -> bool:
    return any(setting.key == name or setting.key.startswith(f"{name}.") for name in uses)


def _panel(section: str, description: str, rows: Iterable[Setting]) -> Panel:
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column(style="yellow", overflow="fold")
    grid.add_column()
    for row in rows:
        meaning = Text(row.description)
        values = row.values.removesuffix(" | null") if row.default == "null" else row.values
        if values not in ("text", "path", "true | false"):
            meaning.append(f"  [{values}]", style="dim")
        grid.add_row(row.name, row.default, meaning)
    table = Table.grid()
    if description:
        table.add_row(Text(description, style="italic"))
    table.add_row(grid)
    title = f"{section}.*" if section else "Where"
    return Panel(table, title=title, title_align="left", border_style="dim")
