"""Where a model's parameters are while it is trained: all of them in this process, or split over those that train together.

Split, every process keeps a part of each parameter, of its gradient and of the optimizer's state (ZeRO, stage 3:
Rajbhandari et al. 2020, arXiv 1910.02054; torch's `fully_shard`). A block is made whole just before it computes and split
again after it; embeddings, norms and head are whole from the start of a forward pass to the end of its backward pass.
Gradients are summed as they are split. Whatever uses the model is called through `run`, by every process at once.

A model is split as a copy that takes the place of its submodules, while the originals wait without values. So whoever
holds the model, or a component of it, finds everything as it was once the first process has `taken_back` the values.
"""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from finetrial.errors import UserError
from finetrial.methods.base import Component
from finetrial.models import blocks, quantized
from finetrial.train.data_parallel import DataParallel

T = TypeVar("T")


class Whole:
    """All parameters are in this process."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        model.to(device)

    def run(self, function: Callable[[], T]) -> T:
        """What `function` returns, which may use the model's parameters."""
        return function()

    def whole(self, value: Tensor) -> Tensor:
        """A value that may be split, or a sum of which each process has a part."""
        return value

    def gathered(self, state: Any) -> Any:
        """Nested dicts, lists and tuples, every tensor in them whole."""
        return state

    def own_part(self, parameter: Tensor, value: Tensor) -> Tensor:
        """What this process keeps of a whole `value` of the parameter's shape."""
        return value

    def own_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The same of an optimizer's state."""
        return state

    def take_back(self) -> None:
        """Give the original submodules the values that were trained."""

    def close(self) -> None:
        """Put the original submodules back."""


class Shards(Whole):
    """Each process has a part. The model may wait on the CPU: block by block only the parts go to `device`.

    `take_back` leaves the values in the first process alone, in the host's memory; without it they are lost.
    """

    def __init__(self, model: nn.Module, device: torch.device, parallel: DataParallel) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        self._model, self._is_first = model, parallel.is_first
        self._originals, self._children = dict(model.named_parameters()), dict(model.named_children())
        _set_children(model, _copies(model))
        mesh = init_device_mesh(device.type, (parallel.count,))
        for stack in blocks.stacks(model):
            for block in stack:
                fully_shard(block, mesh=mesh)
        self._root = _Root(model)
        fully_shard(self._root, mesh=mesh)
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # a sum, not a mean ...
                module.set_force_sum_reduction_for_comms(True)  # ... by an operation that every backend has
        self._parts = dict(model.named_parameters())

    def run(self, function: Callable[[], T]) -> T:
        from torch.distributed.fsdp import FSDPModule

        with warnings.catch_warnings():  # T5's blocks hand on a view (the position bias); nothing changes it in place
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            found: T = self._root(function)
        if not torch.is_grad_enabled():
            assert isinstance(self._root, FSDPModule)
            self._root.reshard()  # else the backward pass does it
        return found

    def whole(self, value: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        if not isinstance(value, DTensor):
            return value
        found: Tensor = value.full_tensor()
        return found

    def gathered(self, state: Any) -> Any:
        """On the host, and in the first process alone; all have to call it. Elsewhere what is split becomes None."""
        from torch.distributed.tensor import DTensor

        if isinstance(state, dict):
            return {name: self.gathered(value) for name, value in state.items()}
        if isinstance(state, (list, tuple)):
            return type(state)(self.gathered(value) for value in state)
        if not isinstance(state, DTensor):
            return state
        found = state.full_tensor().detach()
        return found.cpu() if self._is_first else None

    def own_part(self, parameter: Tensor, value: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(parameter, DTensor)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)

    def own_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        split = {number: {name: self.own_part(parameters[number], value)
                          if isinstance(value, Tensor) and value.shape == parameters[number].shape else value
                          for name, value in of_one.items()} for number, of_one in state["state"].items()}
        return {**state, "state": split}

    def take_back(self) -> None:
        """To be called by every process."""
        for name, part in self._parts.items():
            found = self.gathered(part)
            if found is not None:
                self._originals[name].data = found

    def close(self) -> None:
        _set_children(self._model, self._children)
        self._parts = {}
        del self._root
        gc.collect()  # torch's sharded modules refer to each other in circles


class _Root(nn.Module):
    """What torch calls the root: parameters outside the blocks are whole while its forward pass runs, whatever that does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], T]) -> T:
        return function()


def held(model: nn.Module, components: Sequence[Component], device: torch.device, parallel: DataParallel) -> Whole:
    """The model, ready to be trained on `device`. Raises UserError for one that cannot be trained in parts."""
    if not parallel.sharded:
        return Whole(model, device)
    if any(map(quantized.is_quantized, model.modules())):
        raise UserError("--shard is not possible with quantization: packed weights are not split",
                        "leave out --shard, or the arm's quantization")
    for component in components:
        if type(component).after_step is not Component.after_step:
            raise UserError(f"--shard is not possible with the method in slot {component.slot!r}, which reads whole gradients "
                            "after each step", "leave out --shard, or choose another method")
    return Shards(model, device, parallel)


def _copies(model: nn.Module) -> dict[str, nn.Module]:
    """The model's submodules again, with its values, which the originals lose. The configuration stays one object."""
    memo: dict[int, Any] = {id(model.config): model.config}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().contiguous(), parameter.requires_grad)
        parameter.data = parameter.detach().new_empty(0)
    return copy.deepcopy(dict(model.named_children()), memo)


def _set_children(model: nn.Module, children: dict[str, nn.Module]) -> None:
    for name, child in children.items():
        setattr(model, name, child)
