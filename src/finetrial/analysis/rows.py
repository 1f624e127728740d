"""The long-form rows of the results that are not findings: scores, learning curves, tuning and measures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finetrial import catalog
from finetrial.analysis.estimate import Estimate, crossed, items_only
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.trial import VALIDATION_METRIC, Branch, Entry, Loading, Trial, address, term_loadings, value_of
from finetrial.measures.base import Reading
from finetrial.records.results import Measure, Score, Selection
from finetrial.records.table import ItemScores
from finetrial.spec.study import BASE_ARM

BASE_NOTE = "untouched base: interval over items only, there is no seed"


def score_rows(trial: Trial) -> Iterator[Score]:
    """One row for each run, task, split and metric; then the points of the learning curves.

    `selected` marks the point that validation chose for this seed; the base has only one point, which is selected.
    """
    for scores in trial.table.scores:
        yield _score(trial, scores)
    for point in trial.table.curves:
        metric = trial.table.metrics[point.metric]
        cell = point.cell
        yield Score(base=cell.base, arm=cell.arm, sequence=cell.sequence, seed=cell.seed, phase=point.phase,
                    step=point.step, point=cell.point, task=point.task,
                    split="train" if point.split == "train" else "val", metric=metric.name,
                    scorer_version=metric.version, value=point.value if np.isfinite(point.value) else None,
                    n=point.n, unit=metric.unit, higher_is_better=metric.higher_is_better)


def selection_rows(trial: Trial) -> Iterator[Selection]:
    """How each arm and seed got its rate; validation scores in the metric's own unit."""
    sign = trial.table.metrics[VALIDATION_METRIC].sign if VALIDATION_METRIC in trial.table.metrics else 1.0
    for branch in arm_branches(trial):
        for phase, task in enumerate(trial.order(branch.sequence), start=1):
            if not any(trial.runs(branch, phase)):
                continue
            by_primary = trial.choices(branch, phase, trial.primary(task))
            for seed, choice in trial.choices(branch, phase).items():
                means = tuple(None if mean is None else sign * mean for mean in choice.means)
                yield Selection(base=branch.base, arm=branch.arm, sequence=branch.sequence, phase=phase, task=task,
                                seed=seed, learning_rates=choice.rates, validation=means, chosen=choice.rate,
                                at_edge=choice.at_edge, chosen_by_primary=by_primary[seed].rate)


def measure_rows(trial: Trial, roles: dict[str, str]) -> Iterator[Measure]:
    """`score` of every arm (test, at the chosen rate) and every measure of the catalog, each with its interval."""
    for base in trial.study.bases:
        yield from _base_scores(trial, base.name)
    for branch in arm_branches(trial, roles):
        yield from _scores_of(trial, branch, is_control=roles[branch.arm] != "arm")
    for name in catalog.names("measure"):
        for branch in arm_branches(trial):
            yield from _readings_of(trial, name, branch)


def arm_branches(trial: Trial, roles: dict[str, str] | None = None) -> Iterator[Branch]:
    """The branches of the study's arms, or of every arm in `roles` but the base."""
    names = [arm.name for arm in trial.study.arms] if roles is None else [name for name in roles if name != BASE_ARM]
    for base in trial.study.bases:
        for path in trial.study.paths:
            for name in names:
                yield Branch(base.name, name, path.name)


def _score(trial: Trial, scores: ItemScores) -> Score:
    metric, cell = trial.table.metrics[scores.metric], scores.cell
    scored = 0 if scores.statistics is None else int(np.isfinite(scores.statistics).all(axis=-1).sum())
    return Score(base=cell.base, arm=cell.arm, sequence=cell.sequence, seed=cell.seed, phase=scores.phase,
                 point=cell.point, selected=_is_selected(trial, scores), task=scores.task,
                 split="test" if scores.split == "test" else "val" if scores.split == "val" else "train",
                 routing="oracle" if scores.routing == "oracle" else "latest", metric=metric.name,
                 scorer_version=metric.version, value=value_of(scores, metric), n=scored,
                 n_missing=len(scores.items) - scored, unit=metric.unit, higher_is_better=metric.higher_is_better,
                 primary=metric.name == trial.primary(scores.task), outcome=scores.outcome)


def _is_selected(trial: Trial, scores: ItemScores) -> bool:
    branch, entry = address(scores)
    if branch.arm == BASE_ARM:
        return True
    assert scores.cell.seed is not None
    choice = trial.choices(branch, entry.phase).get(scores.cell.seed)
    return choice is not None and choice.rate is not None and choice.rate == scores.cell.point.learning_rate


def _base_scores(trial: Trial, base: str) -> Iterator[Measure]:
    branch = Branch(base, BASE_ARM, "")
    for use in trial.study.tasks:
        for metric in trial.metrics_of(use.name):
            loading = Loading(1.0, branch, Entry(0, use.name, metric))
            yield _measured(trial, "score", loading.branch, loading.entry, [loading], raw=True)


def _scores_of(trial: Trial, branch: Branch, is_control: bool) -> Iterator[Measure]:
    for phase in range(1, len(trial.order(branch.sequence)) + 1):
        for use in trial.study.tasks:
            for metric in trial.metrics_of(use.name):
                entry = Entry(phase, use.name, metric)
                if not is_control or trial.grid(branch, entry):
                    yield _measured(trial, "score", branch, entry, [Loading(1.0, branch, entry)], raw=True)


def _readings_of(trial: Trial, name: str, branch: Branch) -> Iterator[Measure]:
    plugin = catalog.find("measure", name)()
    tasks = [use.name for use in trial.study.tasks]
    for reading in plugin.readings(trial.order(branch.sequence), tasks):
        metric = _common_metric(trial, reading)
        if metric is None:
            continue
        entry = Entry(reading.phase, reading.task, metric)
        yield _measured(trial, name, branch, entry, term_loadings(reading.terms, branch, entry),
                        higher_is_better=plugin.higher_is_better)


def _common_metric(trial: Trial, reading: Reading) -> str | None:
    """The primary metric of the reading's tasks; None where they differ: no average over units."""
    metrics = {trial.primary(term.task) for term in reading.terms}
    return metrics.pop() if len(metrics) == 1 else None


def _measured(trial: Trial, name: str, branch: Branch, entry: Entry, loadings: list[Loading], *, raw: bool = False,
              higher_is_better: bool | None = None) -> Measure:
    """One row over the seeds that are there; the note says which are not and why. `raw`: in the metric's own sign."""
    metric = trial.table.metrics.get(entry.metric)
    row = Measure(measure=name, base=branch.base, arm=branch.arm, sequence=branch.sequence, phase=entry.phase,
                  task=entry.task, metric=entry.metric, value=None, unit=metric.unit if metric else "",
                  higher_is_better=metric.higher_is_better if raw and metric else higher_is_better)
    is_base = branch.arm == BASE_ARM
    seeds, reasons = trial.measured_seeds(loadings)
    if not seeds:
        return row.model_copy(update={"note": "; ".join(reasons)})
    try:
        estimate, num_missing = _estimate(trial, loadings, seeds[:1] if is_base else seeds, is_base)
    except NotMeasured as missing:
        return row.model_copy(update={"note": str(missing)})
    if raw and metric and not metric.higher_is_better:
        estimate = estimate.mirrored()
    notes = [BASE_NOTE] if is_base else list(reasons)
    notes += [estimate.reason] if estimate.reason else []
    notes += [f"{num_missing} items without a score are left out"] if num_missing else []
    return row.model_copy(update={
        "value": estimate.mean, "low": estimate.low, "high": estimate.high, "n_clusters": estimate.num_clusters,
        "n_seeds": None if is_base else estimate.num_seeds, "note": "; ".join(notes)})


def _estimate(trial: Trial, loadings: list[Loading], seeds: tuple[int, ...], is_base: bool) -> tuple[Estimate, int]:
    differences = trial.differences(loadings, seeds)
    confidence = trial.study.evaluation.confidence
    values = differences.values
    return (items_only(values[0], confidence) if is_base else crossed(values, confidence)), differences.num_missing
