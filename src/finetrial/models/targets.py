"""Which matrix layers a method adapts, as a study writes it: by part, or by the endings of their paths. No torch here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from finetrial.errors import ModelError, unknown
from finetrial.models.shapes import architecture, matching

PARTS = ("attention", "all-linear")


def _one_or_several(value: object) -> object:
    if not isinstance(value, str) or value in PARTS:
        return value
    if "." not in value and difflib.get_close_matches(value, PARTS, cutoff=0.8):
        raise ValueError(unknown("targets", value, PARTS))
    return (value,)


Targets = Annotated[Literal["attention", "all-linear"] | tuple[str, ...], BeforeValidator(_one_or_several)]  # one name, too


def patterns(targets: Targets, model_type: str, layers: Iterable[str]) -> list[str]:
    """Endings of paths, as peft takes them: the attention projections, every linear layer but the head, or as given."""
    if targets == "attention":
        return list(architecture(model_type).attention)
    if targets == "all-linear":
        return sorted({name.rpartition(".")[2] for name in layers})
    return list(targets)


def chosen(targets: Targets, model_type: str, layers: Mapping[str, Any], method: str) -> list[str]:
    """The layers that `targets` names. Raises ModelError for a name that matches none of `layers`."""
    found = set()
    for target in patterns(targets, model_type, layers):
        matched = matching(layers, target)
        if not matched:
            endings = {name.rpartition(".")[2] for name in layers}
            raise ModelError(f"{unknown(f'{method} target', target, endings | {*PARTS})}: no linear layer of this {model_type} "
                             "model has a path that ends so", "every name in `targets` must match a layer")
        found.update(matched)
    return sorted(found)
