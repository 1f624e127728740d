"""The recommendation: the cheapest arm that is not significantly worse than the best on the task learned last.

Cheap means few trainable parameters. The best arm is the one with the best mean; every other is compared with it by
the crossed interval, unadjusted: an arm is kept unless its interval shows it to be worse. How much worse it may still
be is stated, because "not shown to be worse" is not "as good".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetrial.analysis import numbers
from finetrial.analysis.contrasts import estimate_loadings
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.loading import Branch, Entry, Loading
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.records.record import Outcome
from finetrial.records.results import Assay, Recommendation
from finetrial.spec.study import joined_tasks


@dataclass(frozen=True)
class _Candidate:
    arm: str
    parameters: int
    behind: Estimate | None  # best minus this arm; None for the best itself


def recommend(trial: Trial, assay: Assay) -> Recommendation:
    """The arm to choose on the first base and sequence, or why that cannot be told yet."""
    if assay.positive_control == "not seen":
        return _cannot(f"the assay failed: {assay.positive_text}")
    try:
        return _recommend(trial)
    except NotMeasured as missing:
        return _cannot(str(missing))


def _recommend(trial: Trial) -> Recommendation:
    base, path = trial.study.bases[0].name, trial.study.paths[0]
    task = joined_tasks(path.tasks[-1])[-1]
    entry = Entry(len(path.tasks), task, trial.primary(task))
    readings = {arm.name: Loading(1.0, Branch(base, arm.name, path.name), entry) for arm in trial.study.arms_along(path)}
    excluded = {name: word for name, loading in readings.items() if (word := _failed_everywhere(trial, loading))}
    readings = {name: loading for name, loading in readings.items() if name not in excluded}
    if not readings:
        raise NotMeasured(f"no arm finished ({_listed(trial, excluded)})")
    candidates = _not_worse(trial, readings)
    chosen = min(candidates, key=lambda candidate: candidate.parameters)
    others = sorted((one for one in candidates if one is not chosen), key=lambda one: one.parameters)
    text = _reason(trial, chosen, candidates, entry)
    if excluded:
        text += f" Not considered: {_listed(trial, excluded)}."
    return Recommendation(arm=chosen.arm, text=text, runners_up=tuple(one.arm for one in others))


def _not_worse(trial: Trial, readings: dict[str, Loading]) -> list[_Candidate]:
    """The best arm and those that no interval shows to be worse. Raises NotMeasured while any arm is incomplete."""
    seeds = trial.study.seeds
    for name, loading in readings.items():
        complete, reasons = trial.measured_seeds([loading])
        if len(complete) < len(seeds):
            raise NotMeasured(f"{trial.label(name)} has {len(complete)} of {len(seeds)} seeds: {'; '.join(reasons)}")
    means = {name: float(trial.differences([loading], seeds).values.mean()) for name, loading in readings.items()}
    best = max(means, key=lambda name: means[name])
    candidates = [_Candidate(best, _parameters(trial, readings[best]), None)]
    for name, loading in readings.items():
        if name == best:
            continue
        behind, _ = estimate_loadings(trial, [readings[best], Loading(-1.0, loading.branch, loading.entry)], seeds)
        if behind.low is None:
            raise NotMeasured(behind.reason)
        if behind.low <= 0:
            candidates.append(_Candidate(name, _parameters(trial, loading), behind))
    return candidates


def _failed_everywhere(trial: Trial, loading: Loading) -> str:
    """The outcomes of an arm all of whose runs are in and none of which finished; empty otherwise."""
    grid = trial.grid(loading.branch, replace(loading.entry, metric=VALIDATION_METRIC))
    planned = [(seed, rate) for seed in trial.study.seeds for rate in trial.rates(loading.branch, loading.entry.phase)]
    if any(point not in grid or grid[point].outcome is Outcome.OK for point in planned):
        return ""
    return ", ".join(sorted({grid[point].outcome.value for point in planned}))


def _parameters(trial: Trial, loading: Loading) -> int:
    for row in trial.table.costs:
        at = (row.base, row.arm, row.task) == (loading.branch.base, loading.branch.arm, loading.entry.task)
        if at and row.params_trainable is not None:
            return row.params_trainable
    raise NotMeasured(f"the trainable parameters of {trial.label(loading.branch.arm)} are not known")


def _reason(trial: Trial, chosen: _Candidate, candidates: list[_Candidate], entry: Entry) -> str:
    size = f"{trial.label(chosen.arm)} trains {numbers.short_count(chosen.parameters)} parameters"
    if chosen.behind is None:
        others = "the only arm not shown to be worse than the best" if len(candidates) == 1 else (
            "the cheapest of the arms not shown to be worse than the best")
        return f"{size} and has the best score on {entry.task}; it is {others}."
    behind = chosen.behind
    value, interval = numbers.with_interval(behind.mean, behind.low, behind.high)
    return (f"{size} and is the cheapest arm not shown to be worse than the best, {trial.label(candidates[0].arm)}, "
            f"on {entry.task}: it is behind by {value} {trial.metric(entry.metric).unit} "
            f"({numbers.percent(behind.confidence)} interval {interval}).")


def _cannot(why: str) -> Recommendation:
    return Recommendation(arm=None, text=f"cannot tell yet: {why}")


def _listed(trial: Trial, excluded: dict[str, str]) -> str:
    return ", ".join(f"{trial.label(name)} ({word})" for name, word in excluded.items())
