"""Study and results, indexed for the questions a report asks. No text is made here and nothing is estimated.

Intervals come from `results.measures` (`score`, `plasticity`, `forgetting`, ...). Where a measure is absent (a partial
run), the mean over the seeds that exist is shown without an interval, and says so.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from finetrial.analysis.costs import path_cost
from finetrial.analysis.naming import roles, runs_along
from finetrial.records.record import Outcome
from finetrial.records.results import NATS_PER_TOKEN, Cost, Finding, Measure, Results, Score, Selection
from finetrial.report.arms import BASE, FLOOR, ArmMark, arm_marks
from finetrial.spec import Contrast, Hypothesis, Study, TaskUse
from finetrial.spec.slots import joined_tasks

SCORE, PLASTICITY, FORGETTING = "score", "plasticity", "forgetting"
LATEST, ORACLE = "latest", "oracle"
MeasureKey = tuple[str, str, str, str, int, str, str, str]


@dataclass(frozen=True)
class Path:
    """A base and the order of tasks that it learns; a name in `tasks` may join several (`a+b`)."""

    base: str
    sequence: str
    tasks: tuple[str, ...]
    is_control: bool = False

    @property
    def last_phase(self) -> int:
        """The number of phases."""
        return len(self.tasks)

    @property
    def last_task(self) -> str:
        """What was learned last; of a joint phase, its last task."""
        return joined_tasks(self.tasks[-1])[-1]

    @property
    def learned(self) -> tuple[str, ...]:
        """Every task of the path once, in order."""
        return tuple(dict.fromkeys(task for name in self.tasks for task in joined_tasks(name)))


@dataclass(frozen=True)
class Estimate:
    """A mean with everything that must stand beside it. `value` None: nothing was measured, `failures` say why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    num_seeds: int | None = None
    num_items: int | None = None
    num_clusters: int | None = None
    num_missing_items: int = 0
    unit: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)  # outcome word -> number of cells
    note: str = ""  # what the analysis says of it: seeds left out and why


class Facts:
    """Look-ups over one study and its results."""

    def __init__(self, study: Study, results: Results) -> None:
        self.study = study
        self.results = results
        self.arms: tuple[ArmMark, ...] = arm_marks(results)
        self.paths = tuple(Path(base.name, path.name, path.tasks) for base in study.bases for path in study.paths)
        self.control_paths = tuple(Path(base.name, path.name, path.tasks, is_control=True)
                                   for base in study.bases for path in study.control_paths)

    @cached_property
    def _scores(self) -> Mapping[tuple[str, str, int, str, str, str], list[Score]]:
        index: dict[tuple[str, str, int, str, str, str], list[Score]] = defaultdict(list)
        for row in self.results.scores:
            if row.step is None:
                index[row.base, row.arm, row.phase, row.task, row.split, row.routing].append(row)
        return index

    @cached_property
    def _measures(self) -> Mapping[MeasureKey, Measure]:
        index: dict[MeasureKey, Measure] = {}
        for row in self.results.measures:
            sequence = "" if self._is_fixed(row.arm) else row.sequence
            index.setdefault((row.measure, row.base, row.arm, sequence, row.phase, row.task, row.metric, row.routing),
                             row)
        return index

    @cached_property
    def _of_metric(self) -> Mapping[tuple[str, str], Score]:
        """The first row of each task and metric."""
        index: dict[tuple[str, str], Score] = {}
        for row in self.results.scores:
            if (row.task, row.metric) not in index or (row.unit and not index[row.task, row.metric].unit):
                index[row.task, row.metric] = row
        return index

    @cached_property
    def _primary(self) -> Mapping[str, str]:
        marked = {row.task: row.metric for row in reversed(self.results.scores) if row.primary}
        return {use.name: marked.get(use.name, use.primary_metric) for use in self.study.tasks}

    @cached_property
    def tested_tasks(self) -> tuple[TaskUse, ...]:
        """The tasks that are evaluated, those that are learned first."""
        scored = (use for use in self.study.tasks if use.evaluate)
        return tuple(sorted(scored, key=lambda use: use.role != "learn"))

    def scored_along(self, path: Path) -> tuple[str, ...]:
        """The tasks that are scored along a path."""
        return tuple(use.name for use in self.study.evaluated_along(self.study.path(path.sequence)))

    @cached_property
    def floors(self) -> tuple[ArmMark, ...]:
        """What needs no model."""
        return tuple(arm for arm in self.arms if arm.role == FLOOR)

    def routings(self, path: Path, arm: str) -> tuple[str, ...]:
        """The routings under which an arm was evaluated along a path, LATEST first."""
        return (LATEST, *sorted(self._routings[path.base, path.sequence, arm] - {LATEST}))

    @cached_property
    def _routings(self) -> Mapping[tuple[str, str, str], set[str]]:
        index: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for row in self.results.measures:
            index[row.base, row.sequence, row.arm].add(row.routing)
        return index

    def along(self, path: Path) -> tuple[ArmMark, ...]:
        """What is shown of a sequence: base, floors, the arms that go along it, and on the study's own their controls."""
        elsewhere = set(roles(self.study)) - set(runs_along(self.study, self.study.path(path.sequence)))
        return tuple(arm for arm in self.arms if arm.is_fixed or arm.name not in elsewhere)

    def arm(self, name: str) -> ArmMark | None:
        """The arm called `name`, if the results know it."""
        return self._by_name.get(name)

    def label(self, name: str) -> str:
        """What people read for an arm."""
        mark = self.arm(name)
        return mark.label if mark else name

    def path_label(self, path: Path) -> str:
        """The base and the order of tasks, as far as they need saying; empty where there is only one path."""
        words = [path.base] if len(self.study.bases) > 1 else []
        if len(self.study.paths) > 1 or path.is_control:
            order = " \N{RIGHTWARDS ARROW} ".join(name.replace("+", " + ") for name in path.tasks)
            words.append(order if len(path.tasks) > 1 else f"{order} {'jointly' if '+' in path.tasks[0] else 'alone'}")
            if sum(other.tasks == path.tasks for other in self.study.every_path) > 1:
                words.append(path.sequence)  # the same order, for other arms
        return ", ".join(words)

    def primary_metric(self, task: str) -> str:
        """The task's primary metric: the one the rows mark, else the task's own."""
        return self._primary[task]

    def tuning_metric(self, task: str) -> str:
        """The metric that is known at every rate: nats per token, where the task has it."""
        return NATS_PER_TOKEN if (task, NATS_PER_TOKEN) in self._of_metric else self.primary_metric(task)

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics with test scores on a task, the primary one first, then in the order of the rows."""
        rows = (row.metric for row in self.results.scores if row.task == task and row.split == "test")
        return tuple(dict.fromkeys((self.primary_metric(task), *rows)))

    def unit(self, task: str, metric: str) -> str:
        """The unit of a metric, as its rows state it."""
        found = self._of_metric.get((task, metric))
        return found.unit if found else ""

    def higher_is_better(self, task: str, metric: str) -> bool:
        """The direction of a metric, as its rows state it (False without rows: losses)."""
        found = self._of_metric.get((task, metric))
        return found.higher_is_better if found else False

    def rows(self, path: Path, arm: str, phase: int, task: str, split: str, metric: str,
             routing: str = LATEST) -> list[Score]:
        """End-of-phase scores of one arm at every rate and seed; base and floors have one row whatever the sequence."""
        is_fixed = self._is_fixed(arm)
        place = (path.base, arm, phase, task, split, LATEST if is_fixed else routing)
        found = [row for row in self._scores[place] if row.metric == metric]
        return found if is_fixed else [row for row in found if row.sequence == path.sequence]

    def chosen_rows(self, path: Path, arm: str, phase: int, task: str, split: str, metric: str,
                    routing: str = LATEST) -> list[Score]:
        """The rows at the rate that validation chose, one a seed; the row of the base or a floor."""
        rows = self.rows(path, arm, phase, task, split, metric, routing)
        return rows if self._is_fixed(arm) else [row for row in rows if row.selected]

    def base_value(self, path: Path, task: str, metric: str, split: str = "test") -> float | None:
        """The untouched base's score."""
        return next((row.value for row in self.rows(path, BASE, 0, task, split, metric)), None)

    def measure(self, name: str, path: Path, arm: str, phase: int, task: str, metric: str = "",
                routing: str = LATEST) -> Measure | None:
        """A measured quantity. An empty metric stands for the task's primary one."""
        metric = metric or self.primary_metric(task)
        sequence, routing = ("", LATEST) if self._is_fixed(arm) else (path.sequence, routing)
        return self._measures.get((name, path.base, arm, sequence, phase, task, metric, routing))

    def score(self, path: Path, arm: str, phase: int, task: str, metric: str, routing: str = LATEST) -> Estimate:
        """The test score of an arm after a phase at its chosen rate, with interval where one was estimated."""
        chosen = self.chosen_rows(path, arm, phase, task, "test", metric, routing)
        shown = chosen or self.rows(path, arm, phase, task, "test", metric, routing)
        if not shown and self.tuning_metric(task) != metric:  # nothing was generated where no training finished
            shown = self.rows(path, arm, phase, task, "test", self.tuning_metric(task), routing)
        failures = Counter(str(row.outcome) for row in shown if row.outcome is not Outcome.OK)
        good = [row for row in chosen if row.outcome is Outcome.OK and row.value is not None]
        values = [row.value for row in good if row.value is not None]
        seeds = [row.seed for row in good if row.seed is not None]
        measured = self.measure(SCORE, path, arm, phase, task, metric, routing)
        plain = Estimate(value=statistics.fmean(values) if values else None, num_seeds=len(set(seeds)),
                         num_items=max((row.n for row in good), default=None),
                         num_missing_items=max((row.n_missing for row in good), default=0),
                         unit=self.unit(task, metric), failures=failures, note=measured.note if measured else "")
        if measured is None or measured.value is None:
            return plain
        num_seeds = plain.num_seeds if measured.n_seeds is None else measured.n_seeds
        return replace(plain, value=measured.value, low=measured.low, high=measured.high, num_seeds=num_seeds,
                       num_clusters=measured.n_clusters)

    def cost(self, path: Path, arm: str, task: str = "") -> Cost | None:
        """The cost of an arm on a task; without one, along the path."""
        if not task:
            return path_cost(self.results.costs, path.base, arm, path.tasks)
        return next((row for row in self.results.costs if (row.base, row.arm, row.task) == (path.base, arm, task)), None)

    def selections(self, path: Path, arm: str, phase: int) -> list[Selection]:
        """How the rate was chosen, one row a seed."""
        return [row for row in self.results.tuning if (row.base, row.sequence, row.arm, row.phase)
                == (path.base, path.sequence, arm, phase)]

    def answers(self, hypothesis: Hypothesis) -> list[tuple[Finding, Contrast | None]]:
        """The findings on a hypothesis's contrasts, each with the contrast it answers, in the order stated."""
        rows = [row for row in self.results.findings if row.hypothesis == hypothesis.name]
        parts = [row for row in rows if row.contrast] or rows
        matched = len(parts) == len(hypothesis.contrasts)
        return [(row, hypothesis.contrasts[place] if matched else None) for place, row in enumerate(parts)]

    def curve(self, path: Path, phase: int) -> list[Score]:
        """Learning-curve points of a phase at the rate that validation chose for each seed."""
        here = [row for row in self.results.scores if row.phase == phase and row.base == path.base
                and row.sequence == path.sequence and not self._is_fixed(row.arm)]
        points: dict[str, set[object]] = defaultdict(set)
        for row in here:
            points[row.arm].add(row.point)
        chosen = {(row.arm, row.seed, row.point) for row in here if row.selected}
        return [row for row in here if row.step is not None and row.value is not None
                and ((row.arm, row.seed, row.point) in chosen or len(points[row.arm]) == 1)]

    def _is_fixed(self, name: str) -> bool:
        mark = self._by_name.get(name)
        return mark.is_fixed if mark else name == BASE

    @cached_property
    def _by_name(self) -> Mapping[str, ArmMark]:
        return {mark.name: mark for mark in self.arms}
