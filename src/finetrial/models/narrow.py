"""Narrow blocks: fewer attention heads, or fewer units in the MLP, than the base's blocks have.

A narrow block computes what the base's block computes when the missing heads and units are zero, so it can be widened
with zeros into a block of the base's own shape, which plain transformers loads. The first heads and units are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetrial.models.block_sizes import Widths


@dataclass(frozen=True)
class _Cut:
    """Which side of a layer is cut: one of `parts` equal parts is `full` wide and keeps its first `kept`."""

    side: Literal["inputs", "outputs"]
    kept: int
    full: int
    parts: int = 1

    def places(self, device: torch.device) -> Tensor:
        """The kept places along the side, in order."""
        starts = torch.arange(self.parts, device=device) * self.full
        return (starts[:, None] + torch.arange(self.kept, device=device)[None]).reshape(-1)


def narrow(block: nn.Module, model_type: str, widths: Widths, full: Widths) -> None:
    """Cut a block of the base's shape down to `widths`, in place."""
    for path, cut in _cuts(model_type, widths, full).items():
        for layer in _layers(block, path):
            _shrink(layer, cut)
    _set_heads(block, model_type, widths)


def widen(block: nn.Module, model_type: str, widths: Widths, full: Widths) -> None:
    """The inverse: pad with zeros, in place. The block computes the same (up to the order of sums)."""
    for path, cut in _cuts(model_type, widths, full).items():
        for layer in _layers(block, path):
            _grow(layer, cut)
    _set_heads(block, model_type, full)


def _cuts(model_type: str, widths: Widths, full: Widths) -> Mapping[str, _Cut]:
    attention = {
        "gpt2": {"attn.c_attn": _Cut("outputs", widths.attention, full.attention, parts=3),
                 "attn.c_proj": _Cut("inputs", widths.attention, full.attention)},
        "llama": {"self_attn.q_proj": _Cut("outputs", widths.attention, full.attention),
                  "self_attn.k_proj": _Cut("outputs", widths.keys, full.keys),
                  "self_attn.v_proj": _Cut("outputs", widths.keys, full.keys),
                  "self_attn.o_proj": _Cut("inputs", widths.attention, full.attention)},
        "t5": {}}
    outputs, inputs = _Cut("outputs", widths.inner, full.inner), _Cut("inputs", widths.inner, full.inner)
    mlp = {"gpt2": {"mlp.c_fc": outputs, "mlp.c_proj": inputs},
           "llama": {"mlp.gate_proj": outputs, "mlp.up_proj": outputs, "mlp.down_proj": inputs},
           "t5": {"DenseReluDense.wi": outputs, "DenseReluDense.wi_0": outputs, "DenseReluDense.wi_1": outputs,
                  "DenseReluDense.wo": inputs}}
    family = "llama" if model_type in ("gemma", "mistral") else model_type
    return {path: cut for path, cut in {**attention[family], **mlp[family]}.items() if cut.kept < cut.full}


def _layers(block: nn.Module, ending: str) -> list[nn.Module]:
    return [module for path, module in block.named_modules() if path == ending or path.endswith(f".{ending}")]


def _dim(layer: nn.Module, side: str) -> int:
    """The dimension of the weight that runs along a side: Linear is (outputs, inputs), Conv1D the other way round."""
    linear = isinstance(layer, nn.Linear)
    return 0 if (side == "outputs") == linear else 1


def _shrink(layer: Any, cut: _Cut) -> None:
    places = cut.places(layer.weight.device)
    _replace(layer, "weight", layer.weight.data.index_select(_dim(layer, cut.side), places))
    if cut.side == "outputs" and layer.bias is not None:
        _replace(layer, "bias", layer.bias.data.index_select(0, places))
    _set_sides(layer)


def _grow(layer: Any, cut: _Cut) -> None:
    places = cut.places(layer.weight.device)
    _replace(layer, "weight", _padded(layer.weight.data, _dim(layer, cut.side), places, cut.parts * cut.full))
    if cut.side == "outputs" and layer.bias is not None:
        _replace(layer, "bias", _padded(layer.bias.data, 0, places, cut.parts * cut.full))
    _set_sides(layer)


def _padded(tensor: Tensor, dim: int, places: Tensor, size: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = size
    return tensor.new_zeros(shape).index_copy_(dim, places, tensor)


def _replace(layer: nn.Module, name: str, tensor: Tensor) -> None:
    old = getattr(layer, name)
    setattr(layer, name, nn.Parameter(tensor.contiguous(), requires_grad=old.requires_grad))


def _set_sides(layer: Any) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    else:  # Conv1D: (inputs, outputs)
        layer.nx, layer.nf = layer.weight.shape


def _set_heads(block: Any, model_type: str, widths: Widths) -> None:
    """The numbers that the attention's forward pass reads."""
    if model_type == "gpt2":
        block.attn.num_heads, block.attn.split_size = widths.heads, widths.attention
    elif model_type in ("llama", "gemma", "mistral"):
        block.self_attn.num_key_value_groups = widths.heads // widths.key_heads
