"""Shapes that come back: in low precision on a CPU, rows and targets are filled up to a multiple of 32.

There the kernel of a matrix product is made for its shape, which takes some 5 ms the first time (oneDNN; 1,024 are kept).
Rows that end anywhere are a new shape at nearly every step: a small model then spends more on kernels than on products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from finetrial.models import blocks
from finetrial.train.batch import Batch
from finetrial.train.config import Precision
from finetrial.train.precision import DTYPES

MULTIPLE = 32


def filler(model: nn.Module, device: torch.device, precision: Precision) -> Callable[[Batch], Batch]:
    """What is done to every batch of a training run on that device."""
    if not makes_kernels(device.type, DTYPES[precision]):
        return lambda batch: batch
    return partial(widened, longest=blocks.max_positions(model.config))


def makes_kernels(device: str, dtype: torch.dtype) -> bool:
    """Whether products in this type there have a kernel made for every shape."""
    return device == "cpu" and dtype in (torch.bfloat16, torch.float16)


def filled(number: int) -> int:
    """The next multiple."""
    return -(-number // MULTIPLE) * MULTIPLE


def widened(batch: Batch, longest: int | None = None) -> Batch:
    """The same rows with more padding on the right. `longest`: the most places that the model has, which a row keeps to."""
    width = batch.input_ids.shape[1]
    more = filled(width) - width
    if longest is not None and width + more > longest:
        more = 0
    source = 0 if batch.source_ids is None else filled(batch.source_ids.shape[1]) - batch.source_ids.shape[1]
    return replace(batch, input_ids=pad(batch.input_ids, (0, more)), position_ids=_wide(batch.position_ids, more),
                   owner=_wide(batch.owner, more, -1), source_ids=_wide(batch.source_ids, source),
                   target_places=batch.target_places + batch.target_places // width * more,
                   source_mask=_wide(batch.source_mask, source))


def _wide(tensor: Tensor | None, by: int, value: int = 0) -> Tensor | None:
    return None if tensor is None else pad(tensor, (0, by), value=value)
