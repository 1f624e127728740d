"""Batches: what the model is given at one optimizer step, found by the step's number alone.

Training reads an endless stream of rows: epoch after epoch, each a new shuffle drawn from the stream `order/<epoch>`,
which knows neither method nor rate. Step s takes rows [s * batch_sequences, (s + 1) * batch_sequences), so resuming
needs only the step. A row holds one document, or with packing several that do not see each other: positions restart
and attention is block-diagonal, so a document's logits are those it has alone.

For an encoder-decoder a document is a pair: the encoder reads its source, the decoder predicts every one of its ids
from those before. Pairs are not packed; a row is one pair.

Shapes: R rows, L tokens in a row, S tokens in a source, T targets (tokens that are predicted) in the batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from finetrial.errors import DataError
from finetrial.streams import Streams
from finetrial.train.config import Budget, Training
from finetrial.train.packing import IntArray, Row, pack

BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


TokenIds = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


class Documents(Protocol):
    """What this file reads of `tasks.encode.TokenDataset`; pairs have `source_ids` and `source_offsets` besides."""

    @property
    def ids(self) -> TokenIds: ...
    @property
    def loss_mask(self) -> BoolArray: ...
    @property
    def offsets(self) -> IntArray: ...


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass. Rows of one document need neither positions nor owners: both are None."""

    input_ids: Tensor  # (R, L) int64
    position_ids: Tensor | None  # (R, L) int64; None: 0..L-1
    owner: Tensor | None  # (R, L) int64, the number of the document in its row, -1 for padding; None: plain causal
    target_places: Tensor  # (T,) int64, flat places in (R * L) whose hidden state predicts a target
    target_ids: Tensor  # (T,) int64
    num_tokens: int  # real tokens, sources counted, padding not
    source_ids: Tensor | None = None  # (R, S) int64, what the encoder reads; None: no encoder
    source_mask: Tensor | None = None  # (R, S) bool, False for padding

    @property
    def num_targets(self) -> int:
        """T."""
        return int(self.target_ids.shape[0])

    def without_targets(self) -> Batch:
        """The same rows, of which no loss is taken."""
        return replace(self, target_places=self.target_places[:0], target_ids=self.target_ids[:0])

    def attention(self) -> Tensor | None:
        """The additive mask (R, 1, L, L) under which a token sees only earlier tokens of its own document.

        None where plain causal attention is right. Under autocast in its type, since every layer would cast it anew and keep
        its own. Padding sees itself only, so that no row of scores is empty; causal
        order makes padding on the right invisible to what is before it.
        """
        if self.owner is None:
            return None
        width = self.owner.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.owner.device).tril()
        seen = (self.owner[:, :, None] == self.owner[:, None, :]) & causal
        kind = seen.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))[:, None]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return Batch(self.input_ids.to(device, non_blocking=True), moved(self.position_ids), moved(self.owner),
                     self.target_places.to(device, non_blocking=True), self.target_ids.to(device, non_blocking=True),
                     self.num_tokens, moved(self.source_ids), moved(self.source_mask))


class Batches(Protocol):
    """What the loop needs of data: how many steps a budget comes to, and the micro-batches of a step."""

    def num_steps(self, budget: Budget) -> int: ...
    def step(self, step: int, micro_batch: int | None) -> list[Batch]: ...
    def epoch(self, step: int) -> float: ...


@runtime_checkable
class BatchSource(Protocol):
    """Data that makes its own batches, such as the flat text of pretraining."""

    def batches(self, config: Training, streams: Streams) -> Batches: ...


class DocumentBatches:
    """Batches of documents, each seen once an epoch. `start_id` opens the decoder's input where documents are pairs.

    Raises DataError if there is nothing to train on, or a document (of a pair: its source or its ids) is longer than a
    row.
    """

    def __init__(self, dataset: Documents, config: Training, streams: Streams, *, pad_id: int = 0,
                 start_id: int = 0) -> None:
        self._dataset, self._config, self._streams = dataset, config, streams
        self._pad_id, self._start_id = pad_id, start_id
        self._lengths = np.diff(dataset.offsets)
        check_lengths(longest_sides(dataset), config.sequence_length)
        pairs = sources_of(dataset)
        self._packing = config.packing and pairs is None
        if pairs is not None:
            self._lengths = self._lengths + np.diff(pairs[1])
        if target_counts(dataset).sum() == 0:
            raise DataError(f"none of the {len(self._lengths)} training documents has a token to learn",
                            "check the task's rendering, or raise its maximum length: the targets may have been cut")
        self._rows_of_epoch = lru_cache(maxsize=2)(self._pack_epoch)
        self._first_row = [0]  # number of the first row of each epoch seen so far, and of the next

    def num_steps(self, budget: Budget) -> int:
        """Steps a budget comes to: a token budget ends with the step that reaches it, and the last step of an epoch
        budget is filled up from the epoch after."""
        size = self._config.batch_sequences
        if budget.unit == "steps":
            return budget.amount
        if budget.unit == "epochs":
            return -(-self._start_of(budget.amount) // size)
        rows, tokens, epoch = 0, 0, 0
        while True:
            per_row = np.array([self._lengths[list(row)].sum() for row in self._rows_of_epoch(epoch)])
            reached = tokens + np.cumsum(per_row)
            if reached[-1] >= budget.amount:
                return -(-(rows + int(np.searchsorted(reached, budget.amount)) + 1) // size)
            rows, tokens, epoch = rows + len(per_row), int(reached[-1]), epoch + 1

    def step(self, step: int, micro_batch: int | None) -> list[Batch]:
        """The micro-batches of a step: at most `micro_batch` rows each."""
        size = self._config.batch_sequences
        rows = [self._row(number) for number in range(step * size, (step + 1) * size)]
        if not self._packing:  # rows of like length together: less padding in each micro-batch
            rows.sort(key=lambda row: int(self._lengths[row[0]]))
        part = micro_batch or size
        return [make_batch(self._dataset, rows[at:at + part], pad_id=self._pad_id, start_id=self._start_id)
                for at in range(0, size, part)]

    def epoch(self, step: int) -> float:
        """How many epochs have been seen when `step` steps are done."""
        row = step * self._config.batch_sequences
        epoch = self._epoch_of(row)
        start = self._start_of(epoch)
        return epoch + (row - start) / (self._start_of(epoch + 1) - start)

    def _row(self, number: int) -> Row:
        epoch = self._epoch_of(number)
        return self._rows_of_epoch(epoch)[number - self._start_of(epoch)]

    def _start_of(self, epoch: int) -> int:
        while len(self._first_row) <= epoch:
            self._first_row.append(self._first_row[-1] + len(self._rows_of_epoch(len(self._first_row) - 1)))
        return self._first_row[epoch]

    def _epoch_of(self, row: int) -> int:
        while self._first_row[-1] <= row:
            self._start_of(len(self._first_row))
        return bisect_left(self._first_row, row + 1) - 1

    def _pack_epoch(self, epoch: int) -> list[Row]:
        order = self._streams.generator(f"order/{epoch}").permutation(len(self._lengths))
        if not self._packing:
            return [(int(document),) for document in order]
        return pack(order, self._lengths, self._config.sequence_length)


def make_batch(dataset: Documents, rows: Sequence[Row], *, pad_id: int = 0, start_id: int = 0) -> Batch:
    """Rows of documents as tensors, padded on the right to the longest row. Padding is no target and is not attended.

    A target is a token whose `loss_mask` is set; the hidden state before it predicts it, so the first token of a
    document cannot be one. Of pairs, every id is a target: `start_id` and the ids before it are the decoder's input.
    """
    pairs = sources_of(dataset)
    if pairs is not None:
        documents = [document for [document] in rows]
        return pair_batch([pairs[0][pairs[1][d]:pairs[1][d + 1]] for d in documents],
                          [dataset.ids[dataset.offsets[d]:dataset.offsets[d + 1]] for d in documents],
                          pad_id=pad_id, start_id=start_id)
    lengths = np.diff(dataset.offsets)
    width = max(int(lengths[list(row)].sum()) for row in rows)
    ids = np.full((len(rows), width), pad_id, np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    owner = np.full((len(rows), width), -1, np.int64)
    target = np.zeros((len(rows), width), bool)
    for r, row in enumerate(rows):
        at = 0
        for place, document in enumerate(row):
            first, last = dataset.offsets[document], dataset.offsets[document + 1]
            part = slice(at, at + last - first)
            ids[r, part] = dataset.ids[first:last]
            positions[r, part] = np.arange(last - first)
            owner[r, part] = place
            target[r, part] = dataset.loss_mask[first:last]
            target[r, at] = False
            at += last - first
    one_document = all(len(row) == 1 for row in rows)
    places = np.flatnonzero(target)
    return Batch(
        input_ids=torch.from_numpy(ids),
        position_ids=None if one_document else torch.from_numpy(positions),
        owner=None if one_document else torch.from_numpy(owner),
        target_places=torch.from_numpy(places - 1),
        target_ids=torch.from_numpy(ids.reshape(-1)[places]),
        num_tokens=int((owner >= 0).sum()))


def pair_batch(sources: Sequence[TokenIds], targets: Sequence[TokenIds], *, pad_id: int, start_id: int) -> Batch:
    """A batch for an encoder-decoder: row r reads `sources[r]` and predicts every token of `targets[r]`."""
    source_ids, source_mask = _padded(sources, pad_id)
    labels, real = _padded(targets, pad_id)
    inputs = np.concatenate([np.full((len(labels), 1), start_id, np.int64), labels[:, :-1]], axis=1)
    places = np.flatnonzero(real)
    return Batch(
        input_ids=torch.from_numpy(inputs), position_ids=None, owner=None, target_places=torch.from_numpy(places),
        target_ids=torch.from_numpy(labels.reshape(-1)[places]), num_tokens=int(real.sum() + source_mask.sum()),
        source_ids=torch.from_numpy(source_ids), source_mask=torch.from_numpy(source_mask))


def _padded(rows: Sequence[TokenIds], pad_id: int) -> tuple[IntArray, BoolArray]:
    """Rows padded on the right to the longest, and where they are real."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad_id, np.int64)
    ids[real] = np.concatenate(rows)
    return ids, real


def sources_of(dataset: Documents) -> tuple[TokenIds, IntArray] | None:
    """(source ids, source offsets) of a data set of pairs; None for one of plain documents."""
    ids = getattr(dataset, "source_ids", None)
    return None if ids is None else (ids, getattr(dataset, "source_offsets"))  # noqa: B009


def longest_sides(dataset: Documents) -> IntArray:
    """The tokens of each document (int64); of a pair, those of the longer of source and ids."""
    lengths: IntArray = np.diff(dataset.offsets)
    pairs = sources_of(dataset)
    return lengths if pairs is None else np.maximum(lengths, np.diff(pairs[1]))


def target_counts(dataset: Documents) -> IntArray:
    """The number of targets of each document (int64): its set `loss_mask`s without that of its first token, which
    nothing predicts. Of pairs, the first counts too."""
    if sources_of(dataset) is not None:
        return np.diff(dataset.offsets)
    mask = dataset.loss_mask.astype(np.int64)
    starts = dataset.offsets[:-1]
    sums = np.concatenate([[0], np.cumsum(mask)])
    filled = starts < dataset.offsets[1:]
    first = np.zeros(len(starts), np.int64)
    first[filled] = mask[starts[filled]]
    counts: IntArray = sums[dataset.offsets[1:]] - sums[starts] - first
    return counts


def check_lengths(lengths: IntArray, longest: int, *, what: str = "a row of training (sequence_length)") -> None:
    """Raise DataError, with the numbers, if a document has more tokens than `longest` or there is no document."""
    if len(lengths) == 0:
        raise DataError("there is no document in the data set", "choose a larger split")
    if (too_long := int((lengths > longest).sum())) > 0:
        worst = int(lengths.argmax())
        raise DataError(
            f"{too_long} of {len(lengths)} documents are longer than {what}, which holds {longest} tokens; "
            f"document {worst} has {int(lengths[worst])}",
            "let the task cut its documents (maximum length in tokens), or raise the limit if the model allows it")
