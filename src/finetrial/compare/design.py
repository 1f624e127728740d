"""From model, data and time to a study: lengths from the data, speeds from a few timed steps, the grid from the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.compare.arms import make_arms
from finetrial.compare.inspect import Inspected
from finetrial.methods.base import Method
from finetrial.plan.allocate import MIN_STEPS, Allocation, Speed, allocate
from finetrial.plan.bases import ResolvedBase
from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.run.execute import ExecutionResult
from finetrial.spec import Base, Contrast, Controls, Hypothesis, PositiveControl, Study, TaskUse
from finetrial.spec.study import Limits
from finetrial.train.config import Budget, Training

LEARN, KEEP = "learn", "keep"
LONGEST, ROUND = 512, 32  # tokens of a row: no longer than most documents, in steps of 32
BATCH_TOKENS, LARGEST_BATCH = 4096, 16
MOST_TEST, MOST_VAL = 200, 60
START_SECONDS = 1.5  # loading a small model, writing weights; larger models are dominated by their steps
MARGIN = 0.02  # nats per token: a difference of 2 % in perplexity


@dataclass(frozen=True)
class Request:
    """What was asked: methods by arm name, the data, the limits under which to recommend."""

    base: ResolvedBase
    parameters: int | None
    methods: Mapping[str, Method]
    learn: Inspected
    keep: Inspected | None
    limits: Limits


def first_study(request: Request) -> Study:
    """The study with the least grid: what is timed."""
    return study_of(request, Allocation(rates=2, seeds=3, steps=MIN_STEPS, seconds=0.0))


def study_of(request: Request, grid: Allocation) -> Study:
    """The study that is run, and written as study.yaml."""
    arms = make_arms(request.methods, request.base.config, request.parameters, grid.rates)
    tasks = [_use(LEARN, request.learn, "learn")]
    if request.keep is not None:
        tasks.append(_use(KEEP, request.keep, "outside"))
    reference = arms[0].name
    positive = PositiveControl(arm=reference, task=KEEP if request.keep is not None else LEARN)
    return Study(
        name="compare", scale="custom", size="compare",
        question=f"Which way of adapting {request.base.name} learns the new data best, and what does it forget?",
        bases=(Base(name=request.base.name, source=str(request.base.folder)),), tasks=tuple(tasks), arms=arms,
        controls=Controls(reference=reference, positive=positive), hypotheses=_hypotheses(request, [a.name for a in arms]),
        training=Training(budget=Budget(amount=grid.steps, unit="steps"), sequence_length=_length(request),
                          batch_sequences=_batch(request)),
        seeds=tuple(range(grid.seeds)), factors=("method", "rank", "targets"), limits=request.limits)


def epoch_steps(request: Request) -> int:
    """Optimizer steps of one epoch of the new data, packed."""
    tokens = request.learn.rows["train"] * min(request.learn.mean_tokens, _length(request))
    return max(1, round(tokens / (_length(request) * _batch(request))))


def speeds(study: Study, plan: Plan, result: ExecutionResult, request: Request) -> dict[str, Speed | Outcome]:
    """What one phase of each arm costs, from its profile; the outcome where it could not be run."""
    found: dict[str, Speed | Outcome] = {}
    tokens = study.training.sequence_length * study.training.batch_sequences
    scored = _scored_tokens(request)
    for (_, arm, _), stages in plan.profiles.items():
        timed = result.found(stages[0])
        if timed is None or timed.record.outcome is not Outcome.OK:
            found[arm] = timed.record.outcome if timed is not None else Outcome.FAILED
            continue
        values = timed.record.values
        evaluations = study.training.evaluations * 32 * request.learn.mean_tokens
        found[arm] = Speed(tokens / values["tokens_per_second"],
                           (scored + evaluations) / values["predict_tokens_per_second"], START_SECONDS)
    return found


def grid_for(seconds: float, known: Mapping[str, Speed], jobs: int, request: Request) -> Allocation:
    """The largest grid within the seconds. Raises UserError where the least does not fit."""
    first = next(iter(known))
    return allocate(seconds, known, jobs=jobs, epoch_steps=epoch_steps(request), controls=(first, first))


def _use(name: str, data: Inspected, role: Any) -> TaskUse:
    return TaskUse(name=name, task=data.task, role=role, num_val=max(2, min(MOST_VAL, data.rows["val"])),
                   num_test=max(2, min(MOST_TEST, data.rows["test"])), metrics=("nats-per-token", "perplexity",
                                                                              "bits-per-byte"))


def _length(request: Request) -> int:
    data = [request.learn, *([request.keep] if request.keep is not None else [])]
    longest = max(inspected.long_tokens for inspected in data)
    limit = min(request.base.max_positions or LONGEST, LONGEST)
    return min(limit, max(ROUND * 2, -(-longest // ROUND) * ROUND))


def _batch(request: Request) -> int:
    return max(2, min(LARGEST_BATCH, BATCH_TOKENS // _length(request)))


def _scored_tokens(request: Request) -> float:
    data = [request.learn, *([request.keep] if request.keep is not None else [])]
    return sum((min(MOST_VAL, one.rows["val"]) + min(MOST_TEST, one.rows["test"]))
               * min(one.mean_tokens, _length(request)) for one in data)


def _hypotheses(request: Request, arms: list[str]) -> tuple[Hypothesis, ...]:
    """Every arm against the first: on the new data, and in what it forgets at the same plasticity."""
    first, made = arms[0], []
    for number, other in enumerate(arms[1:], start=1):
        made.append(Hypothesis(
            name=f"L{number}", statement=f"{first} learns the new data better than {other}.",
            contrast=Contrast(left=first, right=other, task=LEARN, expect="greater", margin=MARGIN)))
        if request.keep is not None:
            made.append(Hypothesis(
                name=f"F{number}", statement=f"{other} forgets less than {first}, where both have learned as much.",
                contrast=Contrast(left=other, right=first, quantity="forgetting-at-matched-plasticity", task=KEEP,
                                  learned=LEARN, expect="less", margin=MARGIN)))
    return tuple(made)


def as_path(model: str) -> Path | None:
    """The folder that a model's name stands for, if it is one."""
    folder = Path(model).expanduser()
    return folder if folder.is_dir() else None
