"""A study and its table, indexed: which run is which, which rate was chosen, and R[k, j] of any arm.

A branch is one arm on one base along one sequence. A loading is a coefficient and an entry of a branch's score table;
every quantity that the analysis compares is a sum of loadings, evaluated seed by seed at the rate that validation
chose for that seed and phase (or at a fixed rate, for controls). The untouched base is the branch `base`: it has phase
0 only, no seed and no rate, and stands for every seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetrial.analysis.linearise import cluster_statistics, linearised, shared_items
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.selection import Choice, choose_rates
from finetrial.measures.base import Term
from finetrial.records.record import Outcome
from finetrial.records.table import Floats, ItemScores, Metric, Table
from finetrial.spec.study import BASE_ARM, Study

VALIDATION_METRIC = "nats-per-token"
Grid = Mapping[tuple[int | None, float | None], ItemScores]  # (seed, learning rate) -> scores


@dataclass(frozen=True)
class Branch:
    """One arm on one base along one sequence."""

    base: str
    arm: str
    sequence: str


@dataclass(frozen=True)
class Entry:
    """An entry of the score table: one task after one phase, by one metric."""

    phase: int
    task: str
    metric: str
    split: str = "test"
    routing: str = "latest"


@dataclass(frozen=True)
class Loading:
    """coefficient * R[phase, task] of a branch; at the chosen rate of each seed, or at `rate`."""

    coefficient: float
    branch: Branch
    entry: Entry
    rate: float | None = None


@dataclass(frozen=True)
class Differences:
    """d[s, i], signed so that higher is better, and how many items had to be left out."""

    values: Floats
    num_missing: int


class Trial:
    """Lookups over a table, complete or not. What is missing raises NotMeasured with the reason."""

    def __init__(self, study: Study, table: Table) -> None:
        self.study = study
        self.table = table
        grids: dict[tuple[Branch, Entry], dict[tuple[int | None, float | None], ItemScores]] = defaultdict(dict)
        for scores in table.scores:
            at, point = address(scores), (scores.cell.seed, scores.cell.point.learning_rate)
            if point in grids[at]:
                raise ValueError(f"two score rows for {at[0]}, {at[1]}, seed {point[0]}, learning rate {point[1]}")
            grids[at][point] = scores
        self._grids = dict(grids)
        self._choices: dict[tuple[Branch, int, str], dict[int, Choice]] = {}

    def grid(self, branch: Branch, entry: Entry) -> Grid:
        """All runs of a branch with scores for an entry; empty if there are none."""
        if branch.arm == BASE_ARM:
            branch, entry = replace(branch, sequence=""), replace(entry, phase=0, routing="latest")
        return self._grids.get((branch, entry), {})

    def order(self, sequence: str) -> tuple[str, ...]:
        """The tasks of a sequence, as they are learned."""
        paths = (*self.study.paths, *self.study.control_paths)
        return next(path.tasks for path in paths if path.name == sequence)

    def metrics_of(self, task: str) -> tuple[str, ...]:
        """The metrics recorded for a task, the primary one first."""
        recorded = {entry.metric for _, entry in self._grids if entry.task == task}
        primary = self.primary(task)
        return (primary, *sorted(recorded - {primary}))

    def primary(self, task: str) -> str:
        """The metric that decides on a task: the task's own, unless the study lists others only."""
        use = self.study.task(task)
        own = use.task.primary_metric
        return use.metrics[0] if use.metrics and own not in use.metrics else own

    def metric(self, name: str) -> Metric:
        """A metric by name. Raises NotMeasured if nothing was scored with it."""
        if name not in self.table.metrics:
            raise NotMeasured(f"nothing is scored with {name} yet")
        return self.table.metrics[name]

    def signed(self, scores: ItemScores) -> float | None:
        """The signed score of one run over the items it has; None if it failed or has none."""
        value = value_of(scores, self.metric(scores.metric))
        return None if value is None else self.metric(scores.metric).sign * value

    def rates(self, branch: Branch, phase: int) -> tuple[float, ...]:
        """The rates a branch is planned at; for controls, those recorded."""
        planned = {arm.name: arm for arm in self.study.arms}
        if branch.arm in planned:
            return planned[branch.arm].rates(self.order(branch.sequence)[phase - 1])
        recorded = {run.cell.point.learning_rate for run in self.runs(branch, phase)}
        return tuple(sorted(rate for rate in recorded if rate is not None))

    def runs(self, branch: Branch, phase: int) -> Iterator[ItemScores]:
        """Every recorded row of a branch after a phase."""
        for (other, entry), grid in self._grids.items():
            if other == branch and entry.phase == phase:
                yield from grid.values()

    def choices(self, branch: Branch, phase: int, metric: str = VALIDATION_METRIC) -> dict[int, Choice]:
        """The choice of rate for each seed, from validation on the task that the phase trains."""
        if (branch, phase, metric) not in self._choices:
            entry = Entry(phase, self.order(branch.sequence)[phase - 1], metric, split="val")
            scores = {(seed, rate): self.signed(run) for (seed, rate), run in self.grid(branch, entry).items()
                      if seed is not None and rate is not None}
            rates = self.rates(branch, phase)
            found = choose_rates(scores, rates, self.study.seeds) if rates else {}
            self._choices[branch, phase, metric] = found
        return self._choices[branch, phase, metric]

    def run(self, loading: Loading, seed: int) -> ItemScores:
        """The run that a loading reads for a seed. Raises NotMeasured if there is none or it failed."""
        branch, entry = loading.branch, loading.entry
        if branch.arm == BASE_ARM:
            where = ""
            found = self.grid(branch, entry).get((None, None))
        else:
            rate = loading.rate or self._chosen_rate(branch, entry.phase, seed)
            where = f" at learning rate {rate:g}"
            found = self.grid(branch, entry).get((seed, rate))
        if found is None:
            raise NotMeasured(f"no {entry.split} scores on {entry.task} ({entry.metric}){where} yet", branch.arm)
        if found.outcome is not Outcome.OK or found.statistics is None:
            raise NotMeasured(f"{found.outcome.value}{where}", branch.arm)
        return found

    def measured_seeds(self, loadings: Sequence[Loading]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The seeds for which every loading has a run, and why the others have not (each reason once, with seeds)."""
        seeds, lacking = [], defaultdict(list)
        for seed in self.study.seeds:
            try:
                for loading in loadings:
                    self.run(loading, seed)
            except NotMeasured as missing:
                lacking[str(missing)].append(seed)
            else:
                seeds.append(seed)
        return tuple(seeds), tuple(f"{why} ({seeds_text(of_seeds)})" for why, of_seeds in lacking.items())

    def differences(self, loadings: Iterable[Loading], seeds: Sequence[int]) -> Differences:
        """The sum of the loadings as d[s, i] over seeds and item clusters.

        Loadings of one task are paired item by item. Tasks are independent strata: each is centred and weighted by its
        share of clusters, so that means over seeds and the variance of the items add up over tasks.
        """
        by_task: dict[str, list[Loading]] = defaultdict(list)
        for loading in merged(loadings):
            by_task[loading.entry.task].append(loading)
        parts = [self._on_one_task(of_task, seeds) for of_task in by_task.values()]
        if len(parts) == 1:
            return parts[0]
        total = sum(part.values.mean() for part in parts)
        num_clusters = sum(part.values.shape[1] for part in parts)
        strata = [total + (part.values - part.values.mean()) * (num_clusters / part.values.shape[1]) for part in parts]
        return Differences(np.concatenate(strata, axis=1), sum(part.num_missing for part in parts))

    def _on_one_task(self, loadings: Sequence[Loading], seeds: Sequence[int]) -> Differences:
        runs = [[self.run(loading, seed) for seed in seeds] for loading in loadings]
        shared = shared_items([run for of_loading in runs for run in of_loading])
        if not shared.ids:
            raise NotMeasured(f"no item of {loadings[0].entry.task} has a score in every run of this comparison")
        metric = self.metric(loadings[0].entry.metric)
        total = np.zeros((len(seeds), shared.num_clusters))
        for loading, of_seeds in zip(loadings, runs, strict=True):
            sums = {id(run): cluster_statistics(run, shared) for run in of_seeds}  # the base's is one for all seeds
            values = linearised(np.stack([sums[id(run)] for run in of_seeds]), metric.aggregate)
            total += loading.coefficient * metric.sign * values
        if not np.isfinite(total).all():
            raise NotMeasured(f"{metric.name} on {loadings[0].entry.task} is not finite")
        return Differences(total, shared.num_missing)

    def _chosen_rate(self, branch: Branch, phase: int, seed: int) -> float:
        choice = self.choices(branch, phase).get(seed)
        if choice is None:
            raise NotMeasured("not run yet", branch.arm)
        if choice.rate is None:
            raise NotMeasured(self._why_no_rate(branch, phase, choice), branch.arm)
        return choice.rate

    def _why_no_rate(self, branch: Branch, phase: int, choice: Choice) -> str:
        outcomes = sorted({run.outcome.value for run in self.runs(branch, phase) if run.outcome is not Outcome.OK})
        return f"{choice.reason} ({', '.join(outcomes)})" if outcomes else choice.reason


def seeds_text(seeds: Sequence[int]) -> str:
    """`seed 3` or `seeds 0, 1, 2`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def term_loadings(terms: Iterable[Term], branch: Branch, entry: Entry, coefficient: float = 1.0) -> list[Loading]:
    """The terms of a measure as loadings of a branch; phase 0 is the untouched base."""
    base = Branch(branch.base, BASE_ARM, "")
    return [Loading(coefficient * term.coefficient, branch if term.phase else base,
                    replace(entry, phase=term.phase, task=term.task)) for term in terms]


def address(scores: ItemScores) -> tuple[Branch, Entry]:
    """The branch and the entry that a row of the table belongs to."""
    cell = scores.cell
    entry = Entry(scores.phase, scores.task, scores.metric, scores.split, scores.routing)
    if cell.arm == BASE_ARM:
        return Branch(cell.base, cell.arm, ""), replace(entry, routing="latest")
    return Branch(cell.base, cell.arm, cell.sequence), entry


def merged(loadings: Iterable[Loading]) -> list[Loading]:
    """Loadings of the same entry added up; those that cancel (the base, between two arms) are left out."""
    sums: dict[Loading, float] = defaultdict(float)
    for loading in loadings:
        if loading.branch.arm == BASE_ARM:
            entry = replace(loading.entry, phase=0, routing="latest")
            loading = replace(loading, branch=replace(loading.branch, sequence=""), entry=entry)
        sums[replace(loading, coefficient=0.0)] += loading.coefficient
    return [replace(loading, coefficient=total) for loading, total in sums.items() if total != 0.0]


def value_of(scores: ItemScores, metric: Metric) -> float | None:
    """The metric over the items that have a score; None if the run failed, has no items or the value is not finite."""
    if scores.statistics is None or scores.outcome is not Outcome.OK:
        return None
    kept = scores.statistics[np.isfinite(scores.statistics).all(axis=-1)]
    if not len(kept):
        return None
    value = float(metric.aggregate(kept.sum(axis=0)))
    return value if np.isfinite(value) else None
