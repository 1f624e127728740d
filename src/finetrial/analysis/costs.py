"""Contrasts of cost: parameters, bytes and tokens are exact; what a profile measures is a ratio with an interval.

A profile is repeated with the arms interleaved, so that what the machine does meanwhile hits all arms of a repeat. The
log of left over right is taken within each repeat; its mean over repeats gets the t interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from finetrial.analysis.answer import Answer, exactly
from finetrial.analysis.estimate import crossed
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.trial import Trial
from finetrial.records.results import Cost
from finetrial.spec.hypothesis import Contrast, Side
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import FEWEST_SEEDS

COST_UNITS = {"params": "parameters", "bytes": "bytes", "tokens": "tokens"}
# A time is tokens over a profiled speed: its repeats are those of the speed.
SPEED_OF = {"train_seconds": "tokens_per_second", "tuning_seconds": "tokens_per_second",
            "predict_seconds": "predict_tokens_per_second"}
MOST = ("params_total", "params_trainable", "stored_bytes", "optimizer_bytes", "peak_host_bytes", "peak_device_allocated_bytes",
        "peak_device_reserved_bytes")  # of the phases of a path
SUMMED = ("train_seconds", "tuning_seconds", "train_tokens")


def cost_answer(trial: Trial, contrast: Contrast) -> Answer:
    """Left minus right for exact columns, left over right (in log) for measured ones. Raises NotMeasured."""
    if contrast.cost not in Cost.model_fields:
        raise NotMeasured(f"costs have no column {contrast.cost!r}")
    left, right = (_row(trial, contrast, side) for side in contrast.sides)
    values = [float(getattr(row, contrast.cost)) for row in (left, right)]
    confidence = trial.study.evaluation.confidence
    if not contrast.is_ratio:
        unit = next((COST_UNITS[word] for word in contrast.cost.split("_") if word in COST_UNITS), "")
        return exactly(values[0] - values[1], unit, confidence)
    pairs = [math.log(one / other) for one, other in zip(repeats(left, contrast.cost), repeats(right, contrast.cost),
                                                          strict=False) if one and other]
    if not pairs:
        if min(values) <= 0:
            raise NotMeasured(f"{contrast.cost} is 0: no ratio")
        pairs = [math.log(values[0] / values[1])]
    found = Answer(crossed(np.array(pairs)[:, np.newaxis], confidence), "ratio", over_repeats=True, is_log=True)
    if found.has_interval:
        return found
    plural = "repeat" if len(pairs) == 1 else "repeats"
    return replace(found, reason=f"{len(pairs)} {plural} of the profile: no interval below {FEWEST_SEEDS}")


def repeats(cost: Cost, column: str) -> tuple[float | None, ...]:
    """A measured column in every repeat of the profile; times follow from the speed they were made with."""
    if column in cost.repeats:
        return cost.repeats[column]
    speed = SPEED_OF.get(column, "")
    total, middle = getattr(cost, column), getattr(cost, speed, None)
    if not total or not middle:
        return ()
    return tuple(total * middle / one if one else None for one in cost.repeats.get(speed, ()))


def path_cost(costs: Iterable[Cost], base: str, arm: str, phases: Sequence[str]) -> Cost | None:
    """What an arm costs along a path, in a row like the last phase's: of parameters and bytes the most in a phase, of tokens
    and training times the sum, unknown where a phase's is. A joint phase has the parameters and bytes of one of its tasks,
    and unknown times. None without any row."""
    by_task = {row.task: row for row in costs if (row.base, row.arm) == (base, arm)}
    rows = [_phase_cost(by_task, joined_tasks(phase)) for phase in phases]
    last = next((row for row in reversed(rows) if row is not None), None)
    if last is None or len(rows) == 1:
        return last
    found = {column: _over_phases(column, [getattr(row, column, None) for row in rows]) for column in (*MOST, *SUMMED)}
    tokens, seconds = found["train_tokens"], found["train_seconds"]
    found["tokens_per_second"] = tokens / seconds if tokens and seconds else None
    return last.model_copy(update={**found, "repeats": _path_repeats(rows, last, tokens)})


def _phase_cost(by_task: Mapping[str, Cost], tasks: Sequence[str]) -> Cost | None:
    row = next((by_task[task] for task in reversed(tasks) if task in by_task), None)
    if row is None or len(tasks) == 1:
        return row
    unknown = dict.fromkeys((*SUMMED, SPEED_OF["train_seconds"]))
    kept = {name: values for name, values in row.repeats.items() if name not in unknown}
    return row.model_copy(update={**unknown, "repeats": kept})


def _over_phases(column: str, values: Sequence[float | None]) -> float | None:
    """The most, or the sum, of a column's values in all phases; unknown where one is."""
    known = [value for value in values if value is not None]
    return None if len(known) < len(values) else max(known) if column in MOST else sum(known)


def _path_repeats(rows: Sequence[Cost | None], last: Cost, tokens: float | None) -> dict[str, tuple[float | None, ...]]:
    """Measured columns of a whole path in every repeat of the profile; of predictions and swaps the last phase's."""
    speed = SPEED_OF["train_seconds"]
    found = {name: values for name, values in last.repeats.items() if name not in (*MOST, speed)}
    for column in (*MOST, *SUMMED):
        of_phases = [() if row is None else repeats(row, column) for row in rows]
        if all(of_phases):
            found[column] = tuple(_over_phases(column, values) for values in zip(*of_phases, strict=False))
    if tokens and "train_seconds" in found:
        found[speed] = tuple(tokens / seconds if seconds else None for seconds in found["train_seconds"])
    return found


def _row(trial: Trial, contrast: Contrast, side: Side) -> Cost:
    branch = trial.branch(side)
    phases = (contrast.task,) if contrast.task else trial.order(branch.sequence)
    row = path_cost(trial.table.costs, branch.base, side.arm, phases)
    if row is None or getattr(row, contrast.cost) is None:
        where = f"on {contrast.task}" if contrast.task else "along the whole sequence"
        raise NotMeasured(f"{contrast.cost} {where} is not measured yet", trial.label(side.arm))
    return row
