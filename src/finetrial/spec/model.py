"""The base of every specification: frozen, unknown keys refused, plug-ins written as `{kind: name, option: value}`.

A plug-in may also be written in one line: `lora`, or `lora:rank=8,alpha=16` (values are read as YAML scalars).
Fields at their default are omitted from identity, so that adding an option changes no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from finetrial import catalog
from finetrial.errors import UserError, unknown
from finetrial.settings import Settings

OF_PAIRS = ("chat", "messages", "conversation", "conversations", "pairs", "instruct", "sft")  # names that a task of pairs is looked for by
OF_PEFT = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "targets"}
_MEANT = {("task", name): "; a file of messages, or of prompts and completions, is of kind prompt-completion" for name in OF_PAIRS} | {
    ("method", "qlora"): "; QLoRA is the method lora, and `quantization: nf4` of the arm",
    ("method", "dora"): "; DoRA is {kind: peft, options: {r: 8, use_dora: true}}"}


class Frozen(Settings):
    """A frozen specification model."""

    def identity(self) -> dict[str, Any]:
        """JSON-like content without fields at their default."""
        dumped: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        return dumped


def plugin_from(kind: str, value: Any) -> Any:
    """A plug-in instance from an instance, `"name"`, `"name:option=value,..."` or `{"kind": name, ...}`.

    Raises ValueError (so that pydantic collects it with every other problem of the study).
    """
    if isinstance(value, BaseModel):
        return value
    if isinstance(value, str):
        value = _parse_line(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise ValueError(f"a {kind} is written as a name or as {{kind: name, ...}}, not {value!r}")
    options = {name: item for name, item in value.items() if name != "kind"}
    try:
        plugin = catalog.find(kind, value["kind"])
    except UserError as error:
        raise ValueError(f"{error}{_MEANT.get((kind, value['kind'].lower()), '')}") from error
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        raise ValueError(f"the {kind} {value['kind']!r} is not finished: its class lacks {', '.join(missing)}")
    try:
        return plugin(**options)
    except ValidationError as error:
        raise ValueError("; ".join(_option_problem(plugin, detail) for detail in error.errors())) from None


def plugin_of_spec(kind: str, written: Mapping[str, Any]) -> Any:
    """The plug-in that a stage's spec holds, with what tells its code (`catalog.code_of`).

    Raises UserError where a user's file is another one than the spec was written with.
    """
    plugin = plugin_from(kind, {name: value for name, value in written.items() if name not in catalog.CODE})
    check_code(kind, type(plugin), written)
    return plugin


def check_code(kind: str, plugin: type, written: Mapping[str, Any]) -> None:
    """Raise UserError where a user's file, or a package that computes for the plug-in, is another one than a stage's spec
    was written with."""
    if written.get(catalog.CODE_DIGEST, digest := catalog.code_digest(plugin)) != digest:
        raise UserError(f"the file of the {kind} {catalog.name_of(plugin)!r} has changed since the study was planned",
                        "run the study again: what the old one computed is kept apart")
    check_packages(written.get(catalog.PACKAGES, {}), f"the {kind} {catalog.name_of(plugin)!r}")


def check_packages(planned: Mapping[str, str], purpose: str) -> None:
    """Raise UserError where a package is installed in another version than a stage's spec was written with."""
    for package, version in planned.items():
        if version and (found := catalog.installed_version(package)) and found != version:
            raise UserError(f"{package} is {found} here, and the study was planned with {version} for {purpose}",
                            f"install {package}=={version} here, or run the study again")


def _option_problem(plugin: type[BaseModel], detail: Any) -> str:
    option, name = ".".join(str(part) for part in detail["loc"]), catalog.name_of(plugin)
    if detail["type"] == "extra_forbidden":
        ours = OF_PEFT.get(option, "")
        hint = f"; peft's {option!r} is {ours!r} here" if ours in plugin.model_fields else ""
        return unknown(f"option of {name}", option, plugin.model_fields) + hint
    message = detail["msg"].removeprefix("Value error, ")
    return f"option {option} of {name}: {message}" if option else f"{name}: {message}"


def plugin_identity(plugin: Any) -> dict[str, Any]:
    """`{"kind": name, ...}` with the options that differ from their default."""
    name = catalog.name_of(type(plugin))
    return {"kind": name, **plugin.model_dump(mode="json", exclude_defaults=True)}


def _parse_line(text: str) -> dict[str, Any]:
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        option, equals, item = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} in {text!r} is not option=value")
        try:
            options[option.strip()] = yaml.safe_load(item)
        except yaml.YAMLError:
            raise ValueError(f"{part!r} in {text!r} cannot be read; a list is written in the long form: "
                             f"{{kind: {name.strip()}, {option.strip()}: [...]}}") from None
    return {"kind": name.strip(), **options}
