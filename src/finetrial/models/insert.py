"""Putting whole transformer blocks into a loaded model, and taking them out again, in place.

An inserted block carries a mark: who owns it and its gap, the number of the base's own blocks below it. Gaps count the
base's blocks only, so a place means the same whatever else is inserted; in one gap the block inserted later lies above.
After every change the blocks are renumbered for the cache, the configuration says the new depth (so that plain
transformers loads and generates), and the first block of a T5 stack holds the relative position bias, which is the
stack's and not the block's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from finetrial.errors import ModelError
from finetrial.models import blocks

POSITION_BIAS = "relative_attention_bias"  # T5: in the first block of a stack, used by all
_MARK = "finetrial_mark"


@dataclass(frozen=True)
class Mark:
    """What is remembered on an inserted block."""

    owner: str  # the component's name
    gap: int  # this many of the base's blocks lie below
    order: int  # among the blocks ever inserted into the stack
    merged: bool = False  # part of the model for good


def mark_of(block: nn.Module) -> Mark | None:
    """The mark of an inserted block; None for one of the base's own."""
    mark: Mark | None = getattr(block, _MARK, None)
    return mark


def own_blocks(stack: nn.ModuleList) -> list[nn.Module]:
    """The base's own blocks, from the first."""
    return [block for block in stack if mark_of(block) is None]


def check_insertable(model: Any) -> None:
    """Raise ModelError for a model whose blocks depend on their place."""
    if getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
        raise ModelError("blocks cannot be inserted into a GPT-2 with scale_attn_by_inverse_layer_idx: every block "
                         "behind the new one would compute something else after saving and loading",
                         "use another base, or another method")


def insert(model: Any, stack: nn.ModuleList, gap: int, block: nn.Module, owner: str) -> None:
    """Put a new `block` above the first `gap` of the base's blocks. Raises ModelError if the model does not allow it.

    A block that was taken out goes back to where it was: its mark is kept.
    """
    check_insertable(model)
    assert 0 <= gap <= len(own_blocks(stack)), f"gap {gap} of a stack with {len(own_blocks(stack))} blocks"
    if mark_of(block) is None:
        order = getattr(stack, "finetrial_inserted", 0) + 1
        stack.finetrial_inserted = order  # type: ignore[assignment]
        setattr(block, _MARK, Mark(owner, gap, order))
    _change(model, stack, lambda: stack.insert(_index(stack, block), block))


def remove(model: Any, stack: nn.ModuleList, block: nn.Module) -> None:
    """Take an inserted block out; the model computes what it did without it."""
    place = next(index for index, other in enumerate(stack) if other is block)
    assert mark_of(block) is not None, "one of the base's own blocks"

    def change() -> None:
        del stack[place]

    _change(model, stack, change)


def merge(block: nn.Module) -> None:
    """From now on the block is part of the model, owned by nobody."""
    mark = mark_of(block)
    assert mark is not None
    setattr(block, _MARK, replace(mark, merged=True))


def _index(stack: nn.ModuleList, block: nn.Module) -> int:
    """Where in the stack a marked block belongs."""
    mark, own = mark_of(block), 0
    assert mark is not None
    for index, other in enumerate(stack):
        found = mark_of(other)
        if found is None:
            if own == mark.gap:
                return index
            own += 1
        elif (found.gap, found.order) > (mark.gap, mark.order):
            return index
    return len(stack)


def _change(model: Any, stack: nn.ModuleList, change: Callable[[], None]) -> None:
    bias = _take_position_bias(stack[0])
    change()
    if bias is not None:
        _give_position_bias(stack[0], bias)
    for number, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number  # type: ignore[assignment]
    _write_depths(model)


def _take_position_bias(block: nn.Module) -> nn.Module | None:
    for module in block.modules():
        if getattr(module, f"has_{POSITION_BIAS}", False):
            bias: nn.Module = getattr(module, POSITION_BIAS)
            delattr(module, POSITION_BIAS)
            setattr(module, f"has_{POSITION_BIAS}", False)
            return bias
    return None


def _give_position_bias(block: nn.Module, bias: nn.Module) -> None:
    holder = next(module for module in block.modules() if hasattr(module, f"has_{POSITION_BIAS}"))
    setattr(holder, POSITION_BIAS, bias)
    setattr(holder, f"has_{POSITION_BIAS}", True)


def _write_depths(model: Any) -> None:
    """The new depths, where transformers reads them.

    T5 keeps three configurations; `decoder_layers` is what its cache is sized by when `generate` runs (without it, by
    the encoder's depth), and it survives saving.
    """
    depths = [len(stack) for stack in blocks.stacks(model)]
    if len(depths) == 1:
        model.config.num_hidden_layers = depths[0]
        return
    encoder, decoder = depths
    model.config.num_layers, model.config.num_decoder_layers = encoder, decoder
    blocks.encoder(model).config.num_layers = encoder  # type: ignore[union-attr]
    blocks.decoder(model).config.num_layers = decoder  # type: ignore[union-attr]
    for config in (model.config, blocks.encoder(model).config, blocks.decoder(model).config):
        config.decoder_layers = decoder  # type: ignore[union-attr]


def base_config(model: Any) -> Any:
    """The configuration of the base with its merged blocks, without the other inserted ones."""
    depths = [sum(mark is None or mark.merged for mark in map(mark_of, stack)) for stack in blocks.stacks(model)]
    config = copy.deepcopy(model.config)
    if depths == [len(stack) for stack in blocks.stacks(model)]:
        return config
    if len(depths) == 1:
        config.num_hidden_layers = depths[0]
    else:
        config.num_layers, config.num_decoder_layers = depths
        config.decoder_layers = depths[1]
    return config
