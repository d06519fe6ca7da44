"""Every setting as a row of plain text, read from the models: for `--help` and for completion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.config import Settings

OPEN_KINDS = ("text", "path", "integer", "number", "array")  # of values, too many to list
LARGE = 10**9  # a limit above it is the machine's, and tells a person nothing


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        section: dotted name of its group, "extract.visual"; "" at the top.
        name: its own, "batch_size".
        default: as YAML writes it.
        values: what it takes: "integer >= 1 | null", "tib | reference", "text".
        description: its unit and what it does.
    """

    section: str
    name: str
    default: str
    values: str
    description: str

    @property
    def key(self) -> str:
        """The dotted name that --set takes."""
        return f"{self.section}.{self.name}".removeprefix(".")

    @property
    def words(self) -> list[str]:
        """The values that can be listed, the default among them."""
        listed = [value for value in self.values.split(" | ") if value.split()[0] not in OPEN_KINDS]
        return list(dict.fromkeys([self.default, *listed]))


def all_settings() -> list[Setting]:
    """Every setting: in the models' order, but a section after the settings beside it."""
    return _rows(Settings.model_json_schema(), "")


def section_descriptions() -> dict[str, str]:
    """Dotted name of a section -> what it is for, the first line of its model's docstring."""
    described: dict[str, str] = {}

    def walk(schema: Mapping[str, Any], prefix: str) -> None:
        described[prefix.removesuffix(".")] = schema["description"].splitlines()[0]
        for name, inner in schema["properties"].items():
            model = _model(inner, root)
            if model:
                walk(model, f"{prefix}{name}.")

    root = Settings.model_json_schema()
    walk(root, "")
    return described


def _rows(root: Mapping[str, Any], section: str, schema: Mapping[str, Any] | None = None) -> list[Setting]:
    """A section's own settings, then those of the sections in it."""
    own, inner = [], []
    for name, field in (schema or root)["properties"].items():
        model = _model(field, root)
        if model:
            inner += _rows(root, f"{section}.{name}".removeprefix("."), model)
        else:
            default, values = _as_yaml(field["default"]), _values(field)
            if default == "auto" and "auto" not in values:  # taken beside a number, which is all that the schema says
                values = f"auto | {values}"
            own.append(Setting(section, name, default, values, field["description"]))
    return own + inner


def _model(field: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a section, also of one that may be null; None for a plain setting."""
    for option in (field, *field.get("anyOf", ())):
        if "$ref" in option:
            model: Mapping[str, Any] = root["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return model
    return None


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, width=1000).removesuffix("...\n").strip()


def _values(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " | ".join(_values(option) for option in field["anyOf"])
    if "enum" in field:
        return " | ".join(field["enum"])
    kind: str = {"boolean": "true | false", "string": "text"}.get(field["type"], field["type"])
    if field.get("format") == "path":
        return "path"
    return kind + _limits(field)


def _limits(field: Mapping[str, Any]) -> str:
    least, above, most = (field.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if most is not None and most <= LARGE:
        return f" {least:g} to {most:g}"
    return f" >= {least:g}" if least is not None else f" > {above:g}" if above is not None else ""
