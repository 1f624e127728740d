"""An adapter on top of another that nobody meant to be there.

A base folder that holds an adapter is wrapped already: libraries load it silently, and what is compared is not what the
arm's name says. Two adapters on the same layers in one phase add up to a third one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from finetrial.models.shapes import linear_shapes, matching
from finetrial.models.targets import Targets, patterns
from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import BaseFolder, Planned
from finetrial.spec.arm import Component
from finetrial.spec.slots import Carry
from finetrial.spec.study import Study

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_MARKS = (".lora_A.", ".lora_B.", ".lora_E.", ".base_layer.", ".lora_magnitude_vector.", ".hada_w1_a.")


class DoubleWrapping(Rule):
    """Every adapter stands on a plain base, and on layers that no other of its phase adapts."""

    summary: ClassVar[str] = "an adapter stands on a base or on layers that are adapted already"

    def check_plan(self, study: Study, plan: Planned) -> Iterator[Found]:
        """A threat for each base that holds an adapter, and for each phase with two adapters on one layer."""
        for base in plan.bases:
            held = _held_adapter(base.folder)
            if held:
                yield Found("threat", f"base {base.name} holds an adapter already ({held}): every arm would be put on "
                                      "top of it; merge it into the weights, or give the base without it",
                            f"bases.{base.name}")
        for arm in study.arms:
            for phase in dict.fromkeys(phase for path in study.paths if arm in study.arms_along(path)
                                       for phase in path.tasks):
                for first, second in combinations(arm.for_task(phase), 2):
                    shared = _shared_layers(first, second, plan.bases)
                    if shared:
                        yield Found("threat", f"{arm.name} puts two adapters on {shared} when it learns {phase} (slots "
                                              f"{first.slot} and {second.slot}); merge one, or give them other targets",
                                    f"arms.{arm.name}")


def _held_adapter(folder: Path) -> str:
    """What shows that a model folder holds an adapter; '' if nothing does."""
    if (folder / ADAPTER_CONFIG).is_file():
        return ADAPTER_CONFIG
    for path in sorted(folder.glob("*.safetensors")):
        for name in _tensor_names(path):
            if any(mark in f".{name}." for mark in ADAPTER_MARKS):
                return f"{name} in {path.name}"
    return ""


def _tensor_names(path: Path) -> list[str]:
    """The names in a .safetensors file: its header is a length (8 bytes, little endian) and JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return sorted(json.loads(file.read(length)))


def _shared_layers(first: Component, second: Component, bases: tuple[BaseFolder, ...]) -> str:
    """The first layer that both adapt; without known shapes, their targets if these are equal."""
    if any(not hasattr(one.method, "targets") or one.carry is Carry.FREEZE for one in (first, second)):
        return ""
    for base in bases:
        layers, others = _layers(first, base), _layers(second, base)
        if layers is not None and others is not None:
            return min(layers & others, default="")
    targets, same = (getattr(one.method, "targets", None) for one in (first, second))
    return str(targets) if targets == same else ""


def _layers(component: Component, base: BaseFolder) -> set[str] | None:
    """The layers that a method with `targets` adapts; None where the model's shapes are not known."""
    shapes = linear_shapes(base.config)
    if shapes is None:
        return None
    targets: Targets = getattr(component.method, "targets", None) or "attention"
    return {name for target in patterns(targets, base.config["model_type"], shapes) for name in matching(shapes, target)}
