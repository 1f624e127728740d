"""Several cells trained in one pass over one frozen base.

Every cell is the run that it would be alone: its own order of data, schedule, optimizer, clipping, dropout, validation
and checkpoints. Only forward and backward are shared: the micro-batches of all cells go through the carrier together
(`models/stacked.py`), and each cell's mean loss is differentiated by its own parameters. Losses are those of the run
alone up to rounding, since products are taken in other shapes. A cell that ends, early or badly, leaves the stack.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetrial.methods.base import Component
from finetrial.models.stacked import Dropouts, Places, StackedAdapters
from finetrial.streams import Streams
from finetrial.train.batch import Batch, BatchSource, Documents
from finetrial.train.checkpoint import Checkpoints
from finetrial.train.config import Precision, Training
from finetrial.train.loop import Run, Validate, dropout_purpose
from finetrial.train.loss import summed_cross_entropy, target_states
from finetrial.train.meter import OnMetrics, TrainResult
from finetrial.train.outcome import Diverged, OutOfTime
from finetrial.train.precision import FrozenMatrices, autocast

Ended = TrainResult | Diverged | OutOfTime


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell is, as `train` takes it: `model` is a shell of the carrier's base with the cell's own adapter."""

    model: Any
    components: Sequence[Component]
    dataset: Documents | BatchSource
    config: Training
    learning_rate: float
    streams: Streams
    on_metrics: OnMetrics | None = None
    validate: Validate | None = None
    checkpoints: Checkpoints | None = None


def train_stacked(carrier: Any, adapters: StackedAdapters, cells: Sequence[Cell], *, device: str = "cpu",
                  micro_batch: int | None = None, deadline: float | None = None) -> list[Ended]:
    """Train the cells in place, each for its budget; how each one ended, in order.

    `adapters` are those of the cells, in order. The cells share `batch_sequences` and precision, which is not fp16: a
    loss scaler is one cell's. Lets the library's out-of-memory error through.
    """
    configs = [cell.config for cell in cells]
    assert len({(config.batch_sequences, config.precision) for config in configs}) == 1, "cells share no batch shape"
    assert configs[0].precision != "fp16" and not any(config.activation_checkpointing for config in configs)
    frozen = FrozenMatrices(carrier.to(device), configs[0].precision, offload=torch.device(device).type == "cuda")
    runs = [Run(cell.model, cell.components, cell.dataset, cell.config, cell.learning_rate, cell.streams, device,
                micro_batch, frozen=frozen) for cell in cells]
    carrier.train()
    steps = {number: run.steps(cell.on_metrics, cell.validate, cell.checkpoints, deadline)
             for number, (run, cell) in enumerate(zip(runs, cells, strict=True))}
    try:
        return _in_step(carrier, adapters, runs, steps, configs[0].precision)
    finally:
        carrier.eval()
        for run in runs:
            run.close()


def joined(batches: Mapping[int, Batch]) -> tuple[Batch, Places]:
    """The batches of cells as one, row after row and target after target, padded to the widest; equally many rows each."""
    parts = list(batches.values())
    width = max(part.input_ids.shape[1] for part in parts)
    plain = all(part.owner is None for part in parts)
    first_rows = np.cumsum([0, *(len(part.input_ids) for part in parts[:-1])])
    places = torch.cat([_places(part, width, int(row)) for part, row in zip(parts, first_rows, strict=True)])
    sources = [part.source_ids for part in parts if part.source_ids is not None]
    masks = [part.source_mask for part in parts if part.source_mask is not None]
    source_width = max((source.shape[1] for source in sources), default=0)
    batch = Batch(
        input_ids=_rows([part.input_ids for part in parts], width, 0),
        position_ids=None if plain else _rows([_positions(part) for part in parts], width, 0),
        owner=None if plain else _rows([_owner(part) for part in parts], width, -1),
        target_places=places, target_ids=torch.cat([part.target_ids for part in parts]),
        num_tokens=sum(part.num_tokens for part in parts),
        source_ids=_rows(sources, source_width, 0) if sources else None,
        source_mask=_rows(masks, source_width, False) if masks else None)
    return batch, Places(tuple(batches), tuple(part.input_ids.shape[1] for part in parts),
                         tuple(source.shape[1] for source in sources) if sources else None)


def _in_step(carrier: Any, adapters: StackedAdapters, runs: Sequence[Run],
             steps: Mapping[int, Generator[list[Batch], Tensor, TrainResult]], precision: Precision) -> list[Ended]:
    """Let all cells ask for a step, take it for those that do, and tell each its loss, until none asks.

    What a step takes is shared out evenly: on a GPU the first cell that reads a loss waits for the work of all.
    """
    ended: dict[int, Ended] = {}
    asked = _asked(steps, dict.fromkeys(steps), ended)
    while asked:
        before = {number: runs[number].totals.seconds for number in asked}
        started = time.monotonic()
        losses = _gradients(carrier, adapters, runs, asked, precision)
        seconds = time.monotonic() - started
        asked = _asked(steps, losses, ended)
        seconds += sum(runs[number].totals.seconds - then for number, then in before.items())
        for number, then in before.items():
            runs[number].totals.seconds = then + seconds / len(before)
            result = ended.get(number)
            if isinstance(result, TrainResult):
                ended[number] = replace(result, seconds=runs[number].totals.seconds)
    return [ended[number] for number in range(len(runs))]


def _asked(steps: Mapping[int, Generator[list[Batch], Tensor, TrainResult]], losses: Mapping[int, Tensor | None],
           ended: dict[int, Ended]) -> dict[int, list[Batch]]:
    """Tell cells their losses (None = it begins); the next step of those that go on. How the others end goes to `ended`."""
    asked: dict[int, list[Batch]] = {}
    for number, loss in losses.items():
        try:
            asked[number] = next(steps[number]) if loss is None else steps[number].send(loss)
        except StopIteration as end:
            ended[number] = end.value
        except (Diverged, OutOfTime) as error:
            ended[number] = error
    return asked


def _gradients(carrier: Any, adapters: StackedAdapters, runs: Sequence[Run], asked: Mapping[int, list[Batch]],
               precision: Precision) -> dict[int, Tensor]:
    """Add every cell's gradients for one step; each one's mean loss."""
    device = next(carrier.parameters()).device
    num_targets = {cell: sum(part.num_targets for part in parts) for cell, parts in asked.items()}
    losses = {cell: torch.zeros((), device=device) for cell in asked}
    with runs[0].frozen:
        for number, parts in enumerate(zip(*asked.values(), strict=True)):
            batch, places = joined(dict(zip(asked, parts, strict=True)))
            if batch.num_targets == 0:
                continue
            dropouts = Dropouts({cell: runs[cell].streams.torch_seed(dropout_purpose(runs[cell].step, number))
                                 for cell in asked})
            with autocast(device, precision):
                with adapters.routed(places, dropouts):
                    hidden = target_states(carrier, batch.to(device))  # (T, D)
                sizes = [part.num_targets for part in parts]
                shares = {cell: summed_cross_entropy(carrier, own, part.target_ids.to(device)) / num_targets[cell]
                          for cell, own, part in zip(asked, torch.split(hidden, sizes), parts, strict=True) if part.num_targets}
            torch.stack(list(shares.values())).sum().backward()  # type: ignore[no-untyped-call]
            for cell, share in shares.items():
                losses[cell] += share.detach()
    return losses


def _rows(parts: Sequence[Tensor], width: int, fill: float) -> Tensor:
    """(all rows, width)."""
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])


def _places(part: Batch, width: int, first_row: int) -> Tensor:
    """A part's target places (T,) in the rows of all parts."""
    own = part.input_ids.shape[1]
    return (part.target_places // own + first_row) * width + part.target_places % own


def _positions(part: Batch) -> Tensor:
    return part.position_ids if part.position_ids is not None else torch.arange(
        part.input_ids.shape[1], device=part.input_ids.device).expand_as(part.input_ids)


def _owner(part: Batch) -> Tensor:
    """One document a row owns all of it: padding behind it is invisible to it."""
    return part.owner if part.owner is not None else torch.zeros_like(part.input_ids)
