"""Pretraining rows of an encoder-decoder: prefix to suffix, lost lines, and corrupted text (Raffel et al. 2020, sections
3.2 and 3.3; Zhang et al. 2020, PEGASUS; Lewis et al. 2020, BART).

The flat text is cut into pieces that stay inside their documents; each gives one pair (source, target) an epoch:

- prefix to suffix: the piece is cut in two near a random place, at the start of a line if there is one, and the decoder
  goes on where the encoder stopped. A suffix ends before a blank line if it can, and is then complete: the end token
  closes it. One that is cut anywhere stays open, so that the end is learned only where something ends;
- lost lines: a run of whole lines is replaced by one sentinel, and asked for. As the gap sentences of PEGASUS (section
  2.1; drawn at random) they teach to write from what stands on both sides;
- corrupted text: a share of the tokens is replaced, span by span, by sentinels. The target lists every sentinel with
  what it stands for, or is the whole text as it was (text infilling, Lewis et al. 2020, section 2.2), most of which is
  in the source: that teaches to copy. The end token closes it.

The first `copied_first` rows are corrupted text alone, in short stretches: a decoder that reads its source from the
beginning goes on reading it, one that has learned to do without it does not begin (docs/lab-notebook.md).

Every source is closed by the end token, as the base's tokenizer closes its texts. Row n draws from its own stream
`noise/<n>`, so a row is found by its number alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetrial.errors import DataError
from finetrial.streams import Streams
from finetrial.train.batch import Batch, pair_batch
from finetrial.train.config import Budget, Training
from finetrial.train.flat import FlatDataset

LINE_REACH_TOKENS = 48  # how far a cut moves on to reach the start of a line

Ids = NDArray[np.int32]
CorruptedTarget = Literal["spans", "text"]


@dataclass(frozen=True)
class Marks:
    """The token ids that give a pair its form."""

    end: int  # closes every source, and every target that is complete
    start: int  # what the decoder is given first; padding too
    sentinels: range
    line_breaks: NDArray[np.bool_]  # [V]: the token opens with a line break
    blank_lines: NDArray[np.bool_]  # [V]: the token opens with two or more


@dataclass(frozen=True)
class Objective:
    """What a row asks for. Lengths are (shortest, longest) in tokens of text: end token and sentinels not counted.

    `prefix_share` of the rows are prefixes to suffixes, `lines_share` ask for lost lines; the others are corrupted and ask
    for the lost spans or the text.
    """

    prefix_share: float = 0.75
    lines_share: float = 0.0
    source_tokens: tuple[int, int] = (64, 384)  # drawn log-uniformly
    target_tokens: tuple[int, int] = (32, 160)  # drawn uniformly
    lines_tokens: tuple[int, int] = (4, 64)  # drawn uniformly, then to the end of a line
    noise_density: float = 0.15
    mean_span_tokens: float = 3.0
    corrupted_target: CorruptedTarget = "spans"
    copied_first: int = 0  # rows; the shares hold from there on
    copied_tokens: tuple[int, int] = (16, 128)  # drawn log-uniformly: stretches of those rows

    @property
    def piece_tokens(self) -> int:
        """The longest piece of text a row can need."""
        return self.source_tokens[1] + self.target_tokens[1]


@dataclass(frozen=True)
class Pair:
    """What the encoder reads, and what the decoder shall write."""

    source: Ids
    target: Ids

    @property
    def num_tokens(self) -> int:
        """Tokens of both."""
        return len(self.source) + len(self.target)


@dataclass(frozen=True, kw_only=True)
class PrefixSpanDataset(FlatDataset):
    """A flat text read as pairs."""

    marks: Marks
    objective: Objective = Objective()

    def batches(self, config: Training, streams: Streams) -> PairBatches:  # type: ignore[override]
        """Pairs by step number, in a new order and newly drawn each epoch."""
        return PairBatches(self, config, streams)


class PairBatches:
    """The pairs of a flat text by step number (protocol `Batches`). Every batch is full.

    Raises DataError if no document is as long as the shortest source and target together.
    """

    def __init__(self, dataset: PrefixSpanDataset, config: Training, streams: Streams) -> None:
        self._dataset, self._streams, self._size = dataset, streams, config.batch_sequences
        self._pieces = pieces(dataset.ids, dataset.end_of_text, dataset.objective)
        if len(self._pieces) == 0:
            raise DataError(f"none of the documents in {len(dataset.ids)} tokens is long enough for a source of "
                            f"{dataset.objective.source_tokens[0]} tokens and a target of "
                            f"{dataset.objective.target_tokens[0]}", "give more text, or ask for shorter pairs")
        self._orders: dict[int, NDArray[np.int64]] = {}

    def num_steps(self, budget: Budget) -> int:
        """Steps a budget comes to, rounded up; for tokens (of sources and targets) the pairs are drawn and counted."""
        if budget.unit == "steps":
            return budget.amount
        if budget.unit == "epochs":
            return -(-budget.amount * len(self._pieces) // self._size)
        num_rows = num_tokens = 0
        while num_tokens < budget.amount:
            num_tokens += self.pair(num_rows).num_tokens
            num_rows += 1
        return -(-num_rows // self._size)

    def step(self, step: int, micro_batch: int | None) -> list[Batch]:
        """The micro-batches of a step: at most `micro_batch` pairs each, of like lengths together."""
        part = micro_batch or self._size
        drawn = alike([self.pair(number) for number in range(step * self._size, (step + 1) * self._size)], part)
        return [self._batch(drawn[at:at + part]) for at in range(0, self._size, part)]

    def epoch(self, step: int) -> float:
        """How many epochs have been seen when `step` steps are done."""
        return step * self._size / len(self._pieces)

    def pair(self, number: int) -> Pair:
        """Row `number` of the endless stream of rows."""
        data = self._dataset
        first, last = self.piece(number)
        text = data.ids[first:last].astype(np.int32)
        generator = self._streams.generator(f"noise/{number}")
        if number < data.objective.copied_first:
            short = replace(data.objective, source_tokens=data.objective.copied_tokens)
            return corrupted(text, generator, data.marks, short)
        kind = generator.random()
        if kind < data.objective.prefix_share:
            ends_document = last == len(data.ids) or int(data.ids[last]) == data.end_of_text
            return prefix_to_suffix(text, ends_document, generator, data.marks, data.objective)
        if kind < data.objective.prefix_share + data.objective.lines_share:
            return lost_lines(text, generator, data.marks, data.objective)
        return corrupted(text, generator, data.marks, data.objective)

    def piece(self, number: int) -> tuple[int, int]:
        """The places in the text that row `number` is drawn from: [first, last)."""
        epoch, place = divmod(number, len(self._pieces))
        if epoch not in self._orders:
            self._orders = {epoch: self._streams.generator(f"order/{epoch}").permutation(len(self._pieces))}
        first, last = self._pieces[self._orders[epoch][place]]
        return int(first), int(last)

    def _batch(self, drawn: Sequence[Pair]) -> Batch:
        start = self._dataset.marks.start
        return pair_batch([pair.source for pair in drawn], [pair.target for pair in drawn], pad_id=start,
                          start_id=start)


def alike(drawn: Sequence[Pair], part: int) -> list[Pair]:
    """The pairs in an order in which runs of `part` are of like lengths, source and target: by target into strata, as
    many as there are runs in each, and by source inside them. For 32 pairs in parts of 4, a fifth of what the blocks
    compute is padding; in the order of their sums it is more than a quarter."""
    runs = -(-len(drawn) // part)
    stratum = -(-runs // round(math.sqrt(runs))) * part
    by_target = sorted(drawn, key=lambda pair: len(pair.target))
    return [pair for at in range(0, len(drawn), stratum)
            for pair in sorted(by_target[at:at + stratum], key=lambda pair: len(pair.source))]


def pieces(ids: NDArray[np.uint16], end_of_text: int, objective: Objective) -> NDArray[np.int64]:
    """Documents cut into nearly equal pieces of at most `objective.piece_tokens`: [n, 2], (first, past the last).

    Documents shorter than the shortest source and target together are left out.
    """
    ends = np.flatnonzero(ids == end_of_text)
    starts = np.concatenate([[0], ends + 1])
    ends = np.append(ends, len(ids))
    kept = ends - starts >= objective.source_tokens[0] + objective.target_tokens[0]
    found = []
    for start, end in zip(starts[kept], ends[kept], strict=True):
        cuts = np.linspace(start, end, -(-(end - start) // objective.piece_tokens) + 1).astype(np.int64)
        found.append(np.stack([cuts[:-1], cuts[1:]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def prefix_to_suffix(text: Ids, ends_document: bool, generator: np.random.Generator, marks: Marks,
                     objective: Objective) -> Pair:
    """A source that ends where the target begins. `text` holds at least a shortest source and target."""
    shortest_target, longest_target = objective.target_tokens
    shortest_source, longest_source = objective.source_tokens
    wanted = int(generator.integers(shortest_target, longest_target + 1))
    wanted = min(wanted, len(text) - shortest_source)
    cut = int(generator.integers(shortest_source, len(text) - wanted + 1))
    breaks = np.flatnonzero(marks.line_breaks[text[cut - 1:min(cut + LINE_REACH_TOKENS, len(text) - shortest_target)]])
    if len(breaks):
        cut += int(breaks[0])  # the break itself, with the indentation after it, is the source's last token
    source_length = min(_log_uniform(generator, shortest_source, longest_source), cut)
    end, complete = _suffix_end(text, cut, cut + wanted, shortest_target, ends_document, marks)
    target = text[cut:end]
    return Pair(np.append(text[cut - source_length:cut], np.int32(marks.end)),
                np.append(target, np.int32(marks.end)) if complete else target)


def lost_lines(text: Ids, generator: np.random.Generator, marks: Marks, objective: Objective) -> Pair:
    """A stretch of `text` with a run of lines replaced by the first sentinel, and that run.

    The line break before the run and the one after it stay in the source. Where no line ends in time, tokens are taken.
    """
    stretch = _stretch(text, generator, objective)
    shortest, longest = objective.lines_tokens
    wanted = int(generator.integers(shortest, min(longest, len(stretch) - 1) + 1))
    breaks = np.flatnonzero(marks.line_breaks[stretch])
    starts = breaks[breaks + 1 + wanted <= len(stretch)] + 1
    start = int(generator.choice(starts)) if len(starts) else int(generator.integers(0, len(stretch) - wanted + 1))
    ends = breaks[(breaks >= start + shortest) & (breaks <= start + wanted)]
    end = int(ends[-1]) if len(ends) else start + wanted
    sentinel, close = np.int32(marks.sentinels[0]), np.int32(marks.end)
    return Pair(np.concatenate([stretch[:start], [sentinel], stretch[end:], [close]]).astype(np.int32),
                np.append(stretch[start:end], close))


def corrupted(text: Ids, generator: np.random.Generator, marks: Marks, objective: Objective) -> Pair:
    """A stretch of `text` with spans replaced by sentinels, and those spans or the whole stretch.

    As `random_spans_noise_mask` and `noise_span_to_unique_sentinel` of the text-to-text-transfer-transformer code:
    the number of noise tokens and of spans is fixed by the length, their lengths are random, a stretch that is kept
    comes first.
    """
    stretch = _stretch(text, generator, objective)
    length = len(stretch)
    num_noise = min(max(round(length * objective.noise_density), 1), length - 1)
    num_spans = min(max(round(num_noise / objective.mean_span_tokens), 1), num_noise, length - num_noise,
                    len(marks.sentinels))
    kept = _segment(generator, length - num_noise, num_spans)
    lost = _segment(generator, num_noise, num_spans)
    edges = np.cumsum(np.stack([kept, lost], axis=1).ravel())
    source: list[int] = []
    target: list[int] = []
    at = 0
    for sentinel, start, end in zip(marks.sentinels, edges[::2], edges[1::2], strict=False):
        source += [*stretch[at:start], sentinel]
        target += [sentinel, *stretch[start:end]]
        at = end
    if objective.corrupted_target == "text":
        target = stretch.tolist()
    return Pair(np.array([*source, marks.end], np.int32), np.array([*target, marks.end], np.int32))


def _stretch(text: Ids, generator: np.random.Generator, objective: Objective) -> Ids:
    """A part of `text` as long as a source, anywhere in it."""
    length = min(_log_uniform(generator, *objective.source_tokens), len(text))
    first = int(generator.integers(0, len(text) - length + 1))
    return text[first:first + length]


def _suffix_end(text: Ids, start: int, end: int, shortest: int, ends_document: bool, marks: Marks) -> tuple[int, bool]:
    """Where a suffix of `text` from `start` to about `end` stops, and whether something ends there."""
    if end >= len(text) and ends_document:
        return len(text), True
    blank = np.flatnonzero(marks.blank_lines[text[start + shortest:end + 1]])
    if len(blank):
        return start + shortest + int(blank[-1]), True
    return min(end, len(text)), False


def _segment(generator: np.random.Generator, total: int, parts: int) -> NDArray[np.int64]:
    """`total` split at random into `parts` positive integers, each way equally likely. [parts]"""
    cuts = np.sort(generator.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _log_uniform(generator: np.random.Generator, low: int, high: int) -> int:
    return round(math.exp(generator.uniform(math.log(low), math.log(high))))
