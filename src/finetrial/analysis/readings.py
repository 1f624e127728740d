"""Measures as rows: the score table R[k, j] itself, and every quantity of the catalog made from it, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

from finetrial import catalog
from finetrial.analysis.contrasts import BY_CONSTRUCTION, estimate_loadings
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.fieller import ratio_of_means
from finetrial.analysis.loading import Branch, Entry, Loading, merged, term_loadings
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.rows import arm_branches
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.measures.base import Reading
from finetrial.records.results import Measure, Routing
from finetrial.spec.hypothesis import SCORE

FIXED_NOTE = "nothing was trained: interval over items only, there is no seed"
ONE_BY_CONSTRUCTION = "all is left by construction: the weights that answer are untouched"
SHARE = "share"


def measure_rows(trial: Trial, roles: Mapping[str, str]) -> Iterator[Measure]:
    """`score` of every arm (test, at the chosen rate) and every measure of the catalog, each with its interval."""
    for base in trial.study.bases:
        for name in (name for name, role in roles.items() if role in ("base", "floor")):
            yield from _fixed_scores(trial, Branch(base.name, name, ""))
    for branch in arm_branches(trial, [name for name, role in roles.items() if role not in ("base", "floor")]):
        yield from _scores_of(trial, branch, is_control=roles[branch.arm] != "arm")
    for name in catalog.names("measure"):
        for branch in arm_branches(trial):
            for routing in trial.routings(branch):
                yield from _readings_of(trial, name, branch, routing)


def _fixed_scores(trial: Trial, branch: Branch) -> Iterator[Measure]:
    for task in trial.tasks:
        for metric in trial.metrics_of(task):
            entry = Entry(0, task, metric)
            if branch == branch.origin or trial.grid(branch, entry):
                yield _measured(trial, _row(trial, SCORE, branch, entry, is_level=True), [Loading(1.0, branch, entry)],
                                is_level=True)


def _scores_of(trial: Trial, branch: Branch, is_control: bool) -> Iterator[Measure]:
    for phase in range(1, len(trial.order(branch.sequence)) + 1):
        for task in trial.tasks_along(branch.sequence):
            for metric in trial.metrics_of(task):
                for routing in trial.routings(branch):
                    entry = Entry(phase, task, metric, routing=routing)
                    if (is_control or routing != "latest") and not trial.grid(branch, entry):
                        continue
                    yield _measured(trial, _row(trial, SCORE, branch, entry, is_level=True),
                                    [Loading(1.0, branch, entry)], is_level=True)


def _readings_of(trial: Trial, name: str, branch: Branch, routing: str) -> Iterator[Measure]:
    """In the primary metric that the reading's tasks share, if they do, and in nats per token."""
    plugin = catalog.find("measure", name)()
    for reading in plugin.readings(trial.order(branch.sequence), trial.tasks_along(branch.sequence)):
        for metric in _metrics_of(trial, reading):
            entry = Entry(reading.phase, reading.task, metric, routing=routing)
            row = _row(trial, name, branch, entry, is_level=plugin.is_level, higher_is_better=plugin.higher_is_better)
            loadings = term_loadings(reading.terms, branch, entry)
            if reading.denominator:
                yield _share(trial, row, loadings, term_loadings(reading.denominator, branch, entry))
            else:
                yield _measured(trial, row, loadings, is_level=plugin.is_level)


def _metrics_of(trial: Trial, reading: Reading) -> list[str]:
    tasks = {term.task for term in reading.terms}
    shared = {trial.primary(task) for task in tasks}
    in_nats = all(VALIDATION_METRIC in trial.metrics_of(task) for task in tasks)
    metrics = [*shared] if len(shared) == 1 else []
    return list(dict.fromkeys([*metrics, VALIDATION_METRIC] if in_nats else metrics))


def _row(trial: Trial, name: str, branch: Branch, entry: Entry, *, is_level: bool,
         higher_is_better: bool | None = None) -> Measure:
    """A row without a value yet. Levels are told in the metric's own direction."""
    metric = trial.table.metrics.get(entry.metric)
    own = metric.higher_is_better if metric else None
    return Measure(measure=name, base=branch.base, arm=branch.arm, sequence=branch.sequence, phase=entry.phase,
                   task=entry.task, metric=entry.metric, routing=cast(Routing, entry.routing), value=None,
                   unit=metric.unit if metric else "", higher_is_better=own if is_level else higher_is_better)


def _measured(trial: Trial, row: Measure, loadings: list[Loading], *, is_level: bool) -> Measure:
    """The row over the seeds that are there; its note says which are not and why."""
    try:
        seeds, reasons = _seeds(trial, loadings)
        if not is_level and trial.cancels(loadings, seeds):
            return _exact(row, 0.0, seeds, [BY_CONSTRUCTION, *reasons])
        estimate, num_missing = estimate_loadings(trial, merged(loadings), seeds)
    except NotMeasured as missing:
        return row.model_copy(update={"note": str(missing)})
    if is_level:
        estimate = _level(trial, row, estimate)
    return _with_numbers(row, estimate, reasons, num_missing)


def _level(trial: Trial, row: Measure, estimate: Estimate) -> Estimate:
    """In the metric's own direction, the interval cut where no value can lie: a perplexity below 1, a ROUGE below 0."""
    metric = trial.metric(row.metric)
    found = estimate if metric.higher_is_better else estimate.mirrored()
    if found.low is None or found.high is None:
        return found
    return replace(found, low=min(found.mean, max(found.low, metric.least)),
                   high=max(found.mean, min(found.high, metric.most)))


def _share(trial: Trial, row: Measure, top: list[Loading], bottom: list[Loading]) -> Measure:
    row = row.model_copy(update={"unit": SHARE})
    try:
        seeds, reasons = _seeds(trial, [*top, *bottom])
        if len({loading.entry.task for loading in (*top, *bottom)}) > 1:
            raise NotMeasured("a ratio is of one task")
        minus = [Loading(-loading.coefficient, loading.branch, loading.entry, loading.rate, loading.among)
                 for loading in bottom]
        above, below = trial.differences(top, seeds, beside=bottom), trial.differences(bottom, seeds, beside=top)
        if below.values.mean() <= 0:
            raise NotMeasured("nothing was gained that could be kept")
        estimate = ratio_of_means(above.values, below.values, trial.study.evaluation.confidence)
        if trial.cancels([*top, *minus], seeds):
            return _exact(row, 1.0, seeds, [ONE_BY_CONSTRUCTION, *reasons])
    except NotMeasured as missing:
        return row.model_copy(update={"note": str(missing)})
    return _with_numbers(row, estimate, reasons, above.num_missing)


def _seeds(trial: Trial, loadings: list[Loading]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The seeds that have everything, and why others have not. Raises NotMeasured if there are none."""
    seeds, reasons = trial.measured_seeds(loadings)
    if not seeds:
        raise NotMeasured("; ".join(reasons))
    return seeds, reasons


def _exact(row: Measure, value: float, seeds: tuple[int, ...], notes: list[str]) -> Measure:
    return row.model_copy(update={"value": value, "by_construction": True, "n_seeds": len(seeds),
                                  "note": "; ".join(notes)})


def _with_numbers(row: Measure, estimate: Estimate, reasons: tuple[str, ...], num_missing: int) -> Measure:
    is_fixed = estimate.num_seeds == 0
    notes = [FIXED_NOTE] if is_fixed else list(reasons)
    notes += [estimate.reason] if estimate.reason else []
    notes += [f"{num_missing} items without a score are left out"] if num_missing else []
    return row.model_copy(update={
        "value": estimate.mean, "low": estimate.low, "high": estimate.high, "n_clusters": estimate.num_clusters,
        "n_seeds": None if is_fixed else estimate.num_seeds, "note": "; ".join(notes)})
