"""Who owns which parameter: every one is owned by exactly one component, or frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from finetrial.errors import ModelError
from finetrial.models.quantized import num_weights


class Owner(Protocol):
    """What this file reads of a component."""

    @property
    def slot(self) -> str: ...
    @property
    def name(self) -> str: ...
    def parameters(self) -> Mapping[str, nn.Parameter]: ...
    def rewritten(self) -> Mapping[str, nn.Parameter]: ...


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters; tied ones count once."""

    total: int
    trainable: int


def own(model: nn.Module, components: Sequence[Owner], frozen: Sequence[Owner] = ()) -> dict[str, nn.Parameter]:
    """Freeze everything but what `components` own; return the owned parameters by their name in the model. `frozen`: others
    that are attached.

    Raises ModelError, naming both components, where two want to train one parameter, or one wants to train what another
    has rewritten and relies on. An owner of a parameter that is not in the model is an error of ours.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owners: dict[int, str] = {}
    for component in components:
        for name, parameter in component.parameters().items():
            assert id(parameter) in names, f"{component.name} owns {name}, which is not in the model"
            _refuse_second(names[id(parameter)], owners.get(id(parameter)), component.name, "are both to train")
            owners[id(parameter)] = component.name
    for component in (*components, *frozen):
        for parameter in component.rewritten().values():
            _refuse_second(names[id(parameter)], owners.get(id(parameter)), component.name, "conflict over")
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in owners)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _refuse_second(parameter: str, first: str | None, second: str, verb: str) -> None:
    if first is not None:
        raise ModelError(f"the components {first} and {second} {verb} {parameter}",
                         "leave one of them out of this phase, or give them different layers or blocks")


def count(model: nn.Module) -> Counts:
    """Count the model's parameters: all, and those that are trained. Quantised ones count as what they stand for."""
    return Counts(sum(num_weights(p) for p in model.parameters()),
                  sum(p.numel() for p in model.parameters() if p.requires_grad))


def frozen_digest(model: nn.Module) -> str:
    """SHA-256 over names and bytes of the frozen parameters and the buffers, in name order."""
    frozen = {name: tensor for name, tensor in _tensors(model) if not tensor.requires_grad}
    return digest(frozen)


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of each tensor, in name order."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def fill(parameters: Mapping[str, torch.Tensor], path: Path, mend: str) -> None:
    """Read a safetensors file into `parameters`, by name. Raises ModelError if names or shapes differ."""
    from finetrial.models.load import read_weights

    weights = read_weights(path)
    if {name: tensor.shape for name, tensor in weights.items()} != {n: p.shape for n, p in parameters.items()}:
        raise ModelError(f"{path} does not fit ({len(weights)} tensors in the file, {len(parameters)} in the model, or "
                         "other names or shapes)", mend)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def optimizer_bytes(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Bytes of the optimizers' state, what several parameters share counted once."""
    tensors = {id(value): value for optimizer in optimizers for state in optimizer.state.values()
               for value in state.values() if isinstance(value, torch.Tensor)}
    return sum(value.numel() * value.element_size() for value in tensors.values())


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set the rate of every dropout that lies directly in a module trained as a whole; leave the others alone.

    A base is loaded without dropout, so a frozen one never drops, and a method's own dropout stays what it is.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        if not parameters or not all(parameter.requires_grad for parameter in parameters):
            continue
        for child in module.children():
            if isinstance(child, nn.Dropout):
                child.p = rate
        for name in ("attention_dropout", "dropout"):  # kept as a number by llama's and T5's attention
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
