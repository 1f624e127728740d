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

import torch

from finetrial.errors import DataError, UserError, is_out_of_memory
from finetrial.generate.answers import Answer, Chooser, Generation, chooser
from finetrial.generate.beams import Beams
from finetrial.generate.constraints import Constraints
from finetrial.generate.live import Live, live_rows
from finetrial.generate.sampling import Sampling
from finetrial.models import blocks
from finetrial.train.config import Precision
from finetrial.train.precision import autocast, held_for_inference

BATCH_TOKENS = 1 << 15  # places in all slots together
REFILL_SHARE = 0.25  # of the slots are empty before prompts are admitted between rows that go on
ENOUGH_SLOTS = 32  # beyond which more rows make a step hardly cheaper by the row


def decode(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, max_new_tokens: int,
           end_tokens: Collection[int] = (), sampling: Sampling | None = None, beams: Beams | None = None,
           constraints: Constraints | None = None, names: Sequence[str] | None = None, batch_tokens: int = BATCH_TOKENS,
           precision: Precision = "fp32", on_done: Callable[[int], None] | None = None) -> list[Generation]:
    """The answer to each prompt, in their order: at most `max_new_tokens` tokens, greedy unless `sampling` or `beams` is given.

    A prompt holds the ids that the model reads: for an encoder-decoder the encoder's input. Generation ends with the
    tokenizer's end token, or with one of `end_tokens`. `names` tell the streams of sampled rows apart; by default they are the prompts' numbers.
    Rows times width is kept below `batch_tokens`, halved when memory runs out. `on_done` is told how many prompts are
    done, whenever more are.

    Raises UserError for sampling with beams, and for less room than `constraints` ask for; DataError for an empty prompt
    or one that, with its answer, is longer than the model's positions; ModelError for a model without a head; the library's
    out-of-memory error where not even one answer fits.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    blocks.head(model)
    _check_prompts(model, prompts, max_new_tokens)
    names = [str(number) for number in range(len(prompts))] if names is None else names
    assert len(names) == len(prompts)
    if constraints is not None and constraints.min_new_tokens > max_new_tokens:
        raise UserError(f"min_new_tokens is {constraints.min_new_tokens}, and max_new_tokens {max_new_tokens}",
                        "the least an answer must have is at most the most it may have")
    ends = frozenset(token for token in (tokenizer.eos_token_id, *end_tokens) if token is not None)
    task = _Task(model, prompts, chooser(ends, max_new_tokens, names, sampling, beams, constraints or Constraints()),
                 max_new_tokens, on_done or (lambda count: None))
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
class _Task:
    """What is to be decoded, and what is done."""

    model: Any
    prompts: Sequence[Sequence[int]]
    chooser: Chooser[Any]
    room: int  # the most new tokens
    on_done: Callable[[int], None]
    done: dict[int, Generation] = field(default_factory=dict)


def _decode_group(task: _Task, group: Sequence[int], batch_tokens: int) -> None:
    """Decode the prompts of a group; out of memory, those that are not done begin again, half as many at a time."""
    longest, each = len(task.prompts[group[0]]), task.chooser.slots
    most = max(1, min(len(group), batch_tokens // (longest + task.room) // each))
    while waiting := [number for number in group if number not in task.done]:
        try:
            slots = min(most, len(waiting)) * each
            _go_through(task, deque(waiting), live_rows(task.model, slots, longest, task.room))
        except RuntimeError as error:
            if most == 1 or not is_out_of_memory(error):
                raise
            most //= 2


def _go_through(task: _Task, waiting: deque[int], live: Live) -> None:
    """Every waiting prompt through the slots of `live`."""
    answers: list[Answer] = []
    chooser, most = task.chooser, live.cache.num_slots // task.chooser.slots
    while waiting or answers:
        if waiting and len(answers) <= (most * (1 - REFILL_SHARE) if live.refills else 0):
            new = [chooser.begin(waiting.popleft()) for _ in range(min(most - len(answers), len(waiting)))]
            chooser.choose(live.admit([task.prompts[answer.number] for answer in new], chooser.slots), new)
            answers += new
        else:
            chooser.choose(live.step([token for answer in answers for token in answer.tokens]), answers)
            live.move(chooser.moves(answers))
        _drop_finished(task, answers, live)


def _drop_finished(task: _Task, answers: list[Answer], live: Live) -> None:
    before, slots = len(answers), task.chooser.slots
    for place in reversed(range(len(answers))):
        if (done := answers[place].done) is not None:
            task.done[answers[place].number] = done
            for slot in reversed(range(place * slots, (place + 1) * slots)):
                live.drop(slot)
            answers[place] = answers[-1]  # as the cache does it
            answers.pop()
    if len(answers) < before:
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
