"""How many LoRA cells are worth training in one pass over their base: the size of a stack that nobody has set.

A pass saves no operations: it saves the starting of kernels. A GPU's time for a step is the larger of two: its
operations, and about a millisecond a block for the 200 or so kernels of forward and backward pass, each started from
Python in about 5 microseconds. While the second is larger, further cells cost little; from where both are equal on, they
cost what they cost alone. So cells are added while a block's operations fit into that millisecond, and the memory
suffices. A CPU computes from the first row on as fast as it can (docs/lab-notebook.md: 0.81 to 1.16 times): one cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetrial.plan.forecast import memory
from finetrial.plan.forecast.device import TIGHT
from finetrial.plan.forecast.memory import Need, Step
from finetrial.plan.forecast.operations import training_operations
from finetrial.plan.forecast.shapes import ModelShapes, read_shapes
from finetrial.plan.forecast.sizes import step_with
from finetrial.plan.forecast.trained import Trained, trained_by
from finetrial.spec.arm import read_method
from finetrial.train.config import Training

MOST_CELLS = 16  # the largest stack whose losses and speed have been measured (bench/stacked.py)
BLOCK_SECONDS = 1e-3  # 200 kernels, 5 microseconds each
# Operations a second that products reach: a third of the published peaks of an A100 (NVIDIA 2020: 312e12 in bf16), and of an
# H100 in fp32 (NVIDIA 2022: 67e12), which torch computes in fp32 proper unless told otherwise
RATE_MIXED, RATE_FULL = 100e12, 20e12


def stack_size(shapes: ModelShapes, trained: Trained, step: Step, *, device: str, available_bytes: int | None) -> int:
    """Cells in one pass; 1 = each by itself. `step` is that of one cell, `available_bytes` what the device has free.

    1 on anything but CUDA, for an unknown amount of memory, and for a method whose parameters cannot be counted.
    """
    if device.partition(":")[0] != "cuda" or available_bytes is None:
        return 1
    tokens = step.micro_batch * step.length * len(shapes.stacks)
    operations = training_operations(shapes, trained, tokens, step.length)
    if not operations:
        return 1
    in_time = BLOCK_SECONDS * (RATE_MIXED if step.mixed else RATE_FULL)
    by_work = int(in_time // (operations / sum(stack.depth for stack in shapes.stacks)))
    cells = min(MOST_CELLS, by_work)
    while cells > 1 and not _fits(stacked_need(shapes, trained, step, cells), available_bytes):
        cells -= 1
    return max(1, cells)


def stacked_need(shapes: ModelShapes, trained: Trained, step: Step, cells: int) -> Need | None:
    """What a pass of `cells` needs: the base once, adapters with gradients and moments, and rows, of each."""
    if trained.parameters is None:
        return None
    adapters = replace(trained, parameters=trained.parameters * cells, added=trained.added * cells)
    return memory.training(shapes, adapters, replace(step, rows=step.rows * cells, micro_batch=step.micro_batch * cells))


def stack_size_of(spec: Mapping[str, Any], base: Path, micro_batch: int | None, *, device: str,
                  available_bytes: int | None) -> int:
    """The same for a training stage whose kind lets it share a pass, from its specification and its base's folder."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    shapes = read_shapes(config)
    if shapes is None:
        return 1
    methods = [read_method(row["method"]) for row in spec["components"]]
    step = step_with(Training.model_validate(spec["training"]), pairs=bool(config.get("is_encoder_decoder")),
                     eager=spec["attention"] == "eager", on_gpu=True)
    if micro_batch is not None:
        step = replace(step, micro_batch=min(micro_batch, step.rows))
    return stack_size(shapes, trained_by(methods, shapes, config), step, device=device, available_bytes=available_bytes)


def _fits(need: Need | None, available_bytes: int) -> bool:
    """With the room that an allocator takes for itself."""
    return need is not None and need.peak <= TIGHT * available_bytes
