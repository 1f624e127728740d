"""From a contrast to an estimate: which entries of the score table it compares, and how.

Scores and measures are sums of entries and get the crossed interval; where equal weights answered on both sides of
every difference they are exactly 0, without one. Forgetting at matched plasticity and ratios of learning rates are one
number per seed and get the paired t interval over seeds. Costs are in `costs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from finetrial.analysis.answer import Answer, exactly
from finetrial.analysis.costs import cost_answer
from finetrial.analysis.estimate import Estimate, crossed, items_only
from finetrial.analysis.frontier import States, match
from finetrial.analysis.loading import Branch, Entry, Loading, merged, term_loadings
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.moderation import Prior, fit_prior, moderated
from finetrial.analysis.rates import best_log_rate, log_ratio
from finetrial.analysis.sides import all_seeds, last_phase, reading_of, sides_of
from finetrial.analysis.trial import VALIDATION_METRIC, Trial, seeds_text
from finetrial.measures.base import Term
from finetrial.records.table import Floats, ItemScores
from finetrial.spec.hypothesis import COST, MATCHED, RATE_RATIO, SCORE, Contrast

UNEQUAL_VARIANCES = "seeds vary by different amounts from arm to arm: the wider of two intervals is taken"
BY_CONSTRUCTION = "zero by construction: the weights that answer are untouched"


def answer(trial: Trial, contrast: Contrast) -> Answer:
    """The estimate of a contrast, left minus right; never raises for records that are not there."""
    special: dict[str, Callable[[Trial, Contrast], Answer]] = {
        MATCHED: _matched_forgetting, RATE_RATIO: _learning_rate_ratio, COST: cost_answer}
    try:
        return special.get(contrast.quantity, _linear)(trial, contrast)
    except NotMeasured as missing:
        return Answer(reason=str(missing))


def estimate_loadings(trial: Trial, loadings: list[Loading], seeds: tuple[int, ...]) -> tuple[Estimate, int]:
    """The estimate of a sum of loadings over given seeds, and the number of items left out.

    Crossed; over items only where nothing was trained (the untouched base, floors).
    """
    differences = trial.differences(loadings, seeds)
    confidence = trial.study.evaluation.confidence
    if all(loading.branch.is_fixed for loading in loadings):
        return items_only(differences.values[0], confidence), differences.num_missing
    return crossed(differences.values, confidence), differences.num_missing


def _linear(trial: Trial, contrast: Contrast) -> Answer:
    """Scores and measures: left minus right, paired by seed and item, the seeds' variance moderated."""
    found, choice = _plain(trial, contrast), trial.study.evaluation.seed_variance
    found = replace(found, notes=(*found.notes, *_at_edge(trial, contrast)))
    if found.estimate is None or found.estimate.mean_squares is None or choice == "own":
        return found
    prior = _seed_prior(trial, contrast)
    changed = replace(found, estimate=moderated(found.estimate, prior, cautious=choice == "cautious"))
    if prior is not None and prior.is_unequal and choice == "moderated":
        return replace(changed, notes=(*changed.notes, UNEQUAL_VARIANCES))
    return changed


def _at_edge(trial: Trial, contrast: Contrast) -> list[str]:
    """Which sides may not be at their best: a better learning rate may lie outside the grid."""
    branches = dict.fromkeys(trial.branch(side) for side in contrast.sides)
    notes = []
    for branch in (branch for branch in branches if not branch.is_fixed):
        choices = trial.choices(branch, last_phase(trial, contrast, branch)).values()
        number = sum(choice.at_edge for choice in choices)
        if number:
            notes.append(f"the learning rate chosen for {trial.label(branch.arm)} lies at the edge of its grid for "
                         f"{number} of {len(choices)} seeds: a better one may lie outside")
    return notes


def _seed_prior(trial: Trial, contrast: Contrast) -> Prior | None:
    """From the same comparison of every arm with the side that the study names first, with the base or with a floor, or of
    every arm with itself elsewhere; whichever side is the left. None for an interaction, and between two sides without
    seeds."""
    arms = [arm.name for arm in trial.study.arms]
    if contrast.interaction is not None or not {contrast.left, contrast.right} & {*arms}:
        return None
    if contrast.left not in arms or (contrast.right in arms and arms.index(contrast.left) < arms.index(contrast.right)):
        contrast = contrast.flipped
    like = _with_left(contrast, "").model_copy(update={"expect": "greater", "margin": None, "bounds": None})
    if like not in trial.seed_priors:
        trial.seed_priors[like] = _fitted_prior(trial, contrast)
    return trial.seed_priors[like]


def _with_left(contrast: Contrast, arm: str) -> Contrast:
    """The comparison with another arm on the left; on both sides, where it is of one arm in two places."""
    both = {"right": arm} if contrast.left == contrast.right else {}
    return contrast.model_copy(update={"left": arm, **both})


def _fitted_prior(trial: Trial, contrast: Contrast) -> Prior | None:
    squares, freedom = [], len(trial.study.seeds) - 1
    for arm in trial.study.arms:
        if arm.name == contrast.right != contrast.left:
            continue
        try:
            estimate = _plain(trial, _with_left(contrast, arm.name)).estimate
        except NotMeasured:
            continue
        if estimate is not None and estimate.mean_squares is not None and estimate.num_seeds == freedom + 1:
            squares.append(estimate.mean_squares[0])
    return fit_prior(squares, freedom)


def _plain(trial: Trial, contrast: Contrast) -> Answer:
    """Left minus right by the comparison's own variances."""
    metric, of_sides = sides_of(trial, contrast)
    loadings = merged(loading for of_side in of_sides for loading in of_side)  # between two arms the base cancels
    seeds = all_seeds(trial, loadings)
    unit = trial.metric(metric).unit
    if trial.cancels(loadings, seeds):
        zero = exactly(0.0, unit, trial.study.evaluation.confidence)
        return replace(zero, metric=metric, by_construction=True, notes=(BY_CONSTRUCTION,))
    estimate, num_missing = estimate_loadings(trial, loadings, seeds)
    notes = _zero_sides(trial, contrast, of_sides, seeds)
    if num_missing:
        notes.append(f"{num_missing} items without a score in every run are left out")
    return Answer(estimate, unit, metric, over_items=True, notes=tuple(notes)).with_reason()


def _zero_sides(trial: Trial, contrast: Contrast, of_sides: list[list[Loading]], seeds: tuple[int, ...]) -> list[str]:
    """Which arms' own part is exactly zero."""
    if contrast.quantity == SCORE:
        return []
    return [f"{trial.label(side.arm)}: {contrast.quantity.replace('-', ' ')} is {BY_CONSTRUCTION}"
            for side, loadings in zip(contrast.sides, of_sides, strict=True)
            if merged(loadings) and trial.cancels(loadings, seeds)]


def _learning_rate_ratio(trial: Trial, contrast: Contrast) -> Answer:
    left, right = (_best_log_rates(trial, branch, last_phase(trial, contrast, branch))
                   for branch in map(trial.branch, contrast.sides))
    ratio = log_ratio(left, right, trial.study.evaluation.confidence)
    return Answer(ratio, "ratio", is_log=True).with_reason()


def _best_log_rates(trial: Trial, branch: Branch, phase: int) -> dict[int, float]:
    rates, arm = trial.rates(branch, phase), trial.label(branch.arm)
    if not rates:
        raise NotMeasured("has no learning rate", arm)
    found = trial.validation(branch, phase, trial.selected_by(branch, phase))
    best, lacking = {}, defaultdict(list)
    for seed in trial.study.seeds:
        if any((seed, rate) not in found for rate in rates):
            raise NotMeasured("not every learning rate has validation scores yet", arm)
        try:
            best[seed] = best_log_rate(rates, [found[seed, rate] for rate in rates])
        except NotMeasured as missing:
            lacking[str(missing)].append(seed)
    if lacking:
        reasons = "; ".join(f"{reason} ({seeds_text(of_seeds)})" for reason, of_seeds in lacking.items())
        raise NotMeasured(f"not estimated: {reasons}", arm)
    return best


def _matched_forgetting(trial: Trial, contrast: Contrast) -> Answer:
    """In nats per token on both tasks: generated outputs exist at one point of the grid only."""
    metric = contrast.metric or VALIDATION_METRIC
    branches = [trial.branch(side) for side in contrast.sides]
    losses = [_forgetting_loadings(trial, contrast, branch, metric) for branch in branches]
    unit, confidence = trial.metric(metric).unit, trial.study.evaluation.confidence
    if all(_is_zero(trial, loss) for loss in losses):
        zero = exactly(0.0, unit, confidence)
        return replace(zero, metric=metric, by_construction=True, notes=(BY_CONSTRUCTION,))
    matched = match(*(_states(trial, contrast, branch, loss) for branch, loss in zip(branches, losses, strict=True)))
    estimate = crossed((matched.left - matched.right)[:, np.newaxis], confidence)
    left, right = (trial.label(branch.arm) for branch in branches)
    where = f"at plasticity {matched.plasticity:.3g} {trial.metric(VALIDATION_METRIC).unit} on {contrast.learned}"
    notes = (f"{where}: {left} forgets {matched.left.mean():.3g}, {right} {matched.right.mean():.3g}",
             "interval over seeds, for these test items")
    return Answer(estimate, unit, metric, notes=notes).with_reason()


def _is_zero(trial: Trial, loadings: list[Loading]) -> bool:
    seeds, lacking = trial.measured_seeds(loadings)
    return not lacking and trial.cancels(loadings, seeds)


def _forgetting_loadings(trial: Trial, contrast: Contrast, branch: Branch, metric: str) -> list[Loading]:
    reading = reading_of(trial, "forgetting", branch, contrast.task, last_phase(trial, contrast, branch))
    return term_loadings(reading.terms, branch, Entry(0, contrast.task, metric, routing=contrast.routing))


def _states(trial: Trial, contrast: Contrast, branch: Branch, forgetting: list[Loading]) -> States:
    """Final states of an arm over seeds and rates: plasticity on `learned`, forgetting of `task`, on both splits; and both
    before the phase, on test."""
    phase = last_phase(trial, contrast, branch)
    gain = term_loadings((Term(1.0, phase, contrast.learned), Term(-1.0, 0, contrast.learned)), branch,
                         Entry(phase, contrast.learned, VALIDATION_METRIC, routing=contrast.routing))
    (gain_val, lost_val), (gain_test, lost_test) = (
        [_over_grid(trial, branch, phase, [replace(loading, entry=replace(loading.entry, split=split)) for loading in loadings])
         for loadings in (gain, forgetting)] for split in ("val", "test"))
    return States(trial.label(branch.arm), gain_val, lost_val, gain_test, lost_test, _before(trial, phase, gain, forgetting))


def _before(trial: Trial, phase: int, *sums: list[Loading]) -> tuple[Floats, Floats] | None:
    """Two sums of loadings as they were before `phase`, at the rates chosen until then, each [S]; None where that is not scored."""
    with suppress(NotMeasured):
        gain, lost = ([sum(loading.coefficient * _signed_at(trial, loading, seed, None) for loading in earlier)
                       for seed in trial.study.seeds]
                      for earlier in (merged(loading.at_phase(phase - 1) if loading.entry.phase == phase else loading
                                             for loading in loadings) for loadings in sums))
        return np.array(gain, np.float64), np.array(lost, np.float64)
    return None


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
                          trial.label(loading.branch.arm))
    signed = trial.signed(found)
    return np.nan if signed is None else signed
