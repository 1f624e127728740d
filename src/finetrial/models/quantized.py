"""A base whose matrices are held in 4 bits, through bitsandbytes: QLoRA's (Dettmers et al. 2023, arXiv 2305.14314).

`nf4`: each block of 64 weights is a scale and 4-bit indices into 16 values (section 3), and the scales are quantised in
turn (double quantisation). Such a base is another base, its weights off by about 9 %. What transformers leaves out
stays in fp32: embeddings, norms, biases, the head, and T5's `wo`. Nothing can train the matrices or be folded into them;
for that a base is loaded with the values that they stand for (`load.load_base` with `dequantized`).

A layer is known by its weight's `quant_state`, so that nothing here imports bitsandbytes before a base is loaded.
"""

from __future__ import annotations

import ctypes
import math
import platform
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from finetrial.errors import MissingPackage
from finetrial.models.shapes import Quantization

PACKAGE, EXTRA = "bitsandbytes", "qlora"


def import_package(quantization: Quantization) -> None:
    """Have the library in memory. Raises MissingPackage without bitsandbytes."""
    if find_spec(PACKAGE) is None:
        raise MissingPackage(PACKAGE, f"quantization: {quantization}", EXTRA)
    import_module(PACKAGE)


def configuration(quantization: Quantization) -> Any:
    """What `from_pretrained` takes. Raises MissingPackage without bitsandbytes."""
    from transformers import BitsAndBytesConfig

    import_package(quantization)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=torch.float32)


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer's matrix is held in 4 bits."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def layers(model: nn.Module) -> dict[str, Any]:
    """The quantised layers of a model, or of a part of it, by path."""
    return {path: module for path, module in model.named_modules() if is_quantized(module)}


@torch.no_grad()
def release_file(model: nn.Module) -> None:
    """Give what was not quantised memory of its own: as views into the mapped file those tensors keep all of it in
    memory, the fp32 matrices too. Then what was needed to quantise goes back to the system, where glibc would keep it.
    For a model on an accelerator there is only the latter."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and getattr(parameter, "quant_state", None) is None:
            parameter.data = parameter.data.clone()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def keep_layout(model: nn.Module) -> None:
    """Forbid the layout that bitsandbytes gives weights at a first forward pass in eval mode on CPUs with bf16
    instructions: the weights change in their last bits, and gradients behind them are lost without a word."""
    for layer in layers(model).values():
        layer.support_avx512bf16_for_cpu = False


class ComputedIn:
    """A quantised layer whose products are taken in `dtype` until `undo`, as autocast takes those of a plain one: inputs
    are cast, the weights unpacked into it, and results are left in it, which bitsandbytes would cast back."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self._layer, self._hook = layer, layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
        self._set(dtype)

    def undo(self) -> None:
        """Products in fp32 again."""
        self._hook.remove()
        self._set(torch.float32)

    def _set(self, dtype: torch.dtype) -> None:
        self._layer.compute_dtype = dtype
        self._layer.weight.quant_state.dtype = dtype


def shape(layer: Any) -> tuple[int, int]:
    """The shape that the weight of a matrix layer has unpacked, in the base's orientation."""
    if not is_quantized(layer):
        rows, columns = layer.weight.shape
        return rows, columns
    outputs, inputs = layer.weight.quant_state.shape
    return (inputs, outputs) if _turned(layer) else (outputs, inputs)


def values(layer: Any) -> Tensor:
    """The weight that a quantised layer computes with, in fp32 and in the base's orientation."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return weight.T.contiguous() if _turned(layer) else weight


def num_weights(parameter: Tensor) -> int:
    """The numbers that a parameter stands for, packed or not."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


@torch.no_grad()
def copy_values(quantized: nn.Module, plain: nn.Module) -> None:
    """Give the layers of `plain`, a model of the same base, the values of their quantised counterparts."""
    for path, layer in layers(quantized).items():
        plain.get_submodule(path).weight.copy_(values(layer))  # type: ignore[operator]


def _turned(layer: Any) -> bool:
    """Whether the base's own layer is GPT-2's Conv1D, whose weight is (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    return issubclass(layer.source_cls, Conv1D)
