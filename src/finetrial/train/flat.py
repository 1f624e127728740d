"""Plain text for pretraining: one flat array of token ids, cut into rows in which every token is a target.

An `end_of_text` id stands between documents. Rows are [k * L, (k + 1) * L + 1): L inputs and, one further, their L
targets, so that no token is lost at a cut. By default a row is read straight through (GPT style, plain causal
attention); with `separate_documents` the documents of a row do not see each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from finetrial.errors import DataError
from finetrial.streams import Streams
from finetrial.train.batch import Batch
from finetrial.train.config import Budget, Training


@dataclass(frozen=True)
class FlatDataset:
    """Token ids of many documents, one after the other, in memory or memory-mapped."""

    ids: np.ndarray[tuple[int], np.dtype[np.uint16]]
    end_of_text: int
    separate_documents: bool = False

    @classmethod
    def open(cls, path: Path, *, end_of_text: int, separate_documents: bool = False) -> FlatDataset:
        """Map a `.npy` file of ids. Raises DataError if it is not a flat array of unsigned 16-bit integers."""
        ids = np.load(path, mmap_mode="r")
        if ids.ndim != 1 or ids.dtype != np.uint16:
            raise DataError(f"{path} holds {ids.dtype} of shape {ids.shape}; expected a flat array of uint16 ids",
                            "write it again with finetrial pretrain")
        return cls(ids, end_of_text, separate_documents)

    def batches(self, config: Training, streams: Streams) -> FlatBatches:
        """Rows of `config.sequence_length`, shuffled anew each epoch."""
        return FlatBatches(self, config, streams)


class FlatBatches:
    """The rows of a flat data set by step number (protocol `Batches`). Every batch is full."""

    def __init__(self, dataset: FlatDataset, config: Training, streams: Streams) -> None:
        self._dataset, self._streams = dataset, streams
        self._length, self._size = config.sequence_length, config.batch_sequences
        self._num_rows = (len(dataset.ids) - 1) // self._length
        if self._num_rows < 1:
            raise DataError(f"{len(dataset.ids)} tokens do not fill one row of {self._length}",
                            "lower sequence_length or give more text")
        self._orders: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = {}

    def num_steps(self, budget: Budget) -> int:
        """Steps a budget comes to, rounded up."""
        if budget.unit == "steps":
            return budget.amount
        rows = budget.amount * self._num_rows if budget.unit == "epochs" else -(-budget.amount // self._length)
        return -(-rows // self._size)

    def step(self, step: int, micro_batch: int | None) -> list[Batch]:
        """The micro-batches of a step: at most `micro_batch` rows each."""
        numbers = [self._row(row) for row in range(step * self._size, (step + 1) * self._size)]
        part = micro_batch or self._size
        return [self._batch(numbers[at:at + part]) for at in range(0, self._size, part)]

    def epoch(self, step: int) -> float:
        """How many epochs have been seen when `step` steps are done."""
        return step * self._size / self._num_rows

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, self._num_rows)
        if epoch not in self._orders:
            self._orders = {epoch: self._streams.generator(f"order/{epoch}").permutation(self._num_rows)}
        return int(self._orders[epoch][place])

    def _batch(self, rows: list[int]) -> Batch:
        span = self._length + 1
        tokens = torch.from_numpy(np.stack([
            self._dataset.ids[row * self._length:row * self._length + span] for row in rows]).astype(np.int64))
        inputs = tokens[:, :-1].contiguous()  # (R, L)
        positions = owner = None
        if self._dataset.separate_documents:
            ends = inputs == self._dataset.end_of_text
            owner = ends.cumsum(1) - ends.long()  # the end of a text belongs to the document it ends
            place = torch.arange(self._length).expand_as(inputs)
            starts = torch.zeros_like(inputs, dtype=torch.bool)
            starts[:, 1:] = ends[:, :-1]
            positions = place - torch.where(starts, place, 0).cummax(1).values
        return Batch(inputs, positions, owner, torch.arange(inputs.numel()), tokens[:, 1:].reshape(-1),
                     num_tokens=inputs.numel())
