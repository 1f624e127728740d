"""`--arms full,lora:r=8,qlora:r=8` as arms, with learning rates for the size of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from finetrial.errors import MissingPackage, UserError
from finetrial.methods.base import Method
from finetrial.models.shapes import Quantization
from finetrial.plan.allocate import spread
from finetrial.spec import Arm, Component
from finetrial.spec.model import plugin_from

DEFAULT = "full,lora:r=8,lora:r=32"
QLORA = "qlora"  # lora on a base whose matrices are held in 4 bits
SHORT = {"r": "rank"}  # option names as people write them
FULL_CENTRES = ((20e6, 3e-4), (2e8, 1e-4), (2e9, 3e-5))  # (up to so many parameters, centre of the grid)
LARGE_CENTRE = 1e-5
ADAPTER_FACTOR = 10.0  # Biderman et al. 2024; Schulman et al. 2025


@dataclass(frozen=True)
class Way:
    """A way to adapt a model: a method, and how the base is held."""

    method: Method
    quantization: Quantization | None = None


def parse_arms(text: str) -> dict[str, Way]:
    """Ways by arm name: `lora:r=8` becomes `lora-r8`. Raises UserError for what is no method, MissingPackage without
    what QLoRA needs."""
    ways: dict[str, Way] = {}
    for written in _separate(text):
        quantization: Quantization | None = "nf4" if written.partition(":")[0] == QLORA else None
        if quantization and find_spec("bitsandbytes") is None:
            raise MissingPackage("bitsandbytes", "QLoRA", extra="qlora")
        try:
            method = plugin_from("method", _long_names(written.removeprefix("q") if quantization else written))
        except ValueError as error:
            raise UserError(f"--arms: {written!r}: {error}", f"for example --arms {DEFAULT}") from error
        name = _name(written)
        way = Way(method, quantization)
        if way in ways.values():
            raise UserError(f"--arms: {written!r} is given twice", f"for example --arms {DEFAULT}")
        while name in ways:  # two ways that are written in the same words
            name += "-2"
        ways[name] = way
    if len(ways) < 2:
        raise UserError(f"--arms {text!r} names {len(ways)} arm; a comparison needs at least two",
                        f"for example --arms {DEFAULT}")
    return ways


def make_arms(ways: Mapping[str, Way], parameters: int | None, rates: int) -> tuple[Arm, ...]:
    """Arms with `rates` learning rates each, around the method's centre for a model of so many parameters."""
    return tuple(Arm(name=name, label=_label(way), components={"*": (Component(method=way.method),)},
                     quantization=way.quantization, learning_rates=spread(centre(way.method, parameters), rates))
                 for name, way in ways.items())


def centre(method: Method, parameters: int | None) -> float:
    """The middle of the grid: lower for larger models, ten times higher where the base is frozen."""
    full = next((rate for limit, rate in FULL_CENTRES if (parameters or 0) <= limit), LARGE_CENTRE)
    return full if method.in_place else ADAPTER_FACTOR * full


def fitting(ways: Mapping[str, Way], config: Mapping[str, Any], asked: bool) -> dict[str, Way]:
    """The ways that the model can take. One that was asked for and does not fit is an error; a default is left."""
    kept = {}
    for name, way in ways.items():
        try:
            way.method.count_trainable(config)
        except UserError:
            if asked:
                raise
            continue
        kept[name] = way
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


def _label(way: Way) -> str:
    method = way.method
    if method.kind == "full":
        return "full fine-tuning"
    shown = "QLoRA" if way.quantization else {"lora": "LoRA"}.get(method.kind, method.kind)
    options = {"rank": rank} if (rank := getattr(method, "rank", None)) is not None else {}
    options |= method.model_dump(exclude_defaults=True)
    written = ", ".join(f"{'r' if option == 'rank' else option}={value:g}" if isinstance(value, float)
                        else f"{'r' if option == 'rank' else option}={value}" for option, value in options.items())
    return f"{shown} {written}".strip()
