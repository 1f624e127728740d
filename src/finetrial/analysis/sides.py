"""The sides of a contrast: which entries of the score table each reads, what it came to, and what pairing them bought."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetrial import catalog
from finetrial.analysis.estimate import crossed
from finetrial.analysis.loading import Branch, Entry, Loading, merged, term_loadings
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.measures.base import Measure, Reading, Term
from finetrial.spec.hypothesis import SCORE, Contrast, Side
from finetrial.spec.study import FEWEST_SEEDS


def reading_of(trial: Trial, measure: str, branch: Branch, task: str, phase: int | None) -> Reading:
    """The reading of a measure that a contrast is of; without a phase, the latest. Raises NotMeasured."""
    return reading_along(measure, trial.order(branch.sequence), trial.tasks_along(branch.sequence), task, phase)


def reading_along(measure: str, order: Sequence[str], scored: Sequence[str], task: str, phase: int | None) -> Reading:
    """The reading of a measure along what the phases train, among the tasks that are scored. Raises NotMeasured."""
    plugin: Measure = catalog.find("measure", measure)()
    found = [reading for reading in plugin.readings(order, scored)
             if reading.task == task and phase in (None, reading.phase)]
    if not found:
        after = "" if phase is None else f" after phase {phase}"
        raise NotMeasured(f"{measure} of {task or 'all tasks'}{after} is not defined: "
                          f"the sequence learns {', '.join(order)}")
    return max(found, key=lambda reading: reading.phase)


def common_metric(trial: Trial, tasks: Iterable[str]) -> str:
    """The primary metric of some tasks; nats per token, which every task has, where they differ: one unit."""
    metrics = {trial.primary(task) for task in tasks}
    return metrics.pop() if len(metrics) == 1 else VALIDATION_METRIC


def sides_of(trial: Trial, contrast: Contrast) -> tuple[str, list[list[Loading]]]:
    """The metric in which a contrast of scores or measures is read, and what each of its sides adds to the difference."""
    sides = [_terms(trial, contrast, side) for side in contrast.sides]
    metric = contrast.metric or common_metric(trial, {term.task for terms in sides for term in terms})
    return metric, [_loadings(trial, contrast, side, terms, metric)
                    for side, terms in zip(contrast.sides, sides, strict=True)]


def levels(trial: Trial, contrast: Contrast) -> tuple[tuple[str, float], ...]:
    """What left and right of a contrast of scores came to, by label, in the metric's own direction.

    Empty for a contrast of anything else. Raises NotMeasured.
    """
    if contrast.quantity != SCORE or contrast.interaction is not None:
        return ()
    metric, of_sides = sides_of(trial, contrast)
    found = []
    for side, loadings in zip(contrast.sides, of_sides, strict=True):
        values = trial.differences(loadings, all_seeds(trial, loadings)).values
        found.append((trial.label(side.arm), trial.metric(metric).sign * side.coefficient * float(values.mean())))
    return tuple(found)


@dataclass(frozen=True)
class Pairing:
    """What pairing two arms by seed and item bought: the correlation of their values over all runs and clusters, and the
    standard error of two independent samples over that of the pairs."""

    correlation: float
    gain: float


def pairing(trial: Trial, contrast: Contrast) -> Pairing | None:
    """Of a difference of two arms in scores or measures; None where there are not two, or one of them never varies."""
    if contrast.interaction is not None:
        return None
    _, (left, right) = sides_of(trial, contrast)
    seeds = all_seeds(trial, [*left, *right])
    if len(seeds) < FEWEST_SEEDS or not merged(left) or not merged(right):
        return None
    here = trial.differences(left, seeds, beside=right).values
    there = -trial.differences(right, seeds, beside=left).values
    together = crossed(here - there).standard_error
    if here.shape != there.shape or not (together and here.std() and there.std()):
        return None
    apart = math.hypot(crossed(here).standard_error or 0.0, crossed(there).standard_error or 0.0)
    return Pairing(float(np.corrcoef(here.ravel(), there.ravel())[0, 1]), apart / together)


def last_phase(trial: Trial, contrast: Contrast, branch: Branch) -> int:
    """The phase after which a branch is read: the contrast's, or the last of the branch's sequence."""
    return len(trial.order(branch.sequence)) if contrast.phase is None else contrast.phase


def all_seeds(trial: Trial, loadings: list[Loading]) -> tuple[int, ...]:
    """Every seed of the study. Raises NotMeasured if a loading lacks one: seeds that failed are not left out."""
    seeds, reasons = trial.measured_seeds(loadings)
    if len(seeds) < len(trial.study.seeds):
        raise NotMeasured(f"{len(seeds)} of {len(trial.study.seeds)} seeds measured: {'; '.join(reasons)}")
    return seeds


def _terms(trial: Trial, contrast: Contrast, side: Side) -> tuple[Term, ...]:
    """The entries of R that one side reads."""
    branch = trial.branch(side)
    if contrast.quantity == SCORE:
        return (Term(1.0, 0 if branch.is_fixed else last_phase(trial, contrast, branch), contrast.task),)
    return reading_of(trial, contrast.quantity, branch, contrast.task, contrast.phase).terms


def _loadings(trial: Trial, contrast: Contrast, side: Side, terms: tuple[Term, ...], metric: str) -> list[Loading]:
    branch = trial.branch(side)
    entry = Entry(0, contrast.task, metric, routing=contrast.routing)
    if branch.is_fixed:
        return [Loading(side.coefficient * term.coefficient, branch, replace(entry, task=term.task)) for term in terms]
    return term_loadings(terms, branch, entry, side.coefficient)
