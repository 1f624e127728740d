"""A study and its table, indexed: which run is which, which rate was chosen, and R[k, j] of any arm.

Rates are chosen by validation in nats per token, unless the study selects them by the metric that decides
(`Study.selection_metric`). Generated outputs for test items, and so the metrics that read them, exist only at the point that
was chosen. What is missing raises NotMeasured with its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetrial.analysis.linearise import Linearised
from finetrial.analysis.loading import Branch, Entry, Loading, address, merged, normal
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.moderation import Prior
from finetrial.analysis.naming import titles
from finetrial.analysis.selection import Choice, choose_rates
from finetrial.records.record import Outcome
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.records.table import Floats, ItemScores, Metric, Table
from finetrial.spec.hypothesis import Contrast, Side
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import Study

VALIDATION_METRIC = NATS_PER_TOKEN
Grid = Mapping[tuple[int | None, float | None], ItemScores]  # (seed, learning rate) -> scores


@dataclass(frozen=True)
class Differences:
    """d[s, i], signed so that higher is better, how many items had to be left out, and the clusters' names, [I]."""

    values: Floats
    num_missing: int
    clusters: tuple[str, ...]


class Trial:
    """Lookups over a table, complete or not.

    Raises ValueError if two rows are of the same run. An arm with runs at several ranks or numbers of examples has no
    answer: each is an arm of its own.
    """

    def __init__(self, study: Study, table: Table) -> None:
        self.study = study
        self.table = table
        self.titles = titles(study, {scores.cell.arm for scores in table.scores})
        self._grids: dict[tuple[Branch, Entry], dict[tuple[int | None, float | None], ItemScores]] = defaultdict(dict)
        self._metrics: dict[str, set[str]] = defaultdict(set)
        self._routings: dict[Branch, set[str]] = defaultdict(set)
        self._several: dict[Branch, str] = {}  # branches with several points at one rate, and which
        for scores in table.scores:
            self._add(scores)
        self._linearised = Linearised()
        self.seed_priors: dict[Contrast, Prior | None] = {}  # by what is compared with what, whatever is on the left
        self._choices: dict[tuple[Branch, int, str], dict[int, Choice]] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are evaluated."""
        return tuple(use.name for use in self.study.tasks if use.evaluate)

    def tasks_along(self, sequence: str) -> tuple[str, ...]:
        """The tasks that are evaluated along a sequence."""
        return tuple(use.name for use in self.study.evaluated_along(self.study.path(sequence)))

    def label(self, arm: str) -> str:
        """What people read for an arm."""
        return self.titles.get(arm, arm)

    def branch(self, side: Side) -> Branch:
        """Where one side of a contrast is found."""
        return Branch(side.base or self.study.bases[0].name, side.arm, side.sequence or self.study.paths[0].name)

    def grid(self, branch: Branch, entry: Entry) -> Grid:
        """All runs of a branch with scores for an entry; empty if there are none."""
        return {} if branch in self._several else self._grids.get(normal(branch, entry), {})

    def order(self, sequence: str) -> tuple[str, ...]:
        """What the phases of a sequence train, in order."""
        return self.study.path(sequence).tasks

    def metrics_of(self, task: str) -> tuple[str, ...]:
        """The metrics recorded for a task, the primary one first."""
        primary = self.primary(task)
        return (primary, *sorted(self._metrics[task] - {primary}))

    def primary(self, task: str) -> str:
        """The metric that decides on a task."""
        return self.study.task(task).primary_metric

    def metric(self, name: str) -> Metric:
        """A metric by name. Raises NotMeasured if nothing was scored with it."""
        if name not in self.table.metrics:
            raise NotMeasured(f"nothing is scored with {name} yet")
        return self.table.metrics[name]

    def routings(self, branch: Branch) -> tuple[str, ...]:
        """The routings under which a branch was evaluated, `latest` first."""
        return ("latest", *sorted(self._routings[branch] - {"latest"}))

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

    def validation(self, branch: Branch, phase: int,
                   metric: str = VALIDATION_METRIC) -> dict[tuple[int, float], float | None]:
        """Signed validation scores by (seed, rate), over all tasks that the phase trains."""
        grids = [self.grid(branch, Entry(phase, task, metric, split="val"))
                 for task in joined_tasks(self.order(branch.sequence)[phase - 1])]
        common = set.intersection(*(set(grid) for grid in grids))
        return {(seed, rate): self._pooled([grid[seed, rate] for grid in grids]) for seed, rate in common
                if seed is not None and rate is not None}

    def selected_by(self, branch: Branch, phase: int) -> str:
        """The metric by which the rate of a phase is chosen."""
        return self.study.selection_metric(self.order(branch.sequence)[phase - 1])

    def choices(self, branch: Branch, phase: int, metric: str = "") -> dict[int, Choice]:
        """The choice of rate for each seed, from validation on what the phase trains; by the metric that chooses unless named."""
        metric = metric or self.selected_by(branch, phase)
        if (branch, phase, metric) not in self._choices:
            rates = self.rates(branch, phase)
            found = choose_rates(self.validation(branch, phase, metric), rates, self.study.seeds) if rates else {}
            self._choices[branch, phase, metric] = found
        return self._choices[branch, phase, metric]

    def run(self, loading: Loading, seed: int) -> ItemScores:
        """The run that a loading reads for a seed. Raises NotMeasured if there is none or it failed."""
        if loading.among:
            runs = [self.run(loading.at_phase(phase), seed) for phase in loading.among]
            scores = [-np.inf if (score := self.signed(run)) is None else score for run in runs]
            return runs[int(np.argmax(scores))]
        branch, entry = loading.branch, loading.entry
        if branch in self._several:
            raise NotMeasured(f"has runs at {self._several[branch]}; make each an arm of its own",
                              self.label(branch.arm))
        rate = None if branch.is_fixed else loading.rate or self._chosen_rate(branch, entry.phase, seed)
        where = "" if rate is None else f" at learning rate {rate:g}"
        found = self.grid(branch, entry).get((None if branch.is_fixed else seed, rate))
        if found is None:
            routing = "" if entry.routing == "latest" else f", {entry.routing} routing"
            raise NotMeasured(f"no {entry.split} scores on {entry.task} ({entry.metric}{routing}){where} yet",
                              self.label(branch.arm))
        if found.outcome is not Outcome.OK or found.statistics is None:
            raise NotMeasured(f"{found.outcome.value}{where}", self.label(branch.arm))
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

    def cancels(self, loadings: Iterable[Loading], seeds: Sequence[int]) -> bool:
        """Whether the sum is exactly 0 because equal weights answered: for every seed, the coefficients of each
        digest of answering weights add up to 0."""
        summed = merged(loadings)
        for seed in seeds:
            totals: dict[tuple[str, ...], float] = defaultdict(float)
            for loading in summed:
                run = self.run(loading, seed)
                if run.answer_digest is None:
                    return False
                totals[run.task, run.split, run.metric, run.answer_digest] += loading.coefficient
            if any(abs(total) > 1e-12 for total in totals.values()):
                return False
        return True

    def differences(self, loadings: Iterable[Loading], seeds: Sequence[int],
                    beside: Sequence[Loading] = ()) -> Differences:
        """The sum of the loadings as d[s, i] over seeds and item clusters.

        Loadings of one task are paired item by item, over the items that all have, those of `beside` too. Tasks are
        strata: each is centred and weighted by its share of clusters, so that means over seeds and the variance of the items
        add up over tasks. What two tasks took from one cluster (the same file) is one observation, not two.
        """
        by_task: dict[tuple[str, str], list[Loading]] = defaultdict(list)
        for loading in merged(loadings):
            by_task[loading.entry.task, loading.entry.metric].append(loading)
        parts = [self._on_one_task(of_task, seeds, beside) for of_task in by_task.values()]
        if len(parts) == 1:
            return parts[0]
        clusters = tuple(dict.fromkeys(name for part in parts for name in part.clusters))
        place = {name: at for at, name in enumerate(clusters)}
        values = np.full((len(seeds), len(clusters)), sum(part.values.mean() for part in parts))
        for part in parts:
            values[:, [place[name] for name in part.clusters]] += (
                (part.values - part.values.mean()) * (len(clusters) / len(part.clusters)))
        return Differences(values, sum(part.num_missing for part in parts), clusters)

    def _add(self, scores: ItemScores) -> None:
        """Index one row. A fixed branch is recorded along every sequence: the first row stands for all."""
        branch, entry = address(scores)
        self._metrics[entry.task].add(entry.metric)
        self._routings[branch].add(entry.routing)
        grid, point = self._grids[branch, entry], (scores.cell.seed, scores.cell.point.learning_rate)
        if point in grid and not branch.is_fixed:
            here, there = (row.cell.point for row in (scores, grid[point]))
            if here == there:
                raise ValueError(f"two score rows for {branch}, {entry}, seed {point[0]}, learning rate {point[1]}")
            words = [", ".join(f"{name} {getattr(at, name)}" for name in ("rank", "num_train")
                               if getattr(here, name) != getattr(there, name)) for at in (there, here)]
            self._several.setdefault(branch, " and ".join(words))
        grid.setdefault(point, scores)

    def _pooled(self, runs: Sequence[ItemScores]) -> float | None:
        """The signed score over the items of several tasks together."""
        if len(runs) == 1:
            return self.signed(runs[0])
        if any(run.statistics is None or run.outcome is not Outcome.OK for run in runs):
            return None
        rows = np.concatenate([run.statistics for run in runs if run.statistics is not None])
        return self.signed(replace(runs[0], statistics=rows))

    def _on_one_task(self, loadings: Sequence[Loading], seeds: Sequence[int],
                     beside: Sequence[Loading]) -> Differences:
        runs = [[self.run(loading, seed) for seed in seeds] for loading in loadings]
        others = [self.run(loading, seed) for loading in beside for seed in seeds
                  if loading.entry.task == loadings[0].entry.task]
        shared = self._linearised.shared([run for of_loading in runs for run in of_loading] + others)
        if not len(shared.items):
            raise NotMeasured(f"no item of {loadings[0].entry.task} has a score in every run of this comparison")
        metric = self.metric(loadings[0].entry.metric)
        total = np.zeros((len(seeds), shared.num_clusters))
        for loading, of_seeds in zip(loadings, runs, strict=True):
            values = np.stack([self._linearised.values(run, shared, metric.aggregate) for run in of_seeds])
            total += loading.coefficient * metric.sign * values
        if not np.isfinite(total).all():
            raise NotMeasured(f"{metric.name} on {loadings[0].entry.task} has no value in at least one run: nothing in its "
                              "outputs can be counted")
        return Differences(total, shared.num_missing, shared.items.cluster_names)

    def _chosen_rate(self, branch: Branch, phase: int, seed: int) -> float:
        choice = self.choices(branch, phase).get(seed)
        if choice is None:
            raise NotMeasured("not run yet", self.label(branch.arm))
        if choice.rate is None:
            raise NotMeasured(self._why_no_rate(branch, phase, choice), self.label(branch.arm))
        return choice.rate

    def _why_no_rate(self, branch: Branch, phase: int, choice: Choice) -> str:
        outcomes = sorted({run.outcome.value for run in self.runs(branch, phase) if run.outcome is not Outcome.OK})
        return f"{choice.reason} ({', '.join(outcomes)})" if outcomes else choice.reason


def seeds_text(seeds: Sequence[int]) -> str:
    """`seed 3` or `seeds 0, 1, 2`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def value_of(scores: ItemScores, metric: Metric) -> float | None:
    """The metric over the items that have a score; None if the run failed, has no items or the value is not finite."""
    if scores.statistics is None or scores.outcome is not Outcome.OK:
        return None
    return metric.value(scores.statistics)
