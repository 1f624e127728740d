"""Attention of one new token a row over rows of unequal length, on a CPU.

A batch in one piece reads keys and values of every row as far as its longest one goes, and on a CPU that reading is most of
a decoding step. Here a few rows are computed at a time, as wide as the longest of them. What is left out is what the mask
hides, so answers are equal up to rounding. On an accelerator the additional calls cost more than they save.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "finetrial_by_length"
ROWS = 8  # at a time


@contextmanager
def attention_by_length(backbone: Any, lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """While rows that hold `lengths` tokens get the next one; gives what the forward pass takes besides. Nothing changes
    with few rows, on an accelerator, and where the model was not loaded with torch's fused attention."""
    config = backbone.config
    plain = config._attn_implementation
    if len(lengths) <= ROWS or plain != "sdpa" or next(backbone.parameters()).device.type != "cpu":
        yield {}
        return
    config._attn_implementation = NAME
    try:
        yield {"widths": [max(lengths[start:start + ROWS]) + 1 for start in range(0, len(lengths), ROWS)]}
    finally:
        config._attn_implementation = plain


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, *, widths: Sequence[int],
            **options: Any) -> tuple[Tensor, None]:
    """Query (R, H, 1, D), keys and values (R, H, W, D), mask (R, 1, 1, W) to (R, 1, H, D); `widths` one for ROWS rows."""
    found = []
    for number, width in enumerate(widths):
        rows = slice(number * ROWS, (number + 1) * ROWS)
        found.append(sdpa_attention_forward(module, query[rows], key[rows, :, :width], value[rows, :, :width],
                                            attention_mask[rows, ..., :width], **options)[0])
    return torch.cat(found), None


AttentionInterface.register(NAME, _attend)
