"""Mixed precision: products in bf16 or fp16, everything that is kept in fp32.

Frozen matrices may be held in the type of the products: autocast would cast them there anyway, so logits and gradients
are bit-equal, and a step saves the cast. Norms, embeddings and the head stay as they are, and so do matrices with whose
weights an adapter computes itself (DoRA's norm).
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import torch
from torch import nn

from finetrial.models import blocks
from finetrial.models.adapters import weight_is_read
from finetrial.train.config import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision on `device`; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


class FrozenMatrices:
    """A context in which the frozen matrix layers inside the blocks hold their weights in another type.

    The fp32 originals are kept and come back on leaving, bit for bit, so evaluation and digests see them.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self._swaps: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []
        if precision == "fp32":
            return
        for layer in blocks.linears(model).values():
            parameters = list(layer.parameters(recurse=False))
            if not any(parameter.requires_grad for parameter in parameters) and not weight_is_read(layer):
                self._swaps += [(p, p.data, p.data.to(DTYPES[precision])) for p in parameters]

    def __enter__(self) -> None:
        for parameter, _, cast in self._swaps:
            parameter.data = cast

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        for parameter, original, _ in self._swaps:
            parameter.data = original
