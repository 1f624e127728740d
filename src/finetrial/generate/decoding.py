"""Decode many prompts at once.

Prompts are sorted by length and go through a fixed number of slots. Finished rows leave at once; where the model allows
it the next prompts take their slots while the others go on, so that a batch has one tail and not one for every batch.
In fp32 each answer is the one that its prompt gets alone, up to rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetrial.errors import DataError, UserError, is_out_of_memory
from finetrial.generate.live import Live, live_rows
from finetrial.generate.sampling import Sampling
from finetrial.models import blocks
from finetrial.train.config import Precision
from finetrial.train.precision import autocast, held_for_inference

BATCH_TOKENS = 1 << 15  # places in all slots together
REFILL_SHARE = 0.25  # of the slots are empty before prompts are admitted between rows that go on
ENOUGH_SLOTS = 32  # beyond which more rows make a step hardly cheaper by the row


@dataclass(frozen=True)
class Generation:
    """The new tokens of one prompt, the end token included where it was reached."""

    ids: tuple[int, ...]
    finished: bool  # an end token was reached

    @property
    def without_end(self) -> tuple[int, ...]:
        """The tokens before the end token."""
        return self.ids[:-1] if self.finished else self.ids


def decode(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, max_new_tokens: int,
           end_tokens: Collection[int] = (), sampling: Sampling | None = None, names: Sequence[str] | None = None,
           batch_tokens: int = BATCH_TOKENS, precision: Precision = "fp32",
           on_done: Callable[[int], None] | None = None) -> list[Generation]:
    """The answer to each prompt, in their order: at most `max_new_tokens` tokens, greedy unless `sampling` is given.

    A prompt holds the ids that the model reads: for an encoder-decoder the encoder's input. Generation ends with the
    tokenizer's end token, or with one of `end_tokens`. `names` tell the streams of sampled rows apart; by default they are the prompts' numbers.
    Rows times width is kept below `batch_tokens`, halved when memory runs out. `on_done` is told how many prompts are
    done, whenever more are.

    Raises DataError for an empty prompt or one that, with its answer, is longer than the model's positions; ModelError
    for a model without a head; the library's out-of-memory error where not even one row fits.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    blocks.head(model)
    _check_prompts(model, prompts, max_new_tokens)
    names = [str(number) for number in range(len(prompts))] if names is None else names
    assert len(names) == len(prompts)
    task = _Task(model, frozenset({tokenizer.eos_token_id, *end_tokens}), prompts, names, max_new_tokens, sampling,
                 on_done or (lambda count: None))
    training, matrices = model.training, held_for_inference(model, precision)
    model.eval()
    try:
        with torch.no_grad(), autocast(next(model.parameters()).device, precision), matrices:
            for group in groups([len(prompt) for prompt in prompts], max_new_tokens, batch_tokens):
                _decode_group(task, group, batch_tokens)
    finally:
        matrices.restore()
        model.train(training)
    return [task.done[number] for number in range(len(prompts))]


def groups(lengths: Sequence[int], room: int, batch_tokens: int) -> list[list[int]]:
    """Numbers of prompts, longest first, in groups that share slots as wide as the longest of them needs.

    One group as long as its slots are ENOUGH_SLOTS: few and long batches waste less than narrow ones save. Where the
    longest prompts leave fewer, those that need less than half their width get narrower slots, and more of them.
    """
    found: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        width = lengths[found[-1][0]] + room if found else 0
        few = width * ENOUGH_SLOTS > batch_tokens
        if not found or (few and (lengths[number] + room) * 2 < width):
            found.append([])
        found[-1].append(number)
    return found


@dataclass
class _Row:
    """A prompt in flight."""

    number: int
    generator: np.random.Generator | None
    ids: list[int] = field(default_factory=list)


@dataclass
class _Task:
    """What is to be decoded, and what is done."""

    model: Any
    end_tokens: Collection[int | None]
    prompts: Sequence[Sequence[int]]
    names: Sequence[str]
    room: int  # the most new tokens
    sampling: Sampling | None
    on_done: Callable[[int], None]
    done: dict[int, Generation] = field(default_factory=dict)

    def row(self, number: int) -> _Row:
        """A prompt at its beginning, with its stream."""
        if self.sampling is None:
            return _Row(number, None)
        return _Row(number, self.sampling.streams.generator(f"sampling/{self.names[number]}"))

    def choose(self, logits: Tensor, rows: Sequence[_Row]) -> None:
        """Give each row its next token, from logits (R, V)."""
        if self.sampling is None:
            chosen = logits.argmax(1)
        else:
            uniforms = [row.generator.random() for row in rows if row.generator is not None]
            exact = logits.cpu() if logits.device.type == "mps" else logits  # which has no float64
            chosen = self.sampling.draw(exact, torch.tensor(uniforms, dtype=torch.float64, device=exact.device))
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.ids.append(token)

    def is_done(self, row: _Row) -> bool:
        """Whether the row has ended or is full; if so its answer is kept."""
        finished = row.ids[-1] in self.end_tokens
        if finished or len(row.ids) == self.room:
            self.done[row.number] = Generation(tuple(row.ids), finished)
        return row.number in self.done


def _decode_group(task: _Task, group: Sequence[int], batch_tokens: int) -> None:
    """Decode the prompts of a group; out of memory, those that are not done begin again in half as many slots."""
    longest = len(task.prompts[group[0]])
    slots = max(1, min(len(group), batch_tokens // (longest + task.room)))
    while waiting := [number for number in group if number not in task.done]:
        try:
            _go_through(task, deque(waiting), live_rows(task.model, min(slots, len(waiting)), longest, task.room))
        except RuntimeError as error:
            if slots == 1 or not is_out_of_memory(error):
                raise
            slots //= 2


def _go_through(task: _Task, waiting: deque[int], live: Live) -> None:
    """Every waiting prompt through the slots of `live`."""
    rows: list[_Row] = []
    slots = live.cache.num_slots
    while waiting or rows:
        if waiting and len(rows) <= (slots * (1 - REFILL_SHARE) if live.refills else 0):
            new = [task.row(waiting.popleft()) for _ in range(min(slots - len(rows), len(waiting)))]
            task.choose(live.admit([task.prompts[row.number] for row in new]), new)
            rows += new
        else:
            task.choose(live.step([row.ids[-1] for row in rows]), rows)
        _drop_finished(task, rows, live)


def _drop_finished(task: _Task, rows: list[_Row], live: Live) -> None:
    before = len(rows)
    for place in reversed(range(len(rows))):
        if task.is_done(rows[place]):
            live.drop(place)
            rows[place] = rows[-1]  # as the cache does it
            rows.pop()
    if len(rows) < before:
        task.on_done(len(task.done))


def _check_prompts(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    limit = blocks.max_positions(model.config)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompt {number} is empty", "a model needs at least one token to go on from")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            mends = [f"cut the prompt to {limit - max_new_tokens} tokens"] if limit > max_new_tokens else []
            mends += [f"lower max_new_tokens to {limit - len(prompt)}"] if limit > len(prompt) else []
            raise DataError(f"prompt {number} has {len(prompt)} tokens and up to {max_new_tokens} are generated, but the "
                            f"model has {limit} positions", ", or ".join(mends) or "cut the prompt and lower max_new_tokens")
