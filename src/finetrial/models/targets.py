"""Which matrix layers a method adapts, as a study writes it: by part, or by the endings of their paths. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from finetrial.errors import ModelError, unknown
from finetrial.models.shapes import architecture, matching

Targets = Literal["attention", "all-linear"] | tuple[str, ...]


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
            raise ModelError(f"{unknown(f'{method} target', target, endings)}: no linear layer of this {model_type} "
                             "model has a path that ends so", "every name in `targets` must match a layer")
        found.update(matched)
    return sorted(found)
