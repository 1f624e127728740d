"""Arms that will never have all their seeds: what became of their runs, where all that are planned have ended.

A run that diverged or ran out of memory ends so again. An arm that lacks a seed for it alone is not waited for; one that
lacks a run is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from finetrial.analysis.loading import Branch, Entry, Loading
from finetrial.analysis.trial import VALIDATION_METRIC, Trial, seeds_text
from finetrial.records.record import Outcome
from finetrial.spec.slots import joined_tasks

Ended = Mapping[tuple[int, float], Outcome]  # (seed, learning rate) -> how the run ended


def lasting_failure(trial: Trial, loading: Loading) -> str:
    """Why an arm will never have all its seeds: the outcomes of the runs that stand in the way, and of which seeds they are,
    unless of all. Empty where it has them, or may still."""
    branch, seeds = loading.branch, trial.study.seeds
    open_seeds, failed = set(seeds) - set(trial.measured_seeds([loading])[0]), defaultdict(set)
    if not open_seeds:
        return ""
    for phase in range(1, loading.entry.phase + 1):
        ended = _ended(trial, branch, phase)
        choices = trial.choices(branch, phase) if ended else {}
        for seed in sorted(open_seeds & set(choices)):
            if runs := _in_the_way(ended, seed, choices[seed].rate):
                open_seeds.remove(seed)
                for (of_seed, _), outcome in runs.items():
                    failed[outcome.value].add(of_seed)
    if _ended(trial, branch, loading.entry.phase):
        for seed, outcome in _unanswered(trial, loading, open_seeds).items():
            open_seeds.remove(seed)
            failed[outcome.value].add(seed)
    if open_seeds:
        return ""
    is_general = set.union(*failed.values()) == set(seeds)
    return ", ".join(word if is_general else f"{word} for {seeds_text(sorted(failed[word]))}" for word in sorted(failed))


def _unanswered(trial: Trial, loading: Loading, seeds: Iterable[int]) -> Mapping[int, Outcome]:
    """How answering or scoring ended for seeds whose training did not fail: outputs are made at the chosen rate only."""
    grid, choices = trial.grid(loading.branch, loading.entry), trial.choices(loading.branch, loading.entry.phase)
    rows = {seed: grid.get((seed, loading.rate or choices[seed].rate)) for seed in seeds if seed in choices}
    return {seed: row.outcome for seed, row in rows.items() if row is not None and row.outcome is not Outcome.OK}


def _ended(trial: Trial, branch: Branch, phase: int) -> Ended:
    """How every planned run of a phase ended; empty while one of them has not."""
    planned = [(seed, rate) for seed in trial.study.seeds for rate in trial.rates(branch, phase)]
    tasks = joined_tasks(trial.order(branch.sequence)[phase - 1])
    judged = dict.fromkeys((VALIDATION_METRIC, trial.selected_by(branch, phase)))  # outputs that choose may fail as trainings do
    of_split = [[trial.grid(branch, Entry(phase, task, metric, split)) for task in tasks for metric in metrics]
                for split, metrics in (("val", judged), ("test", (VALIDATION_METRIC,)))]  # with one rate there is nothing to validate
    if not any(all(point in grid for grid in grids for point in planned) for grids in of_split):
        return {}
    return {point: next((grid[point].outcome for grids in of_split for grid in grids
                         if point in grid and grid[point].outcome is not Outcome.OK), Outcome.OK) for point in planned}


def _in_the_way(ended: Ended, seed: int, rate: float | None) -> Ended:
    """The failed runs for which a seed has no result: its own at the rate that was chosen, or those that left no rate to
    choose, of the seeds that failed at every rate if there are such."""
    failed = {point: outcome for point, outcome in ended.items() if outcome is not Outcome.OK}
    if rate is not None:
        return {(seed, rate): failed[seed, rate]} if (seed, rate) in failed else {}
    rates = {at for _, at in ended}
    if rates != {at for _, at in failed}:
        return {}
    lost = {of_seed for of_seed, _ in failed if all((of_seed, at) in failed for at in rates)}
    return {point: outcome for point, outcome in failed.items() if not lost or point[0] in lost}
