"""How far the weights of each part of a model have moved from the base's."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from torch import Tensor

from finetrial.models import blocks
from finetrial.models.origin import base_parameters

OUTSIDE = "outside blocks"  # embeddings, final norms, the head


def weight_changes(base: Any, adapted: Any) -> dict[str, float]:
    """||W - W0|| / ||W0|| (Frobenius) over the weights of each of the base's blocks, of what lies outside them, and of
    the `whole`.

    `adapted` is a model like `base` with everything merged into it. Inserted blocks have no weights to compare with and
    are not counted.
    """
    before, after = base_parameters(base), base_parameters(adapted)
    moved: dict[str, float] = defaultdict(float)
    size: dict[str, float] = defaultdict(float)
    for name, weight in before.items():
        difference = _squares(after[name].detach() - weight.detach())
        for part in (_part(base, name), "whole"):
            moved[part] += difference
            size[part] += _squares(weight.detach())
    return {part: math.sqrt(moved[part] / size[part]) if size[part] else 0.0 for part in size}


def _squares(tensor: Tensor) -> float:
    return float(tensor.cpu().double().pow(2).sum())  # not every device has fp64


def _part(model: Any, name: str) -> str:
    """`transformer.h.3.attn.c_attn.weight` -> `transformer.h.3`."""
    for stack in blocks.architecture_of(model).stacks:
        if name.startswith(f"{stack}."):
            return f"{stack}.{name.removeprefix(f'{stack}.').partition('.')[0]}"
    return OUTSIDE
