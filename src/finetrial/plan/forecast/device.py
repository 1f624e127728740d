"""What fits on a device, and what to change where a phase does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from finetrial.errors import UserError
from finetrial.methods.base import Method
from finetrial.methods.lora import Lora
from finetrial.plan.forecast import memory
from finetrial.plan.forecast.memory import Step
from finetrial.plan.forecast.shapes import Config, ModelShapes
from finetrial.plan.forecast.trained import Trained, trained_by

Verdict = Literal["fits", "tight", "does not fit", "unknown"]

TIGHT = 1 / 1.25  # an allocator may reserve a quarter more than is allocated, and the device's own context is not counted
SHORTEST_ROW = 128
_SIZE = re.compile(r"\s*([0-9.]+)\s*(GB|GiB|MB|MiB)\s*", re.IGNORECASE)
_UNITS = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}


@dataclass(frozen=True)
class Change:
    """Something that makes a phase smaller, and the bytes that it then needs."""

    text: str
    peak: int


def is_size(text: str) -> bool:
    """Whether `--device` names an amount of memory: `16GB`, `6 GiB`."""
    return _SIZE.fullmatch(text) is not None


def device_bytes(text: str) -> int:
    """`16GB` -> 16e9, `16GiB` -> 16 * 2^30. Raises UserError."""
    match = _SIZE.fullmatch(text)
    try:
        found = int(float(match.group(1)) * _UNITS[match.group(2).lower()]) if match else 0
    except ValueError:
        found = 0
    if found <= 0:
        raise UserError(f"--device {text!r} is neither a device nor an amount of memory",
                        "write auto, cpu, cuda or mps; or 16GB, 6GiB; or this, for what this machine has")
    return found


def verdict(peak: int | None, available: int) -> Verdict:
    """Whether a peak fits: `tight` within a fifth of the whole, where the forecast cannot tell."""
    if peak is None:
        return "unknown"
    if peak > available:
        return "does not fit"
    return "tight" if peak > TIGHT * available else "fits"


def changes(shapes: ModelShapes, config: Config, trained: Trained, step: Step, available: int) -> list[Change]:
    """What would make a phase fit, in the order in which it costs least; empty where nothing here would.

    A smaller micro-batch changes no result beyond rounding, and a run that goes out of memory finds it by itself.
    """
    smaller = _largest(shapes, trained, step, available)
    if smaller is not None:
        return [smaller]
    found = [*_shorter(shapes, trained, step, available), *_with_lora(shapes, config, trained, step, available)]
    return found


def _largest(shapes: ModelShapes, trained: Trained, step: Step, available: int) -> Change | None:
    """The largest micro-batch that fits, among those a run tries: the batch halved and halved again."""
    rows = step.micro_batch
    while rows > 1:
        rows //= 2
        need = memory.training(shapes, trained, replace(step, micro_batch=rows))
        if need is not None and need.peak <= available:
            return Change(f"micro-batch {rows} (a run finds it by itself)", need.peak)
    return None


def _shorter(shapes: ModelShapes, trained: Trained, step: Step, available: int) -> Iterator[Change]:
    length = step.length // 2
    while length >= SHORTEST_ROW:
        need = memory.training(shapes, trained, replace(step, micro_batch=1, length=length))
        if need is not None and need.peak <= available:
            yield Change(f"rows of {length} tokens, micro-batch 1", need.peak)
            return
        length //= 2


def _with_lora(shapes: ModelShapes, config: Config, trained: Trained, step: Step, available: int) -> Iterator[Change]:
    """LoRA in place of what trains the base's own weights."""
    method: Method = Lora()
    if not trained.matrices or trained.added or method.count_trainable(config) is None:
        return
    adapters = trained_by([method], shapes, config)
    rows = step.micro_batch
    while rows >= 1:
        need = memory.training(shapes, adapters, replace(step, micro_batch=rows))
        if need is not None and need.peak <= available:
            yield Change(f"lora:rank={Lora().rank} instead, micro-batch {rows}", need.peak)
            return
        rows //= 2
