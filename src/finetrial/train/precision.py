"""Mixed precision: products in bf16 or fp16, everything that is kept in fp32.

Frozen matrices may be held in the type of the products: autocast would cast them there anyway, so logits and gradients
are bit-equal, and a step saves the cast. Norms, embeddings and the head stay as they are, and so do matrices with whose
weights an adapter computes itself (DoRA's norm).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import nn

from finetrial.errors import UserError
from finetrial.models import blocks, quantized
from finetrial.models.adapters import adapter_modules, weight_is_read
from finetrial.train.config import Precision

ROOM_FOR_COPIES = 0.25  # the rest is for keys and values
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision on `device`; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def accelerator(device: str, precision: Precision, *, keeps_casts: bool = True) -> Any:
    """What accelerate does for one process: the device, mixed precision and the scaler of fp16. `keeps_casts`: a trained
    weight is cast once in a forward pass, and the copy kept to its end.

    Raises UserError for a device or a precision that cannot be had.
    """
    from accelerate.utils import AutocastKwargs

    kind = torch.device(device).type
    if precision == "fp16" and kind == "cpu":
        raise UserError("precision fp16 is not possible on the device cpu", "use fp32 or bf16, or a GPU")
    if kind == "cuda" and torch.cuda.is_available() and torch.device(device).index is not None:
        torch.cuda.set_device(torch.device(device))
    options = {"cpu": kind == "cpu", "mixed_precision": "no" if precision == "fp32" else precision,
               "kwargs_handlers": [AutocastKwargs(cache_enabled=keeps_casts)]}
    try:
        accelerator = _fresh_accelerator(kind, options)
    except NotImplementedError:  # RTX 40: cards that cannot reach each other; what accelerate's launcher tells NCCL then
        os.environ.update({"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"})
        accelerator = _fresh_accelerator("", options)
    if accelerator.device.type != kind:
        raise UserError(f"the device {device} is not available; found {accelerator.device}",
                        f"use the device {accelerator.device.type}, or install a torch build for {kind}")
    start_scaling(accelerator)
    return accelerator


def _fresh_accelerator(kind: str, options: Mapping[str, Any]) -> Any:
    """One process may train with several precisions, so accelerate's state is made anew; what it knows of the machine,
    for which it may start a program of the driver's, is kept while that is of a device of this kind."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    known = PartialState._shared_state.get("device")
    AcceleratorState._reset_state(reset_partial_state=known is None or known.type != kind)
    return Accelerator(**options)


def start_scaling(accelerator: Any) -> None:
    """Give a scaler its scale, which else its first loss does: one of several processes may have none in the first step."""
    if accelerator.scaler is not None:
        accelerator.scaler.scale(torch.zeros((), device=accelerator.device))


class FrozenMatrices:
    """The frozen matrix layers inside the blocks, held in the type of products while steps are computed.

    A context around a step: in it their weights are in the other type. The fp32 originals come back bit for bit, so
    evaluation and digests see them: on leaving, or, with `offload`, when `restore` is called. Then they wait in the
    host's memory meanwhile, and a device with memory of its own holds 2 bytes a weight in place of 6.
    Quantised layers keep their packed weights and only take their products in that type.

    `inference`: no gradient is taken, so trained matrices of the base count as frozen. Adapters' own stay as they are, and
    quantised layers compute as they do in any evaluation.
    """

    def __init__(self, model: nn.Module, precision: Precision, *, offload: bool = False, inference: bool = False) -> None:
        self._dtype, self._offload, self._is_held = DTYPES[precision], offload, False
        self._quantized: list[nn.Module] = []
        self._computed: list[quantized.ComputedIn] = []
        self._plain: list[_Held] = []
        if precision == "fp32":
            return
        left_alone = adapter_modules(model) if inference else set()
        for layer in blocks.linears(model).values():
            if layer in left_alone or (inference and quantized.is_quantized(layer)):
                continue
            parameters = list(layer.parameters(recurse=False))
            if quantized.is_quantized(layer):
                self._quantized.append(layer)
                parameters = [parameter for parameter in parameters if parameter is not layer.weight]
            is_frozen = inference or not any(parameter.requires_grad for parameter in parameters)
            if is_frozen and not weight_is_read(layer):
                self._plain += [_Held(parameter, self._dtype, offload) for parameter in parameters]

    def __enter__(self) -> None:
        if self._is_held:
            return
        self._is_held = True
        for held in self._plain:
            held.cast()
        self._computed = [quantized.ComputedIn(layer, self._dtype) for layer in self._quantized]

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if not self._offload:
            self.restore()

    def restore(self) -> None:
        """Everything in fp32 again, as it was."""
        if not self._is_held:
            return
        self._is_held = False
        for held in self._plain:
            held.restore()
        for computed in self._computed:
            computed.undo()


def held_for_inference(model: nn.Module, precision: Precision) -> FrozenMatrices:
    """The base's matrices for many passes without gradients, which would each cast every frozen one anew.

    On a GPU the copies lie beside the originals where they take at most ROOM_FOR_COPIES of the memory that is free, else the
    originals wait on the host. To be restored after.
    """
    device = next(model.parameters()).device
    if precision == "fp32" or device.type != "cuda":
        return FrozenMatrices(model, precision, inference=True)
    weights = sum(parameter.numel() for layer in blocks.linears(model).values() for parameter in layer.parameters(recurse=False))
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    offload = weights * DTYPES[precision].itemsize > ROOM_FOR_COPIES * free
    return FrozenMatrices(model, precision, offload=offload, inference=True)


class _Held:
    """One parameter and its original: beside a copy in the other type, or in the host's memory."""

    def __init__(self, parameter: nn.Parameter, dtype: torch.dtype, offload: bool) -> None:
        self._parameter, self._dtype, self._device = parameter, dtype, parameter.device
        self._original = parameter.data.to("cpu", copy=True) if offload else parameter.data
        self._copy = None if offload else parameter.data.to(dtype)

    def cast(self) -> None:
        self._parameter.data = self._parameter.data.to(self._dtype) if self._copy is None else self._copy

    def restore(self) -> None:
        self._parameter.data = self._original.to(self._device, copy=self._copy is None)
