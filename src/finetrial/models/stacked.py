"""LoRA adapters of several cells beside one frozen base: one product with the base's matrix serves them all.

Each cell has a model of its own whose base weights are those of all the others (`shell`); only its adapter is its own.
A further shell, the carrier, runs the rows of all cells at once: first those of the first cell, then those of the
second. Where adapters sit it takes the base's product of all rows, and adds to each cell's rows what its adapter does.
So nothing of a cell reaches another, and its gradients arrive in its own adapter's parameters.

Shapes: K cells, R rows of each, L tokens in a row, r the largest rank.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetrial.models import blocks
from finetrial.models.adapters import Adapter


def shell(model: Any) -> Any:
    """Another model of the same weights: the tensors are shared, the modules are not."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def can_stack(adapters: Sequence[Adapter]) -> bool:
    """Whether the adapters are plain LoRA on the same layers of their models. Ranks, scales and dropout may differ."""
    return (all(_is_plain(adapter) for adapter in adapters)
            and len({frozenset(adapter.base_layers()) for adapter in adapters}) == 1)


@dataclass(frozen=True)
class Places:
    """Where the rows of a forward pass come from: cells by number, in order, and the width of each one's own batch."""

    cells: tuple[int, ...]
    widths: tuple[int, ...]  # L before rows were padded to the widest of all cells
    source_widths: tuple[int, ...] | None  # of what the encoder reads


class Dropouts:
    """Torch's generators as each cell's own dropout left them, from the seeds of a step."""

    def __init__(self, seeds: Mapping[int, int]) -> None:
        self._seeds, self._states = seeds, dict[int, Any]()

    def __call__(self, cell: int, states: Tensor, rate: float) -> Tensor:
        """Dropout drawn from the cell's stream, where it was left."""
        on_device = states.device.type == "cuda"
        with torch.random.fork_rng(devices=[states.device] if on_device else []):
            if cell not in self._states:
                torch.manual_seed(self._seeds[cell])
            else:
                torch.random.set_rng_state(self._states[cell][0])
                if on_device:
                    torch.cuda.set_rng_state(self._states[cell][1], states.device)
            dropped = functional.dropout(states, rate, training=True)
            self._states[cell] = (torch.random.get_rng_state(),
                                  torch.cuda.get_rng_state(states.device) if on_device else None)
        return dropped


class StackedAdapters:
    """The adapters of K models, one each, in a carrier: a shell of the same base that holds none itself."""

    def __init__(self, carrier: Any, adapters: Sequence[Adapter]) -> None:
        assert can_stack(adapters), "only plain LoRA adapters on the same layers can be stacked"
        self._carrier, self._layers = carrier, []
        held = [adapter.base_layers() for adapter in adapters]
        for path in sorted(held[0]):
            layers = [(layers[path][0], adapter.name) for layers, adapter in zip(held, adapters, strict=True)]
            self._layers.append((path, _StackedLinear(carrier.get_submodule(path), layers, _reads_source(carrier, path))))

    @contextlib.contextmanager
    def routed(self, places: Places, dropouts: Dropouts | None = None) -> Iterator[None]:
        """Within, the carrier takes the rows of `places`: equally many of each cell. Without `dropouts` nothing drops."""
        for path, layer in self._layers:
            layer.route(places, dropouts)
            _put(self._carrier, path, layer)
        try:
            yield
        finally:
            for path, layer in self._layers:
                _put(self._carrier, path, layer.base)


class _StackedLinear(nn.Module):
    """A frozen matrix layer with the adapters of all cells."""

    places: Places
    dropouts: Dropouts | None

    def __init__(self, base: nn.Module, layers: Sequence[tuple[Any, str]], reads_source: bool) -> None:
        super().__init__()
        self.base, self._reads_source = base, reads_source
        self._down = [layer.lora_A[name].weight for layer, name in layers]  # in lists: parameters of the cells
        self._up = [layer.lora_B[name].weight for layer, name in layers]
        self._scaling = [float(layer.scaling[name]) for layer, name in layers]
        self._scales, self._scaled = torch.empty(0), tuple[int, ...]()  # (K, 1, 1) for these cells
        self._rates = [float(getattr(layer.lora_dropout[name], "p", 0.0)) for layer, name in layers]

    @property
    def weight(self) -> Tensor:
        """The base's: T5 looks at its type."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    def route(self, places: Places, dropouts: Dropouts | None) -> None:
        """What the next rows are. Scales go to the device where the cells change: each copy waits for a GPU's work."""
        self.places, self.dropouts = places, dropouts
        device = self._down[0].device
        if self._scaled != places.cells or self._scales.device != device:
            self._scales = torch.tensor([self._scaling[cell] for cell in places.cells], device=device)[:, None, None]
            self._scaled = places.cells

    def forward(self, states: Tensor, *arguments: Any, **named: Any) -> Tensor:
        """(K * R, L, inputs) to (K * R, L, outputs)."""
        result: Tensor = self.base(states, *arguments, **named)
        cells = list(self.places.cells)
        rank = max(len(self._down[cell]) for cell in cells)
        down = torch.stack([_padded(self._down[cell], rank) for cell in cells])  # (K, r, inputs)
        up = torch.stack([_padded(self._up[cell].T, rank) for cell in cells])  # (K, r, outputs)
        own = states.view(len(cells), -1, *states.shape[1:])  # (K, R, L, inputs)
        given = self._dropped(own).flatten(1, 2).to(down.dtype)  # (K, R * L, inputs)
        added = given @ down.mT @ up * self._scales  # (K, R * L, outputs)
        return (result + added.view_as(result)).to(result.dtype)

    def _dropped(self, states: Tensor) -> Tensor:
        """(K, R, L, inputs); draws for each cell as many numbers as its own batch has places."""
        places, dropouts = self.places, self.dropouts
        if dropouts is None or not any(self._rates[cell] for cell in places.cells):
            return states
        widths = places.source_widths if self._reads_source else places.widths
        assert widths is not None
        parts = []
        for part, cell, width in zip(states, places.cells, widths, strict=True):
            rate = self._rates[cell]
            own = dropouts(cell, part[:, :width].contiguous(), rate) if rate else part[:, :width]  # drawn as alone
            parts.append(functional.pad(own, (0, 0, 0, part.shape[1] - width)))
        return torch.stack(parts)


def _padded(matrix: Tensor, rows: int) -> Tensor:
    """(rows, columns), zero below: a rank that is padded adds nothing and has no gradient."""
    return matrix if len(matrix) == rows else functional.pad(matrix, (0, 0, 0, rows - len(matrix)))


def _is_plain(adapter: Adapter) -> bool:
    config = adapter.config
    return (config.peft_type.value == "LORA" and not config.use_dora and not config.lora_bias
            and all(not layer.lora_variant and set(layer.active_adapters) == {adapter.name}
                    for layer, _ in adapter.base_layers().values()))


def _reads_source(model: Any, path: str) -> bool:
    """Whether a layer's input is as wide as the encoder's: it lies in the encoder, or takes keys or values from it."""
    kind = blocks.architecture_of(model)
    return kind.encoder_decoder and (path.startswith(f"{kind.stacks[0]}.")
                                     or (".EncDecAttention." in path and path.endswith((".k", ".v"))))


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
