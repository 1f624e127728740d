"""The frozen prefix of a model: the first blocks, which compute the same for a batch whatever is trained above them.

A prefix is a number of blocks for each stack, from the bottom: those of the base itself that are not changed, not
adapted and do not drop. For an encoder-decoder whose encoder is wholly in it, the decoder's first blocks may be too.
The states that leave it are recorded while the model runs (`record`) and given back later (`replay`), when its blocks
are not computed. What decides the states, besides the batch, is in `digest`.

Shapes: R rows, L tokens in a row (of a stack's input), D width.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetrial.fingerprint import canonical
from finetrial.models import blocks
from finetrial.models.insert import POSITION_BIAS, base_config, mark_of

VERSION = 1  # of what `digest` covers
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Prefix:
    """The first `depths[s]` blocks of stack s; `complete` stacks from the first are in it with their final norm."""

    depths: tuple[int, ...]
    complete: int


def frozen_prefix(model: Any, changing: Iterable[nn.Parameter]) -> Prefix | None:
    """The prefix below all of `changing`; None if there is none."""
    changed = {id(parameter) for parameter in changing}
    depths: list[int] = []
    complete = 0
    for stack, norm in zip(blocks.stacks(model), blocks.final_norms(model), strict=True):
        open_below = complete == len(depths)
        depth = next((n for n, block in enumerate(stack) if not _is_fixed(block, changed)), len(stack))
        depths.append(depth if open_below else 0)
        complete += open_below and depth == len(stack) and not _changes(norm, changed)
    found = Prefix(tuple(depths), min(complete, len(depths) - 1))
    outside = _tensors(model, Prefix((0,) * len(depths), 0))
    if not any(depths) or any(id(tensor) in changed for tensor in outside.values()) or _drops_outside(model):
        return None
    return found


def digest(model: Any, prefix: Prefix) -> str:
    """Digest of the prefix: weights and buffers, configuration, and where it ends. Reads every byte of them."""
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    config = {name: repr(value) for name, value in base_config(model).to_dict().items()}
    total.update(canonical({"version": VERSION, "model": type(model).__name__, "config": config,
                            "attention": model.config._attn_implementation, "depths": prefix.depths,
                            "complete": prefix.complete}).encode())
    add_tensors(total, _tensors(model, prefix))
    return total.hexdigest()


def add_tensors(total: Any, tensors: dict[str, Tensor]) -> None:
    """Feed name, type, shape and bytes of each tensor to a hash object, in name order."""
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.view(-1).view(torch.uint8).numpy().data)


@contextlib.contextmanager
def record(model: Any, prefix: Prefix) -> Iterator[list[Tensor]]:
    """Within, the model runs as ever; the list then holds the states (R, L, D) that left the prefix, one a stack."""
    states: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states.append((arguments[0] if arguments else named["hidden_states"]).detach())

    hooks = []
    for stack, norm, depth in zip(blocks.stacks(model), blocks.final_norms(model), prefix.depths, strict=True):
        if depth:
            above = stack[depth] if depth < len(stack) else norm
            hooks.append(above.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def replay(model: Any, prefix: Prefix, states: Iterable[Tensor]) -> Iterator[None]:
    """Within, the blocks of the prefix are not computed: the states of `record`, on the model's device, stand for them."""
    given, replaced = iter(states), []
    stand_in = _T5StandIn if blocks.architecture_of(model).encoder_decoder else _StandIn
    for stack, depth in zip(blocks.stacks(model), prefix.depths, strict=True):
        state = next(given) if depth else None
        for number in range(depth):
            replaced.append((stack, number, stack[number]))
            stack[number] = stand_in(stack[number], state)
    try:
        yield
    finally:
        for stack, number, block in replaced:
            stack[number] = block


class _StandIn(nn.Module):
    """Gives the recorded state in a block's place."""

    def __init__(self, block: nn.Module, state: Tensor | None) -> None:
        super().__init__()
        assert state is not None
        self._state = state

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """(R, L, D)."""
        return self._state


class _T5StandIn(_StandIn):
    """A T5 block hands on the position bias as well, which the first one of its stack makes."""

    def __init__(self, block: Any, state: Tensor | None) -> None:
        super().__init__(block, state)
        self._attention = [block.layer[0].SelfAttention]  # in a list: not a part of this module

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None,
                position_bias: Tensor | None = None, *arguments: Any, **named: Any) -> Any:
        """((R, L, D), the position bias of self-attention, None: cross-attention has none of its own)."""
        [attention] = self._attention
        if position_bias is None and getattr(attention, f"has_{POSITION_BIAS}"):
            length = hidden_states.shape[1]
            position_bias = attention.compute_bias(length, length, device=hidden_states.device)
        return self._state, position_bias, None


def _tensors(model: Any, prefix: Prefix) -> dict[str, Tensor]:
    """By name, what the prefix computes with: everything but blocks above it, norms after these, and the head."""
    kind = blocks.architecture_of(model)
    above = [f"{kind.head}.", *(f"{path}." for path in kind.norms[prefix.complete:])]
    for path, stack, depth in zip(kind.stacks, blocks.stacks(model), prefix.depths, strict=True):
        above += [f"{path}.{number}." for number in range(depth, len(stack))]
    tied = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    return {name: tensor for name, tensor in tied.items() if not name.startswith(tuple(above))}


def _is_fixed(block: nn.Module, changed: set[int]) -> bool:
    """Whether a block is the base's own, computes with unchanged full weights alone, and draws nothing."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    mark = mark_of(block)
    return ((mark is None or mark.merged) and not _changes(block, changed)
            and all(parameter.is_floating_point() for parameter in block.parameters())
            and not any(isinstance(module, BaseTunerLayer) or _drops(module) for module in block.modules()))


def _changes(module: nn.Module, changed: set[int]) -> bool:
    return any(id(parameter) in changed for parameter in module.parameters())


def _drops(module: nn.Module) -> bool:
    rates = [getattr(module, name, 0.0) for name in ("p", "attention_dropout", "dropout")]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _drops_outside(model: Any) -> bool:
    """Whether anything outside the stacks' blocks drops."""
    inside = {id(module) for stack in blocks.stacks(model) for module in stack.modules()}
    return any(_drops(module) for module in model.modules() if id(module) not in inside)
