"""Settings from a YAML file and `--set a.b=c`; unknown keys and wrong values are refused in words."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.settings import Settings
from pipeline.errors import PipelineError

MAX_CONFIG_BYTES = 1_000_000
_shown = reprlib.Repr()  # a value as a message shows it, whatever its size
_shown.maxstring = _shown.maxother = 100


def load_settings(config: Path | None, overrides: Iterable[str] = (), **shortcuts: Any) -> Settings:
    """Settings from a YAML file, then `a.b=c` overrides, then shortcuts that are not None.

    Args:
        config: YAML file, or None for the defaults alone.
        overrides: strings `dotted.key=value`; the value is read as YAML.
        shortcuts: dotted keys with `__` for the dot (`train__seed=3`); None means not given.
    Raises:
        PipelineError: no such file, not YAML, not a mapping, an unknown key (names the nearest), a wrong value.
    """
    values = _read_yaml(config) if config else {}
    if config:
        values.setdefault("name", config.stem)
    given = []
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise PipelineError(f"--set takes key=value, got {override!r}; e.g. --set train.n_clusters=7")
        try:
            value = _load_yaml(text)
        except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
            raise PipelineError(f"--set {key}: cannot read {text!r} as YAML ({_first_line(error)})") from None
        if "#" in text and (value is None or isinstance(value, str)) and text.lstrip()[:1] not in ("'", '"'):
            value = text.strip()  # YAML takes " #..." for a comment; here it is part of a folder's name
        given.append(key.strip())
        _put(values, given[-1], value)
    for name, value in shortcuts.items():
        if value is not None:
            given.append(name.replace("__", "."))
            _put(values, given[-1], value)
    try:
        return Settings.model_validate(values).with_own_audio().with_own_int8()
    except ValidationError as error:
        lines = _lines_of(config, given) if config else {}
        raise PipelineError("; ".join(_explain(error, lines))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES // 1000} kB; expected a page of settings")
        values = _load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"no such config file: {path}; the shipped ones are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"cannot read {path} as UTF-8 text: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise PipelineError(f"{path} is not YAML: {_first_line(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise PipelineError(f"{path}: expected settings as `key: value`, got a {type(values).__name__}")
    return values


class _PlainLoader(yaml.SafeLoader):
    """YAML's plain values alone. An alias (`*name`) is refused: a few lines of them stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="an alias (*), which settings do not take: write it out", problem_mark=mark
            )
        return super().compose_node(parent, index)


def _load_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        yaml.YAMLError, ValueError: it is none, holds an alias, or is nested deeper than anything that is meant.
    """
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ValueError("it is nested too deeply; expected settings as `key: value`") from None


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else problem


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = values.setdefault(section, {})
        if inner is None:  # a modality that the file switched off is switched on by setting one of its keys
            inner = values[section] = {}
        if not isinstance(inner, dict):
            above = ".".join(sections[: depth + 1])
            raise PipelineError(f"cannot set {key}: {above} is {_shown.repr(inner)}, not a group of settings")
        values = inner
    values[last] = value


def _lines_of(config: Path, given: Iterable[str]) -> dict[str, str]:
    """Key -> "file:line" of a YAML file's keys that no option of the command line has changed."""
    changed = {".".join(key.split(".")[:depth]) for key in given for depth in range(1, key.count(".") + 2)}

    def walk(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, str]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            yield f"{prefix}{key.value}", f"{config}:{key.start_mark.line + 1}"
            yield from walk(value, f"{prefix}{key.value}.")

    lines = dict(walk(yaml.compose(config.read_text(encoding="utf-8"), yaml.SafeLoader), ""))
    return {key: line for key, line in lines.items() if key not in changed}


def _explain(error: ValidationError, lines: Mapping[str, str]) -> Iterator[str]:
    known = list(setting_names(Settings))
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "the name of a setting"
        where = f"{lines[key]}: " if key in lines else ""
        if item["type"] == "extra_forbidden":
            yield f"{where}unknown setting {key!r}; {nearest(key, known)}"
        elif item["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            close = difflib.get_close_matches(_shown.repr(item["input"]).strip("'"), choices, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            yield f"{where}{key}: unknown value {_shown.repr(item['input'])}; known: {', '.join(choices)}{hint}"
        elif item["type"] == "value_error":
            yield f"{where}{key}: {item['ctx']['error']}"
        else:
            yield f"{where}{key}: {item['msg'][0].lower()}{item['msg'][1:]}, got {_shown.repr(item['input'])}"


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted setting name of a model, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from setting_names(kind, f"{prefix}{name}.")


def nearest(key: str, known: Iterable[str]) -> str:
    """'did you mean ...?' with the closest known names: by the whole name, then by its last part anywhere."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    last = key.rsplit(".", 1)[-1]
    if not close:
        by_last = {name.rsplit(".", 1)[-1]: name for name in known}
        close = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)]
    if close:
        return f"did you mean {close[0]!r}?"
    section = key.rsplit(".", 1)[0] + "." if "." in key else ""
    siblings = [n for n in known if n.startswith(section) and "." not in n[len(section) :]]
    return f"known here: {', '.join(sorted(siblings or known))}"
