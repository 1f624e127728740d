"""Making a new transformer block for a loaded model: a copy of one of the base's blocks, or a random one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from finetrial.models import narrow
from finetrial.models.block_sizes import Widths, full_widths
from finetrial.models.insert import own_blocks
from finetrial.models.load import fuse_activations
from finetrial.models.origin import plain_state

OUTPUTS = ("attn.c_proj", "mlp.c_proj",  # gpt2
           "self_attn.o_proj", "mlp.down_proj",  # llama, gemma
           "SelfAttention.o", "EncDecAttention.o", "DenseReluDense.wo")  # t5


def make(model: Any, stack: nn.ModuleList, like: int, widths: Widths, init: Literal["copy", "random"],
         output_scale: float) -> nn.Module:
    """A block for `stack`, in the mode and on the device of block number `like` of the base, not yet inserted.

    `copy`: its weights (those of the base: adapters on it are not copied); `random`: as the library initialises a new
    model, drawn from torch's global generator. The layers that write to the residual stream are multiplied by
    `output_scale`.
    """
    from transformers.activations import NewGELUActivation

    template, kind = own_blocks(stack)[like], model.config.model_type
    block = _empty(model, stack, template)
    if init == "copy":
        block.load_state_dict(plain_state(template))
    else:
        block.apply(model._init_weights)  # children first, as the library does
    if not any(isinstance(module, NewGELUActivation) for module in template.modules()):
        fuse_activations(block)
    full = full_widths(model.config.to_dict())
    narrow.narrow(block, kind, widths, full)
    _scale_outputs(block, output_scale)
    reference = next(parameter for parameter in template.parameters() if parameter.is_floating_point())
    return block.to(reference.device, reference.dtype).train(template.training)


def _empty(model: Any, stack: nn.ModuleList, template: nn.Module) -> nn.Module:
    """A block of the template's class, of the base's width. It shares the stack's configuration, as all blocks do."""
    config = next(module.config for module in template.modules() if hasattr(module, "config"))
    with torch.random.fork_rng(devices=[]):  # what the constructor draws is overwritten
        made: nn.Module = type(template)(config, layer_idx=len(stack))
    return made


@torch.no_grad()
def _scale_outputs(block: nn.Module, scale: float) -> None:
    for path, layer in block.named_modules():
        if any(path == ending or path.endswith(f".{ending}") for ending in OUTPUTS):
            for parameter in layer.parameters(recurse=False):
                if scale == 0:
                    parameter.zero_()
                else:
                    parameter.mul_(scale)
