"""Writes docs/settings.md from the models in pipeline/config.py, so that the page cannot say what the code does not do.

Run by `make docs`; tests/test_docs.py fails where the page is not what this gives.
"""

import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extractors import registry
from extractors.batching import DEVICES, PRECISIONS
from pipeline.config import MODALITIES, Settings
from pipeline.corpora import READERS
from pipeline.corpora.label_rules import LABEL_RULES
from pipeline.files import write_atomic
from tib.config import OWN_DEFAULTS

PAGE = Path(__file__).with_name("settings.md")
_HEAD = """\
# Settings

Written by `make docs` from the models in `pipeline/config.py`: change them there, not here.

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
_KINDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
# Words whose list is kept elsewhere in the code than in the models.
_WORDS = {
    "corpus.kind": list(READERS),
    "corpus.label_rule": list(LABEL_RULES),
    **{f"extract.{modality}.backbone": registry.known(modality) for modality in MODALITIES},
    **{f"extract.{modality}.device": DEVICES for modality in MODALITIES},
    **{f"extract.{modality}.precision": PRECISIONS for modality in MODALITIES},
}


def page() -> str:
    """The whole page, Markdown."""
    schema = Settings.model_json_schema()
    parts = [_HEAD, *_sections(schema, schema["$defs"]), _objectives(), _layouts()]
    return "\n".join(parts)


def _sections(model: dict[str, Any], models: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A heading, what the section is for and a table of its settings; then the same of the sections in it."""
    inner, rows = {}, []
    for name, field in model["properties"].items():
        choices = field.get("anyOf", [field])
        section = next((choice["$ref"].rsplit("/", 1)[-1] for choice in choices if "$ref" in choice), None)
        if section:
            inner[f"{prefix}{name}"] = models[section]
        else:
            setting = prefix + name
            cells = (f"`{setting}`", _default(field["default"]), _values(setting, choices), _cell(field["description"]))
            rows.append(f"| {' | '.join(cells)} |")
    yield f"## {prefix.removesuffix('.') or 'Top level'}\n\n{_cell(' '.join(model['description'].split()))}\n"
    if rows:
        yield "| Setting | Default | Values | What it is |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    for name, section_model in inner.items():
        yield from _sections(section_model, models, f"{name}.")


def _default(value: Any) -> str:
    """As YAML has it: null, true, 7, words."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _values(setting: str, choices: list[dict[str, Any]]) -> str:
    if setting in _WORDS:
        choices = [{"enum": _WORDS[setting]}, *(choice for choice in choices if choice["type"] == "null")]
    return " or ".join(_value(choice) for choice in choices)


def _value(choice: dict[str, Any]) -> str:
    if "enum" in choice:
        return ", ".join(f"`{word}`" for word in choice["enum"])
    if choice["type"] == "null":
        return "`null`"
    kind = "path" if choice.get("format") == "path" else _KINDS[choice["type"]]
    limits = " and ".join(f"{sign} {choice[limit]}" for limit, sign in _LIMITS.items() if limit in choice)
    return f"{kind} {limits}".strip()


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    for sign in "\\|<*":
        text = text.replace(sign, f"\\{sign}")
    return text


def _objectives() -> str:
    """What null stands for where the objectives differ."""
    rows = [
        f"| `train.{name}` | {' | '.join(str(defaults.get(name, 'see above')) for defaults in OWN_DEFAULTS.values())} |"
        for name in dict.fromkeys(name for defaults in OWN_DEFAULTS.values() for name in defaults)
    ]
    names = " | ".join(f"`{objective}`" for objective in OWN_DEFAULTS)
    head = f"## What null stands for in train\n\n| Setting | {names} |\n|---|{'---|' * len(OWN_DEFAULTS)}\n"
    return head + "\n".join(rows) + "\n"


def _layouts() -> str:
    """Which corpus settings a layout knows, with what it takes where they are null; asked of the readers themselves."""
    known = {}
    for kind, where in READERS.items():
        module, function = where.split(":")
        parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
        known[kind] = {name: p.default for name, p in parameters.items() if name != "root"}
    names = [name for name in Settings().corpus.model_dump() if any(name in own for own in known.values())]
    rows = [
        f"| `corpus.{name}` | {' | '.join(_default(own[name]) if name in own else '' for own in known.values())} |"
        for name in names
    ]
    head = (
        "## What null stands for in corpus\n\nEach layout knows some of the settings, and has a default of its own for "
        "each; it refuses the others. The layouts: [data-layouts.md](data-layouts.md).\n\n"
        f"| Setting | {' | '.join(f'`{kind}`' for kind in known)} |\n|---|{'---|' * len(known)}\n"
    )
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(f"docs: {'wrote' if write_atomic(PAGE, page()) else 'nothing to do: up to date:'} docs/{PAGE.name}")
