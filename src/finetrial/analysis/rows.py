"""The long-form rows of the results that hold what was recorded: scores, learning curves, and how rates were chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import cast

import numpy as np

from finetrial.analysis.loading import Branch, address
from finetrial.analysis.naming import runs_along
from finetrial.analysis.trial import VALIDATION_METRIC, Trial, value_of
from finetrial.records.results import Routing, Score, Selection, Split
from finetrial.records.table import ItemScores
from finetrial.spec.slots import joined_tasks


def score_rows(trial: Trial) -> Iterator[Score]:
    """One row for each run, task, split, routing and metric; then the points of the learning curves.

    `selected` marks the point that validation chose for this seed; the base and the floors have only one point, which
    is selected, and one row whatever the sequence.
    """
    fixed = set()
    for scores in trial.table.scores:
        branch, entry = address(scores)
        if (branch, entry) in fixed:
            continue
        if branch.is_fixed:
            fixed.add((branch, entry))
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
    """How each arm and seed got its rate; validation scores in the metric's own unit.

    `chosen_by_primary` is unknown where the primary metric has no validation scores to choose by: that of a task whose
    outputs are generated at the chosen point only.
    """
    for branch in arm_branches(trial):
        for phase, name in enumerate(trial.order(branch.sequence), start=1):
            if not any(trial.runs(branch, phase)):
                continue
            by_primary, by_loss = _by_primary(trial, branch, phase, name), trial.choices(branch, phase, VALIDATION_METRIC)
            is_grid = len(trial.rates(branch, phase)) > 1  # nothing chooses a single rate, and no outputs are made to choose it
            metric = trial.selected_by(branch, phase) if is_grid else VALIDATION_METRIC
            sign = trial.table.metrics[metric].sign if metric in trial.table.metrics else 1.0
            for seed, choice in trial.choices(branch, phase, metric).items():
                means = tuple(None if mean is None else sign * mean for mean in choice.means)
                yield Selection(base=branch.base, arm=branch.arm, sequence=branch.sequence, phase=phase, task=name,
                                seed=seed, learning_rates=choice.rates, metric=metric, validation=means,
                                chosen=choice.rate, at_edge=choice.at_edge, chosen_by_primary=by_primary.get(seed),
                                chosen_by_loss=by_loss[seed].rate)


def arm_branches(trial: Trial, names: Collection[str] | None = None) -> Iterator[Branch]:
    """The branches of some arms (None: the study's), along every sequence that they go along."""
    wanted = {arm.name for arm in trial.study.arms} if names is None else set(names)
    for base in trial.study.bases:
        for path in trial.study.every_path:
            for name in runs_along(trial.study, path):
                if name in wanted:
                    yield Branch(base.name, name, path.name)


def _by_primary(trial: Trial, branch: Branch, phase: int, name: str) -> dict[int, float | None]:
    metrics = {trial.primary(task) for task in joined_tasks(name)}
    if len(metrics) > 1:
        return {}
    metric = metrics.pop()
    if metric != VALIDATION_METRIC and not trial.validation(branch, phase, metric):
        return {}
    return {seed: choice.rate for seed, choice in trial.choices(branch, phase, metric).items()}


def _score(trial: Trial, scores: ItemScores) -> Score:
    metric, cell = trial.table.metrics[scores.metric], scores.cell
    scored = 0 if scores.statistics is None else int(np.isfinite(scores.statistics).all(axis=-1).sum())
    return Score(base=cell.base, arm=cell.arm, sequence=cell.sequence, seed=cell.seed, phase=scores.phase,
                 point=cell.point, selected=_is_selected(trial, scores), task=scores.task,
                 split=cast(Split, scores.split), routing=cast(Routing, scores.routing), metric=metric.name,
                 scorer_version=metric.version, value=value_of(scores, metric), n=scored,
                 n_missing=len(scores.items) - scored, unit=metric.unit, higher_is_better=metric.higher_is_better,
                 primary=metric.name == trial.primary(scores.task), outcome=scores.outcome)


def _is_selected(trial: Trial, scores: ItemScores) -> bool:
    branch, entry = address(scores)
    if branch.is_fixed:
        return True
    assert scores.cell.seed is not None
    choice = trial.choices(branch, entry.phase).get(scores.cell.seed)
    return choice is not None and choice.rate is not None and choice.rate == scores.cell.point.learning_rate
