"""From a contrast to an estimate: which entries of the score table it compares, and how.

Scores and forgetting are sums of entries and get the crossed interval. Forgetting at matched plasticity and ratios of
learning rates are one number per seed and get the paired t interval over seeds. Parameters and bytes are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from finetrial import catalog
from finetrial.analysis.estimate import MIN_SEEDS, Estimate, crossed
from finetrial.analysis.frontier import States, match
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.rates import best_log_rate, log_ratio
from finetrial.analysis.trial import VALIDATION_METRIC, Branch, Entry, Loading, Trial, merged, seeds_text, term_loadings
from finetrial.measures.base import Measure, Term
from finetrial.records.results import Cost
from finetrial.records.table import Floats, ItemScores
from finetrial.spec.hypothesis import Contrast

EXACT_COSTS = ("params_total", "params_trainable", "stored_bytes", "optimizer_bytes")
COST_UNITS = {"params": "parameters", "bytes": "bytes", "seconds": "s", "tokens": "tokens"}


@dataclass(frozen=True)
class Answer:
    """What a contrast came to. Without an estimate, `reason` says why; ratios are estimated in log."""

    estimate: Estimate | None = None
    unit: str = ""
    reason: str = ""
    exact: bool = False  # no sampling error: the sign of the estimate decides
    over_items: bool = False  # the interval speaks of other items too
    is_log: bool = False
    notes: tuple[str, ...] = ()

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval to judge by."""
        return self.estimate is not None and self.estimate.low is not None


def answer(trial: Trial, contrast: Contrast) -> Answer:
    """The estimate of a contrast, left minus right; never raises for records that are not there."""
    try:
        return _ANSWERS[contrast.quantity](trial, contrast)
    except NotMeasured as missing:
        return Answer(reason=str(missing))


def branch_of(trial: Trial, contrast: Contrast, arm: str) -> Branch:
    """Where an arm of the contrast is found."""
    return Branch(contrast.base or trial.study.bases[0].name, arm, contrast.sequence or trial.study.paths[0].name)


def score_loadings(branch: Branch, entry: Entry, coefficient: float = 1.0) -> list[Loading]:
    """R[k, j] itself."""
    return [Loading(coefficient, branch, entry)]


def measure_loadings(trial: Trial, measure: str, branch: Branch, entry: Entry,
                     coefficient: float = 1.0) -> list[Loading]:
    """A measure of one task as loadings. Raises NotMeasured where it is not defined."""
    plugin: Measure = catalog.find("measure", measure)()
    order = trial.order(branch.sequence)
    tasks = [use.name for use in trial.study.tasks]
    for reading in plugin.readings(order, tasks):
        if (reading.phase, reading.task) == (entry.phase, entry.task):
            return term_loadings(reading.terms, branch, entry, coefficient)
    raise NotMeasured(f"{measure} of {entry.task} after phase {entry.phase} is not defined: "
                      f"the sequence learns {', '.join(order)}")


def estimate_loadings(trial: Trial, loadings: list[Loading], seeds: tuple[int, ...]) -> tuple[Estimate, int]:
    """The crossed estimate of a sum of loadings over given seeds, and the number of items left out."""
    differences = trial.differences(loadings, seeds)
    return crossed(differences.values, trial.study.evaluation.confidence), differences.num_missing


def _linear(trial: Trial, contrast: Contrast) -> Answer:
    """Scores and forgetting: left minus right, paired by seed and item."""
    metric = contrast.metric or trial.primary(contrast.task)
    entry = Entry(_phase(trial, contrast), contrast.task, metric, routing=contrast.routing)
    loadings = []
    for coefficient, arm in ((1.0, contrast.left), (-1.0, contrast.right)):
        branch = branch_of(trial, contrast, arm)
        if contrast.quantity == "score":
            loadings += score_loadings(branch, entry, coefficient)
        else:
            loadings += measure_loadings(trial, "forgetting", branch, entry, coefficient)
    loadings = merged(loadings)  # between two arms the base cancels and need not be measured
    estimate, num_missing = estimate_loadings(trial, loadings, _all_seeds(trial, loadings))
    notes = (f"{num_missing} items without a score in every run are left out",) if num_missing else ()
    return _with_interval(Answer(estimate, trial.metric(metric).unit, over_items=True, notes=notes))


def _learning_rate_ratio(trial: Trial, contrast: Contrast) -> Answer:
    phase = _phase(trial, contrast)
    left, right = (_best_log_rates(trial, branch_of(trial, contrast, arm), phase)
                   for arm in (contrast.left, contrast.right))
    return _with_interval(Answer(log_ratio(left, right, trial.study.evaluation.confidence), "ratio", is_log=True))


def _best_log_rates(trial: Trial, branch: Branch, phase: int) -> dict[int, float]:
    rates = trial.rates(branch, phase)
    entry = Entry(phase, trial.order(branch.sequence)[phase - 1], VALIDATION_METRIC, split="val")
    grid = trial.grid(branch, entry)
    if not rates:
        raise NotMeasured("has no learning rate", branch.arm)
    best, lacking = {}, defaultdict(list)
    for seed in trial.study.seeds:
        if any((seed, rate) not in grid for rate in rates):
            raise NotMeasured("not every learning rate has validation scores yet", branch.arm)
        try:
            best[seed] = best_log_rate(rates, [trial.signed(grid[seed, rate]) for rate in rates])
        except NotMeasured as missing:
            lacking[str(missing)].append(seed)
    if lacking:
        reasons = "; ".join(f"{reason} ({seeds_text(of_seeds)})" for reason, of_seeds in lacking.items())
        raise NotMeasured(f"not estimated: {reasons}", branch.arm)
    return best


def _matched_forgetting(trial: Trial, contrast: Contrast) -> Answer:
    left, right = (_states(trial, contrast, arm) for arm in (contrast.left, contrast.right))
    matched = match(left, right)
    estimate = crossed((matched.left - matched.right)[:, np.newaxis], trial.study.evaluation.confidence)
    plasticity_unit = trial.metric(trial.primary(contrast.learned)).unit
    where = f"at plasticity {matched.plasticity:.3g} {plasticity_unit} on {contrast.learned}"
    notes = (f"{where}: {contrast.left} forgets {matched.left.mean():.3g}, {contrast.right} {matched.right.mean():.3g}",
             "interval over seeds, for these test items")
    unit = trial.metric(contrast.metric or trial.primary(contrast.task)).unit
    return _with_interval(Answer(estimate, unit, notes=notes))


def _states(trial: Trial, contrast: Contrast, arm: str) -> States:
    """Final states of an arm over seeds and rates: plasticity on `learned`, forgetting of `task`, on both splits."""
    branch, phase = branch_of(trial, contrast, arm), _phase(trial, contrast)
    forgotten = Entry(phase, contrast.task, contrast.metric or trial.primary(contrast.task), routing=contrast.routing)
    learned = Entry(phase, contrast.learned, trial.primary(contrast.learned), routing=contrast.routing)
    parts: list[Floats] = []
    for split in ("val", "test"):
        here = replace(learned, split=split)
        gain = (Term(1.0, phase, contrast.learned), Term(-1.0, 0, contrast.learned))
        parts.append(_over_grid(trial, branch, phase, term_loadings(gain, branch, here)))
        loss = measure_loadings(trial, "forgetting", branch, replace(forgotten, split=split))
        parts.append(_over_grid(trial, branch, phase, loss))
    return States(arm, *parts)


def _over_grid(trial: Trial, branch: Branch, phase: int, loadings: list[Loading]) -> Floats:
    """The sum of loadings for every seed and rate of `phase`, [S, R]; NaN where a run failed.

    An entry of an earlier phase is the same at every rate: the run at the rate chosen for that phase.
    """
    rates = trial.rates(branch, phase)
    values = np.zeros((len(trial.study.seeds), len(rates)))
    for row, seed in enumerate(trial.study.seeds):
        for column, rate in enumerate(rates):
            values[row, column] = sum(
                loading.coefficient * _signed_at(trial, loading, seed, rate if loading.entry.phase == phase else None)
                for loading in loadings)
    return values


def _signed_at(trial: Trial, loading: Loading, seed: int, rate: float | None) -> float:
    """The signed score of one run, at `rate` or (None) at the chosen one; NaN if it failed."""
    if rate is None:
        found: ItemScores | None = trial.run(loading, seed)
    else:
        found = trial.grid(loading.branch, loading.entry).get((seed, rate))
    if found is None:
        entry = loading.entry
        raise NotMeasured(f"no {entry.split} scores on {entry.task} ({entry.metric}) at every learning rate yet",
                          loading.branch.arm)
    signed = trial.signed(found)
    return np.nan if signed is None else signed


def _cost(trial: Trial, contrast: Contrast) -> Answer:
    left, right = (_cost_value(trial, contrast, arm) for arm in (contrast.left, contrast.right))
    unit = next((COST_UNITS[word] for word in contrast.cost.split("_") if word in COST_UNITS), "")
    exact = contrast.cost in EXACT_COSTS
    estimate = Estimate(left - right, None, None, None, None, trial.study.evaluation.confidence, None, 0, 0)
    return Answer(estimate, unit, "" if exact else "one profiled value per arm: no interval", exact)


def _cost_value(trial: Trial, contrast: Contrast, arm: str) -> float:
    branch = branch_of(trial, contrast, arm)
    if contrast.cost not in Cost.model_fields:
        raise NotMeasured(f"costs have no column {contrast.cost!r}")
    task = contrast.task or trial.order(branch.sequence)[-1]
    for row in trial.table.costs:
        if (row.base, row.arm, row.task) == (branch.base, arm, task):
            value = getattr(row, contrast.cost)
            if value is not None:
                return float(value)
    raise NotMeasured(f"{contrast.cost} on {task} is not measured yet", arm)


def _phase(trial: Trial, contrast: Contrast) -> int:
    last = len(trial.order(contrast.sequence or trial.study.paths[0].name))
    return last if contrast.phase is None else contrast.phase


def _all_seeds(trial: Trial, loadings: list[Loading]) -> tuple[int, ...]:
    """Every seed of the study. Raises NotMeasured if a loading lacks one: seeds that failed are not left out."""
    seeds, reasons = trial.measured_seeds(loadings)
    if len(seeds) < len(trial.study.seeds):
        raise NotMeasured(f"{len(seeds)} of {len(trial.study.seeds)} seeds measured: {'; '.join(reasons)}")
    return seeds


def _with_interval(found: Answer) -> Answer:
    """The answer, with the reason where its estimate has no interval."""
    estimate = found.estimate
    if estimate is None or estimate.low is not None:
        return found
    return replace(found, reason=f"{estimate.reason}, no verdict: run at least {MIN_SEEDS}")


_ANSWERS: dict[str, Callable[[Trial, Contrast], Answer]] = {
    "score": _linear,
    "forgetting": _linear,
    "forgetting-at-matched-plasticity": _matched_forgetting,
    "learning-rate-ratio": _learning_rate_ratio,
    "cost": _cost,
}
