"""Reading and writing studies: YAML or JSON, with every problem at once, each with its path and the nearest name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetrial import catalog
from finetrial.errors import SpecError, UserError, unknown
from finetrial.spec.arm import ARM_NAME
from finetrial.spec.plain import from_json, from_yaml
from finetrial.spec.study import Study
from finetrial.spec.uses import NAME

_LISTS = {"seeds": "how many, or a list such as [0, 1, 2]", "learning_rates": "a list such as [3e-4, 1e-3]",
          "bases": "a list such as [tiny-gpt]", "plugins": "a list such as [./my_method.py]"}
_DATA = (".csv", ".jsonl", ".txt", ".parquet", ".gz")  # endings of data, which no study has
_KINDS = {"int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
          "float_type": "a number", "float_parsing": "a number", "string_type": "a text", "dict_type": "keys with values",
          "mapping_type": "keys with values"}
_NAMES = {NAME: "letters, digits, '.', '_' and '-', the first a letter or digit",
          ARM_NAME: "small letters, digits, '.', '+' and '-' (no '_'), the first a letter or digit"}


def read_study(path: Path, relative_to: Path | None = None) -> Study:
    """A study from a `.yaml`, `.yml` or `.json` file. Plug-ins it names are registered first, relative to the file, or
    to `relative_to` where the file is a copy.

    Raises SpecError with all problems, or UserError where the file cannot be read at all.
    """
    if path.suffix in _DATA and path.is_file():
        raise UserError(f"{path} is a file of data, and a study is asked for here",
                        f"compare ways to learn it (finetrial compare --model MODEL --learn {path}), or name it as the `path` of a "
                        "task in a study (docs/first-study.md)")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"study file {path} does not exist", "write one, or run a built-in study: finetrial studies") \
            from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"study file {path} cannot be read: {error}", "it must be a UTF-8 text file") from error
    try:
        content = from_json(text) if path.suffix == ".json" else from_yaml(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise UserError(f"study file {path} is not valid {path.suffix[1:].upper() or 'YAML'}: {error}",
                        "mend the line named above") from error
    except UserError as error:
        raise UserError(f"study file {path}: {error.problem}", error.mend) from None
    if not isinstance(content, Mapping):
        raise UserError(f"study file {path} holds a {type(content).__name__}, not keys and values",
                        "start from a built-in study: finetrial show perplexity")
    return parse_study(content, str(path), plugins_in=relative_to or path.parent)


def _plugins(written: Any) -> list[str]:
    """The files that a study names: one, or a list. What is neither is told when the study is parsed."""
    items = written if isinstance(written, (list, tuple)) else [written]
    return [item for item in items if isinstance(item, str)]


def parse_study(content: Mapping[str, Any], source: str, *, plugins_in: Path | None = None) -> Study:
    """A study from plain data; `source` is what the error calls it. With a folder, the plug-ins that it names there are
    registered first."""
    if plugins_in is not None:
        catalog.add_files(plugins_in / plugin for plugin in _plugins(content.get("plugins")))
    try:
        return Study(**{str(key): value for key, value in content.items()})
    except SpecError as error:
        raise SpecError(source, error.problems) from None


def spec_error(source: str, error: ValidationError, content: Mapping[str, Any] | None = None) -> SpecError:
    """Every problem of a study, or of a part of one, in words; `source` is what the error calls it. Items of lists in the
    `content` that was read go by their `name`, where they have one."""
    return SpecError(source, dict.fromkeys(_explain(detail, content) for detail in _own_problems(error.errors())))


def study_yaml(study: Study) -> str:
    """The resolved study as YAML, options at their default omitted; `read_study` reads it back to an equal study."""
    return yaml.safe_dump(study.identity(), sort_keys=False, allow_unicode=True, width=110)


def set_value(content: dict[str, Any], assignment: str) -> None:
    """Apply one `--set path.to.key=value` to a study's plain data. List items go by index or by their `name`."""
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UserError(f"--set {assignment!r} is not key=value", "for example: --set training.batch_sequences=16")
    *parents, last = path.split(".")
    target: Any = content
    for step in parents:
        target = _descend(target, step, path)
    value = _value(assignment, text)
    if isinstance(target, list):
        target[_index(target, last, path)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise UserError(f"--set {path}: {last!r} lies inside a plain value", "name a key that holds keys")


def _value(assignment: str, text: str) -> Any:
    try:
        return from_yaml(text)
    except UserError as error:
        raise UserError(f"--set {assignment}: {error.problem}", error.mend) from None


def _descend(target: Any, step: str, path: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, step, path)]
    if isinstance(target, dict):
        return target.setdefault(step, {})
    raise UserError(f"--set {path}: {step!r} lies inside a plain value", "name a key that holds keys")


def _index(items: list[Any], step: str, path: str) -> int:
    names = [item.get("name", "") if isinstance(item, dict) else str(item) for item in items]
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    if step in names:
        return names.index(step)
    raise UserError(f"--set {path}: " + unknown("item", step, names))


def _own_problems(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without those that only follow from another: a list whose every item is wrong also counts as too short."""
    places = [detail["loc"] for detail in details]
    return [detail for detail in details if detail["type"] != "too_short"
            or not any(len(place) > len(detail["loc"]) and place[:len(detail["loc"])] == detail["loc"]
                       for place in places)]


def _explain(detail: ErrorDetails, content: Mapping[str, Any] | None) -> str:
    """One problem for people: path, value, what was expected, the nearest name."""
    path = ".".join(_named(detail["loc"], content))
    if detail["type"] == "extra_forbidden":
        valid = _fields_at(detail["loc"][:-1])
        return f"{path}: " + unknown("key", str(detail["loc"][-1]), valid)
    if detail["type"] == "model_type":
        return f"{path}: {detail['input']!r} is a plain value; expected keys: {', '.join(_fields_at(detail['loc']))}"
    if detail["type"] == "missing":
        return f"{path}: missing, and needed"
    expected = _expected(detail)
    message = expected or detail["msg"].removeprefix("Value error, ")
    value = detail["input"]
    shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else ""
    if shown and (expected or not isinstance(value, str) or shown not in message):
        return f"{path}: {shown}: {message}" if path else f"{shown}: {message}"
    return f"{path}: {message}" if path else message


def _expected(detail: ErrorDetails) -> str:
    """What is expected in the place of a value of the wrong kind; empty where the kind is right."""
    if detail["type"] in ("tuple_type", "list_type"):
        field = next((str(step) for step in reversed(detail["loc"]) if step in _LISTS), "")
        return f"expected {_LISTS.get(field, 'a list, written [first, second]')}"
    if detail["type"] == "string_pattern_mismatch":
        return f"expected {_NAMES.get(detail['ctx']['pattern'], detail['ctx']['pattern'])}"
    kind = _KINDS.get(detail["type"])
    return f"expected {kind}" if kind else ""


def _named(path: tuple[int | str, ...], content: Any) -> Iterator[str]:
    """The steps of a path, those into lists by the item's name, as `--set` takes them."""
    for step in path:
        try:
            content = content[step]
        except (LookupError, TypeError):
            content = None
        name = content.get("name") if isinstance(step, int) and isinstance(content, Mapping) else None
        yield name if isinstance(name, str) and name else str(step)


def _fields_at(path: tuple[int | str, ...]) -> list[str]:
    """The keys that are valid at a path of the study."""
    model: Any = Study
    for step in path:
        if isinstance(step, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        info = model.model_fields.get(step)
        model = _model_in(info.annotation) if info is not None else None
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    """The first model class inside an annotation such as `tuple[Arm, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part)) is not None), None)
