"""Names in the base's own numbering: what a tensor is called whatever else has been attached to the model.

Adapters wrap a layer (`c_attn` becomes `c_attn.base_layer`) and inserted blocks shift the ones behind them. Files and
digests use the names that the base has by itself, so they do not depend on what else an arm holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from finetrial.models import blocks, quantized
from finetrial.models.insert import POSITION_BIAS, mark_of

WRAPPED = "base_layer"  # the name that peft gives to the layer inside an adapter


class BaseNames:
    """Maps a path in the model to the path in the base; None for what lies in an inserted block.

    With `merged`, blocks that were merged count as the base's own.
    """

    def __init__(self, model: Any, *, merged: bool = False) -> None:
        self._stacks: dict[str, list[int | None]] = {}
        for path, stack in zip(blocks.architecture_of(model).stacks, blocks.stacks(model), strict=True):
            numbers: list[int | None] = []
            for block in stack:
                mark = mark_of(block)
                own = mark is None or (merged and mark.merged)
                numbers.append(sum(number is not None for number in numbers) if own else None)
            self._stacks[f"{path}."] = numbers

    def __call__(self, path: str) -> str | None:
        """`transformer.h.3.attn.c_attn.base_layer.weight` -> `transformer.h.2.attn.c_attn.weight`."""
        path = unwrapped(path)
        for prefix, numbers in self._stacks.items():
            if path.startswith(prefix):
                index, dot, rest = path.removeprefix(prefix).partition(".")
                number = 0 if POSITION_BIAS in rest else numbers[int(index)]
                return None if number is None else f"{prefix}{number}{dot}{rest}"
        return path


def unwrapped(path: str) -> str:
    """A path without the steps that adapters add around the layer they wrap."""
    return ".".join(step for step in path.split(".") if step != WRAPPED)


def base_parameters(model: Any, *, merged: bool = False) -> dict[str, nn.Parameter]:
    """The base's own parameters, tied ones once: no adapters, no inserted blocks (merged ones, if asked for)."""
    return _named(model, dict(model.named_parameters()), merged)


def base_state(model: Any, *, merged: bool = False) -> dict[str, Tensor]:
    """The base's own state: parameters, tied ones under every name, and saved buffers."""
    return _named(model, model.state_dict(), merged)


def base_linears(model: Any) -> dict[str, tuple[str, nn.Module]]:
    """The matrix layers of the base's own blocks, by their name in the base: (present path, layer).

    The present path is that of the adapter where there is one.
    """
    names, inside = BaseNames(model), adapter_prefixes(model)
    found = {}
    for path, layer in blocks.linears(model).items():
        name = None if path.startswith(inside) and f".{WRAPPED}" not in path else names(path)
        if name is not None:
            found[name] = (unwrapped(path), layer)
    return found


def plain_state(block: nn.Module) -> dict[str, Tensor]:
    """The state of a block of the base as it would be without adapters (and without T5's position bias), in fp32."""
    inside, packed = adapter_prefixes(block), tuple(f"{path}.weight" for path in quantized.layers(block))
    state = {}
    for name, tensor in block.state_dict().items():
        if POSITION_BIAS in name or (name.startswith(inside) and f".{WRAPPED}." not in name):
            continue
        if name in packed:
            tensor = quantized.values(block.get_submodule(name.removesuffix(".weight")))
        elif name.startswith(tuple(f"{weight}." for weight in packed)):  # the scales
            continue
        original = getattr(block.get_submodule(name.rpartition(".")[0]), "finetrial_original", None)
        state[unwrapped(name)] = original if original is not None and name.endswith(".weight") else tensor
    return state


def adapter_prefixes(model: nn.Module) -> tuple[str, ...]:
    """The paths, with a dot at the end, of the modules that wrap a layer."""
    return tuple(f"{path}." for path, module in model.named_modules() if WRAPPED in module._modules)


def _named(model: Any, tensors: Mapping[str, Any], merged: bool) -> dict[str, Any]:
    names, inside = BaseNames(model, merged=merged), adapter_prefixes(model)
    found = {}
    for path, tensor in tensors.items():
        name = None if path.startswith(inside) and f".{WRAPPED}." not in path else names(path)
        if name is not None:
            found[name] = tensor
    return found
