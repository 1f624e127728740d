"""`--arms full,lora:r=8,lora:r=32` as arms, with learning rates for the size of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetrial.errors import UserError
from finetrial.methods.base import Method
from finetrial.plan.allocate import spread
from finetrial.spec import Arm, Component
from finetrial.spec.model import plugin_from

DEFAULT = "full,lora:r=8,lora:r=32"
SHORT = {"r": "rank"}  # option names as people write them
FULL_CENTRES = ((20e6, 3e-4), (2e8, 1e-4), (2e9, 3e-5))  # (up to so many parameters, centre of the grid)
LARGE_CENTRE = 1e-5
ADAPTER_FACTOR = 10.0  # Biderman et al. 2024; Schulman et al. 2025


def parse_arms(text: str) -> dict[str, Method]:
    """Methods by arm name: `lora:r=8` becomes `lora-r8`. Raises UserError for what is no method."""
    methods: dict[str, Method] = {}
    for written in _separate(text):
        try:
            method = plugin_from("method", _long_names(written))
        except ValueError as error:
            raise UserError(f"--arms: {written!r}: {error}", f"for example --arms {DEFAULT}") from error
        name = _name(written)
        if name in methods:
            raise UserError(f"--arms: {written!r} is given twice", f"for example --arms {DEFAULT}")
        methods[name] = method
    if len(methods) < 2:
        raise UserError(f"--arms {text!r} names {len(methods)} arm; a comparison needs at least two",
                        f"for example --arms {DEFAULT}")
    return methods


def make_arms(methods: Mapping[str, Method], config: Mapping[str, Any], parameters: int | None,
              rates: int) -> tuple[Arm, ...]:
    """Arms with `rates` learning rates each, around the method's centre for a model of so many parameters."""
    return tuple(Arm(name=name, label=_label(name, method), components={"*": (Component(method=method),)},
                     learning_rates=spread(centre(method, parameters), rates)) for name, method in methods.items())


def centre(method: Method, parameters: int | None) -> float:
    """The middle of the grid: lower for larger models, ten times higher where the base is frozen."""
    full = next((rate for limit, rate in FULL_CENTRES if (parameters or 0) <= limit), LARGE_CENTRE)
    return full if method.kind in ("full", "unfreeze") else ADAPTER_FACTOR * full


def fitting(methods: Mapping[str, Method], config: Mapping[str, Any], asked: bool) -> dict[str, Method]:
    """The methods that the model can take. One that was asked for and does not fit is an error; a default is left."""
    kept = {}
    for name, method in methods.items():
        try:
            method.count_trainable(config)
        except UserError:
            if asked:
                raise
            continue
        kept[name] = method
    return kept


def _separate(text: str) -> list[str]:
    """Arms are separated by commas, and so are the options of one: a part with `=` and no `:` belongs to the last."""
    arms: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if arms and "=" in part and ":" not in part:
            arms[-1] += f",{part}"
        else:
            arms.append(part)
    return arms


def _name(written: str) -> str:
    """`lora:r=32,targets=all-linear,alpha=16` -> `lora-r32-all-linear-alpha16`."""
    kind, _, rest = written.partition(":")
    options = (part.partition("=") for part in rest.split(",") if part)
    parts = [kind, *(value if value[:1].isalpha() else option + value for option, _, value in options)]
    return "-".join(parts).replace("_", "-").lower()


def _long_names(written: str) -> str:
    name, colon, rest = written.partition(":")
    options = [f"{SHORT.get(option, option)}={value}" if equals else option
               for option, equals, value in (part.partition("=") for part in rest.split(",") if part)]
    return f"{name}{colon}{','.join(options)}"


def _label(name: str, method: Method) -> str:
    if method.kind == "full":
        return "full fine-tuning"
    options = ", ".join(f"{option}={value}" for option, value in method.model_dump(exclude_defaults=True).items())
    shown = {"lora": "LoRA"}.get(method.kind, method.kind)
    return f"{shown} {options.replace('rank=', 'r=')}".strip() if options else f"{shown} r={getattr(method, 'rank', '')}"
