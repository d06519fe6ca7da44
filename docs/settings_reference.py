"""Writes docs/settings.md from the models in pipeline/config/, so that the page cannot say what the code does not do.

Run by `make docs`; tests/test_docs.py fails where the page is not what this gives.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import yaml

from extractors import registry
from pipeline.cli.settings_help import Setting, all_settings, section_descriptions
from pipeline.config import MODALITIES, Settings
from pipeline.corpora import READERS
from pipeline.files import write_atomic

PAGE = Path(__file__).with_name("settings.md")
_HEAD = """\
# Settings

Written by `make docs` from the models in `pipeline/config/`: change them there, not here.

A setting is given in a YAML file (`--config`, the shipped ones are in `configs/`) or on the command line, which wins:

```yaml
corpus: {kind: folder}
train:
  n_clusters: 5
```

```
python -m pipeline run --config configs/folder.yaml --clips DIR --set train.n_clusters=5 --set extract.audio=null
make run CONFIG=configs/folder.yaml CLIPS=DIR SET="train.n_clusters=5 extract.audio=null"
```

The value after `=` is read as YAML, so `null`, `true` and `7` mean what they mean in the file. `null` is "not set". A
setting that does not exist is refused, and the message names the nearest one that does. Some settings have an option of
their own: `--clips` is `corpus.root`, `--clusters` is `train.n_clusters`, `--objective` is `train.objective`, `--seed`
is `train.seed`; `--views`, `--labels` and `--out` are the settings of the same names.
"""
# What the registries know and the models take as plain text.
_NAMES = {
    "corpus.kind": list(READERS),
    **{f"extract.{modality}.backbone": registry.known(modality) for modality in MODALITIES},
}


def page() -> str:
    """The whole page, Markdown."""
    return "\n".join([_HEAD, *_sections(), _layouts()])


def _sections() -> Iterator[str]:
    """Of each section a heading, what it is for and a table of its settings."""
    for section, description in section_descriptions().items():
        yield f"## {section or 'Top level'}\n\n{_cell(description)}\n"
        rows = [_row(setting) for setting in all_settings() if setting.section == section]
        yield "\n".join(["| Setting | Default | Values | What it is |", "|---|---|---|---|", *rows, ""])


def _row(setting: Setting) -> str:
    values = " | ".join(_NAMES.get(setting.key, [setting.values]))
    return f"| `{setting.key}` | `{setting.default}` | {_cell(values)} | {_cell(setting.description)} |"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    for sign in "\\|<*":
        text = text.replace(sign, f"\\{sign}")
    return text


def _layouts() -> str:
    """Which corpus settings a layout knows, with what it takes where they are null; asked of the readers themselves."""
    known = {}
    for kind, where in READERS.items():
        module, function = where.split(":")
        parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
        known[kind] = {name: p.default for name, p in parameters.items() if name != "root"}
    names = [name for name in Settings().corpus.model_dump() if any(name in own for own in known.values())]
    cells = {name: [f"`{_as_yaml(own[name])}`" if name in own else "" for own in known.values()] for name in names}
    rows = [f"| `corpus.{name}` | {' | '.join(row)} |" for name, row in cells.items()]
    head = (
        "## What null stands for in corpus\n\nEach layout knows some of the settings, and has a default of its own for "
        "each; it refuses the others. The layouts: [data-layouts.md](data-layouts.md).\n\n"
        f"| Setting | {' | '.join(f'`{kind}`' for kind in known)} |\n|---|{'---|' * len(known)}\n"
    )
    return head + "\n".join(rows) + "\n"


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(value).removesuffix("...\n").strip()


if __name__ == "__main__":
    print(f"docs: {'wrote' if write_atomic(PAGE, page()) else 'nothing to do: up to date:'} docs/{PAGE.name}")
