"""Model, data and time -> study: lengths from the data, speeds from a few timed steps, the grid from the time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from finetrial.compare.arms import Way, make_arms
from finetrial.compare.inspect import Inspected, with_usable
from finetrial.compare.long_prompts import without_long_prompts
from finetrial.errors import UserError
from finetrial.plan.allocate import MIN_STEPS, Allocation, Speed, allocate
from finetrial.plan.bases import ResolvedBase
from finetrial.spec import Base, Contrast, Controls, Hypothesis, PositiveControl, Study, TaskUse
from finetrial.spec.study import Limits
from finetrial.train.config import Budget, Training

LEARN, KEEP = "learn", "keep"
SCALE, SIZE = "custom", "compare"
LONGEST, ROUND = 512, 32  # tokens of a row: no longer than most documents, in steps of 32
LARGEST_BATCH = 16
BRACKET = 3  # learning rates: the best one has a neighbour on both sides
MOST_SEEDS = 10  # as many of them are run as the time holds
MARGIN = 0.02  # nats per token: a difference of 2 % in perplexity


@dataclass(frozen=True)
class Effort:
    """How much one run of an arm does: tokens of an optimizer step, rows that are scored, points of its curve."""

    batch_tokens: int
    num_test: int
    num_val: int
    evaluations: int


EFFORTS = (Effort(4096, 200, 60, 4), Effort(2048, 120, 40, 2), Effort(1024, 60, 24, 1), Effort(512, 50, 16, 1))


@dataclass(frozen=True)
class Request:
    """What was asked: ways to adapt by arm name, the data, the limits under which to recommend."""

    written: Base
    base: ResolvedBase
    parameters: int | None
    ways: Mapping[str, Way]
    learn: Inspected
    keep: Inspected | None
    limits: Limits
    name: str = "compare"

    @property
    def data(self) -> dict[str, Inspected]:
        """The data by the name of their task."""
        return {LEARN: self.learn, **({KEEP: self.keep} if self.keep is not None else {})}

    def without_long_prompts(self, tokenizer: Any, folder: Path) -> Request:
        """The same, without rows whose prompts would be cut where they ask for the answer; the others are written to `folder`.
        Raises DataError where too few are left."""
        data = {name: without_long_prompts(one, name, tokenizer, self.row_tokens, self.base.form, folder)
                for name, one in self.data.items()}
        return replace(self, learn=data[LEARN], keep=data.get(KEEP))

    def with_usable_rows(self, tokenizer: Any) -> Request:
        """The same, with the rows counted that fit. Raises DataError where too few are left."""
        data = {name: with_usable(one, tokenizer, self.row_tokens, self.base.form) for name, one in self.data.items()}
        return replace(self, learn=data[LEARN], keep=data.get(KEEP))

    @property
    def row_tokens(self) -> int:
        """The longest row: what 95 % of the data fit into, within what the model has positions for."""
        longest = max(data.long_tokens for data in self.data.values())
        limit = min(self.base.max_positions or LONGEST, LONGEST)
        return min(limit, max(ROUND * 2, -(-longest // ROUND) * ROUND))


@dataclass(frozen=True)
class Timed:
    """What a few steps of one arm took: tokens per second in training and in scoring, seconds to begin, memory."""

    train_tokens_per_second: float
    predict_tokens_per_second: float
    start_seconds: float
    peak_bytes: int | None = None  # of the device; on a CPU the host's; None = not measured


@dataclass(frozen=True)
class Grid:
    """What is run for every arm, and how much a run does."""

    effort: Effort
    rates: int
    seeds: int
    steps: int
    seconds: float  # forecast, of everything from now on


LEAST = Grid(EFFORTS[-1], rates=2, seeds=3, steps=MIN_STEPS, seconds=0.0)


def study_name(learn: str) -> str:
    """`compare-<file>`: names the folder of the run."""
    return f"compare-{as_name(PurePath(learn).name.partition('.')[0]) or 'data'}"


def as_name(text: str) -> str:
    """Letters, digits, `.`, `_` and `-` of a text, as names in a study are written; '' if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")


def study_of(request: Request, grid: Grid) -> Study:
    """The study that is run, and written as study.yaml."""
    arms = make_arms(request.ways, request.parameters, grid.rates)
    roles = {LEARN: "learn", KEEP: "outside"}
    reference = arms[0].name
    held = ("quantization",) if any(arm.quantization for arm in arms) else ()
    return Study(
        name=request.name, scale=SCALE, size=SIZE,
        question=f"Which way of adapting {request.base.name} learns the new data best, and what does it forget?",
        bases=(request.written,),
        tasks=tuple(_use(name, data, roles[name], grid.effort) for name, data in request.data.items()), arms=arms,
        controls=Controls(reference=reference, positive=_positive(reference, has_keep=request.keep is not None)),
        hypotheses=_hypotheses({arm.name: arm.title for arm in arms}, has_keep=request.keep is not None),
        training=Training(budget=Budget(amount=grid.steps, unit="steps"), sequence_length=request.row_tokens,
                          batch_sequences=_batch(request, grid.effort), evaluations=grid.effort.evaluations),
        seeds=tuple(range(grid.seeds)), factors=("method", "rank", "targets", *held), limits=request.limits,
        notes=tuple(f"{name} has rows of {data.origin}, without {data.num_shared + data.num_long:,} that were left out"
                    for name, data in request.data.items() if data.origin))


def _positive(arm: str, *, has_keep: bool) -> PositiveControl:
    """What must do worse: ten times the rate on what is to be kept; without that, a hundredth of it on what is learned, since
    ten times may well learn better there."""
    return PositiveControl(arm=arm, task=KEEP) if has_keep else PositiveControl(arm=arm, task=LEARN, rate_factor=0.01)


def grid_for(seconds: float, timed: Mapping[str, Timed], processes: float, request: Request, spent: float = 0.0,
             known: Effort | None = None) -> Grid:
    """The grid for the seconds that are left: at the largest effort that leaves time for three learning rates.

    `processes`: how many runs go on at once; a fraction where the machine is busy. `spent`: seconds that are gone, for
    the message. `known`: the effort at which the arms were timed, if it is to be no larger; its profiles are there.
    Raises UserError where even the least does not fit.
    """
    first = next(iter(timed))
    found: Grid | None = None
    for effort in EFFORTS if known is None else EFFORTS[EFFORTS.index(known):]:
        speeds = {arm: _speed(one, effort, request) for arm, one in timed.items()}
        profiles = 0.0 if effort is known else sum(
            speed.start_seconds + _PROFILE_STEPS * speed.step_seconds for speed in speeds.values())
        try:
            made = allocate(seconds - profiles, speeds, jobs=processes, epoch_steps=epoch_steps(request, effort),
                            controls=(first, first), spent=spent + profiles)
        except UserError:
            if effort is EFFORTS[-1] and found is None:
                raise
            continue
        grid = _grid(effort, made, profiles)
        if made.rates >= BRACKET:
            return grid
        found = grid
    assert found is not None
    return found


def epoch_steps(request: Request, effort: Effort) -> int:
    """Optimizer steps of one epoch of the new data, packed."""
    tokens = request.learn.rows["train"] * min(request.learn.mean_tokens, request.row_tokens)
    return max(1, round(tokens / (request.row_tokens * _batch(request, effort))))


_PROFILE_STEPS = 8  # of training and scoring together, as the `profile` stage does them
_CURVE_ROWS = 32  # behind a point of the learning curve (`stages/train.py`)


def _grid(effort: Effort, made: Allocation, more_seconds: float) -> Grid:
    return Grid(effort, made.rates, made.seeds, made.steps, made.seconds + more_seconds)


def _speed(timed: Timed, effort: Effort, request: Request) -> Speed:
    """What one phase of an arm costs at an effort."""
    step_tokens = request.row_tokens * _batch(request, effort)
    scored = effort.evaluations * _CURVE_ROWS * min(request.learn.mean_tokens, request.row_tokens) + sum(
        (min(effort.num_val, data.rows["val"]) + min(effort.num_test, data.rows["test"]))
        * min(data.mean_tokens, request.row_tokens) for data in request.data.values())
    return Speed(step_tokens / timed.train_tokens_per_second, scored / timed.predict_tokens_per_second,
                 timed.start_seconds)


def _batch(request: Request, effort: Effort) -> int:
    return max(1, min(LARGEST_BATCH, effort.batch_tokens // request.row_tokens))


def _use(name: str, data: Inspected, role: Any, effort: Effort) -> TaskUse:
    return TaskUse(name=name, task=data.task, role=role, num_val=max(2, min(effort.num_val, data.rows["val"])),
                   num_test=max(2, min(effort.num_test, data.rows["test"])),
                   metrics=("nats-per-token", "perplexity", "bits-per-byte"))


def _hypotheses(titles: Mapping[str, str], *, has_keep: bool) -> tuple[Hypothesis, ...]:
    """Every arm against the first: on the new data, and in what it forgets at the same plasticity."""
    first, *others = titles
    made = []
    for number, other in enumerate(others, start=1):
        made.append(Hypothesis(
            name=f"L{number}", statement=f"{_capital(titles[first])} learns the new data better than {titles[other]}.",
            contrast=Contrast(left=first, right=other, task=LEARN, expect="greater", margin=MARGIN)))
        if has_keep:
            made.append(Hypothesis(
                name=f"F{number}", statement=f"{_capital(titles[other])} forgets less than {titles[first]}, where both "
                                             "have learned as much.",
                contrast=Contrast(left=other, right=first, quantity="forgetting-at-matched-plasticity", task=KEEP,
                                  learned=LEARN, expect="less", margin=MARGIN)))
    return tuple(made)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
