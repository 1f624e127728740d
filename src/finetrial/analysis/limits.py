"""What a study allows an arm to cost (`Study.limits`), and whether each arm stays within it.

Parameters and memory are numbers: within or beyond. Forgetting is an estimate: within where its whole interval is,
beyond where its whole interval is, else open, with the seeds that would settle it. What is not measured is not within.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from finetrial.analysis import numbers
from finetrial.analysis.contrasts import answer
from finetrial.analysis.costs import path_cost
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.loading import Branch
from finetrial.analysis.looks import settle
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.sides import levels
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.spec.hypothesis import Contrast
from finetrial.spec.study import BASE_ARM, Limits

Standing = Literal["within", "beyond", "open"]


@dataclass(frozen=True)
class Judged:
    """How an arm stands to one limit, and why in words: `trains 6.9 M parameters; the limit is 1 M`."""

    standing: Standing
    why: str
    settling: str = ""  # of an open one: what would settle it


def judge(trial: Trial, branch: Branch) -> list[Judged]:
    """One entry for each limit of the study that says something about the arm, over all its phases."""
    limits = trial.study.limits
    cost = path_cost(trial.table.costs, branch.base, branch.arm, trial.order(branch.sequence))
    trained = None if cost is None else cost.params_trainable
    peak = None if cost is None else cost.peak_device_allocated_bytes or cost.peak_host_bytes
    return [*judge_numbers(limits, trained, _base_parameters(trial, branch), peak), *_forgetting(trial, limits, branch)]


def judge_numbers(limits: Limits, trained: int | None, of_base: int | None, peak_bytes: int | None) -> Iterator[Judged]:
    """What the limits say of trained parameters, those of the base, and the peak of training (the device's; the host's where
    there is no device). What is None is beyond a limit that there is."""
    if limits.max_trainable is not None:
        yield _number("trains", trained, limits.max_trainable, numbers.short_count, " parameters")
    if limits.max_trainable_share is not None:
        share = None if trained is None or of_base is None else trained / of_base
        yield _number("trains", share, limits.max_trainable_share, _share, " of the base's parameters")
    if limits.max_memory_bytes is not None:
        yield _number("needs", peak_bytes, limits.max_memory_bytes, numbers.bytes_text, " in training")


def standing(judged: list[Judged]) -> Standing:
    """Of an arm as a whole: one limit is enough to be beyond."""
    found = {one.standing for one in judged}
    return "beyond" if "beyond" in found else "open" if "open" in found else "within"


def why_not(judged: list[Judged]) -> str:
    """Why an arm that is beyond a limit falls."""
    return "; ".join(one.why for one in judged if one.standing == "beyond")


def _number(verb: str, value: float | None, limit: float, shown: Callable[[float], str], unit: str) -> Judged:
    if value is None:
        return Judged("beyond", f"what it {verb} is not measured, and there is a limit of {shown(limit)}{unit}")
    return Judged("beyond" if value > limit else "within", f"it {verb} {shown(value)}{unit}; the limit is {shown(limit)}")


def _share(value: float) -> str:
    return f"{numbers.plain(100 * value)} %"


def _base_parameters(trial: Trial, branch: Branch) -> int | None:
    """Parameters of the base: of an arm that trains them in place its total, else its total without what it added."""
    in_place = {arm.name: [part.method.in_place for parts in arm.components.values() for part in parts if part.method]
                for arm in trial.study.arms}
    for row in trial.table.costs:
        if row.base != branch.base or row.params_total is None or row.params_trainable is None or row.arm not in in_place:
            continue
        if all(in_place[row.arm]):
            return row.params_total
        if not any(in_place[row.arm]):
            return row.params_total - row.params_trainable
    return None


def _forgetting(trial: Trial, limits: Limits, branch: Branch) -> Iterator[Judged]:
    """The rise of the loss on every outside task, above the untouched base, in nats per token."""
    if limits.max_forgetting is None and limits.max_forgetting_share is None:
        return
    outside = [use.name for use in trial.study.tasks if use.role == "outside" and use.evaluate]
    if not outside:
        raise NotMeasured("there is a limit for forgetting, and no old text to measure it on (a task with role: outside)")
    for task in outside:
        kept = Contrast(left=branch.arm, right=BASE_ARM, task=task, metric=VALIDATION_METRIC, base=branch.base,
                        sequence=branch.sequence)
        found = answer(trial, kept)
        if found.estimate is None:
            raise NotMeasured(f"forgetting of {task}: {found.reason}")
        rise = replace(found.estimate, low=0.0, high=0.0) if found.by_construction else found.estimate.mirrored()
        if limits.max_forgetting is not None:
            yield _rise(trial, rise, limits.max_forgetting, task)
        if limits.max_forgetting_share is not None:
            (_, _), (_, base) = levels(trial, kept)
            yield _rise(trial, rise, limits.max_forgetting_share * base, task)


def _rise(trial: Trial, rise: Estimate, limit: float, task: str) -> Judged:
    unit = trial.metric(VALIDATION_METRIC).unit
    value, interval = numbers.with_interval(rise.mean, rise.low, rise.high)
    measured = f"{value} {unit}" + (f" ({interval})" if interval else "")
    why = f"it forgets {measured} of {task}; the limit is {numbers.plain(limit)}"
    if rise.low is None or rise.high is None:
        return Judged("open", why, settle(rise, 1 - rise.confidence).text)
    if rise.low > limit:
        return Judged("beyond", why)
    if rise.high <= limit:
        return Judged("within", why)
    above = replace(rise, mean=rise.mean - limit, low=rise.low - limit, high=rise.high - limit)
    return Judged("open", why, settle(above, 1 - rise.confidence).text)
