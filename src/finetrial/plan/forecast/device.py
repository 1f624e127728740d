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

    A smaller micro-batch changes no result beyond rounding, and a run that goes out of memory finds it by itself;
    checkpointing changes none. So where one of these is enough nothing else is said.
    """
    fits = _Fits(shapes, available)
    rows = fits.rows(trained, replace(step, micro_batch=step.micro_batch // 2))
    if rows is not None:
        return [Change(f"micro-batch {rows.micro_batch} (a run finds it by itself)", fits.peak(trained, rows))]
    checkpointed = replace(step, checkpointing=True)
    rows = fits.rows(trained, checkpointed)
    if rows is not None:
        return [Change(f"training.activation_checkpointing: true{_rows(rows, step)}", fits.peak(trained, rows))]
    return [*_shorter(fits, trained, step), *_with_adapters(fits, config, trained, step)]


@dataclass(frozen=True)
class _Fits:
    """What fits into `available` bytes."""

    shapes: ModelShapes
    available: int

    def peak(self, trained: Trained, step: Step) -> int:
        """The bytes that a step needs; 0 where that is unknown."""
        need = memory.training(self.shapes, trained, step)
        return 0 if need is None else need.peak

    def rows(self, trained: Trained, step: Step) -> Step | None:
        """The step with the largest micro-batch that fits, among those a run tries: the batch halved and halved again."""
        rows = step.micro_batch
        while rows >= 1:
            tried = replace(step, micro_batch=rows)
            if 0 < self.peak(trained, tried) <= self.available:
                return tried
            rows //= 2
        return None


def _rows(found: Step, asked: Step) -> str:
    return "" if found.micro_batch == asked.micro_batch else f", micro-batch {found.micro_batch}"


def _shorter(fits: _Fits, trained: Trained, step: Step) -> Iterator[Change]:
    length = step.length // 2
    while length >= SHORTEST_ROW:
        peak = fits.peak(trained, replace(step, micro_batch=1, length=length))
        if 0 < peak <= fits.available:
            yield Change(f"rows of {length} tokens, micro-batch 1", peak)
            return
        length //= 2


def _with_adapters(fits: _Fits, config: Config, trained: Trained, step: Step) -> Iterator[Change]:
    """LoRA in place of what trains the base's own weights; and for what trains none of them, a base in 4 bits."""
    method: Method = Lora()
    if trained.matrices or trained.embedding:
        if trained.added or method.count_trainable(config) is None:
            return
        adapters, name = trained_by([method], fits.shapes, config), f"lora:rank={Lora().rank} instead"
        found = fits.rows(adapters, step)
        if found is not None:
            yield Change(f"{name}, micro-batch {found.micro_batch}", fits.peak(adapters, found))
            return
    else:
        adapters, name = trained, ""
    if step.four_bit or step.split or not adapters.takes_quantized:
        return
    for more, text in ((step, ""), (replace(step, checkpointing=True), "training.activation_checkpointing: true")):
        found = fits.rows(adapters, replace(more, four_bit=True))
        if found is not None:
            parts = [part for part in (name, "quantization: nf4", text) if part]
            yield Change(f"{', '.join(parts)}, micro-batch {found.micro_batch}", fits.peak(adapters, found))
            return
