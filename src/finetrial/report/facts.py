"""Study and results, indexed for the questions a report asks. No text is made here and nothing is estimated.

Intervals come from `results.measures` (`score`, `plasticity`, `forgetting`). Where a measure is absent (a partial run),
the mean over the seeds that exist is shown without an interval, and says so.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from finetrial.records.record import Outcome
from finetrial.records.results import Cost, Finding, Measure, Results, Score, Selection
from finetrial.report.arms import BASE, ArmMark, arm_marks
from finetrial.spec import Contrast, Hypothesis, Study, TaskUse

SCORE, PLASTICITY, FORGETTING = "score", "plasticity", "forgetting"


@dataclass(frozen=True)
class Path:
    """A base and the order of tasks that it learns."""

    base: str
    sequence: str
    tasks: tuple[str, ...]

    @property
    def last_phase(self) -> int:
        """The number of phases."""
        return len(self.tasks)


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

    @cached_property
    def _scores(self) -> Mapping[tuple[str, str, int, str, str], list[Score]]:
        index: dict[tuple[str, str, int, str, str], list[Score]] = defaultdict(list)
        for row in self.results.scores:
            if row.step is None and row.routing == "latest":
                index[row.base, row.arm, row.phase, row.task, row.split].append(row)
        return index

    @cached_property
    def tested_tasks(self) -> tuple[TaskUse, ...]:
        """The study's tasks, those that are learned first."""
        return tuple(sorted(self.study.tasks, key=lambda use: use.role != "learn"))

    def arm(self, name: str) -> ArmMark | None:
        """The arm called `name`, if the results know it."""
        return next((mark for mark in self.arms if mark.name == name), None)

    def label(self, name: str) -> str:
        """What people read for an arm."""
        mark = self.arm(name)
        return mark.label if mark else name

    def path_label(self, path: Path) -> str:
        """The base and the order of tasks, as far as they need saying; empty where there is only one path."""
        words = [path.base] if len(self.study.bases) > 1 else []
        words += [" \N{RIGHTWARDS ARROW} ".join(path.tasks)] if len(self.study.paths) > 1 else []
        return ", ".join(words)

    def primary_metric(self, task: str) -> str:
        """The task's primary metric: the one the rows mark, else the task's own."""
        marked = (row.metric for row in self.results.scores if row.task == task and row.primary)
        return next(marked, self.study.task(task).task.primary_metric)

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics with test scores on a task, the primary one first, then in the order of the rows."""
        primary = self.primary_metric(task)
        rows = (row.metric for row in self.results.scores if row.task == task and row.split == "test")
        return tuple(dict.fromkeys((primary, *rows)))

    def unit(self, task: str, metric: str) -> str:
        """The unit of a metric, as its rows state it."""
        rows = (row.unit for row in self.results.scores if row.task == task and row.metric == metric and row.unit)
        return next(rows, "")

    def higher_is_better(self, task: str, metric: str) -> bool:
        """The direction of a metric, as its rows state it (False without rows: losses)."""
        rows = (row.higher_is_better for row in self.results.scores if row.task == task and row.metric == metric)
        return next(rows, False)

    def rows(self, path: Path, arm: str, phase: int, task: str, split: str, metric: str) -> list[Score]:
        """End-of-phase scores of one arm at every rate and seed; the base has one row whatever the sequence."""
        found = [row for row in self._scores[path.base, arm, phase, task, split] if row.metric == metric]
        return found if arm == BASE else [row for row in found if row.sequence == path.sequence]

    def chosen_rows(self, path: Path, arm: str, phase: int, task: str, split: str, metric: str) -> list[Score]:
        """The rows at the rate that validation chose, one a seed; all rows of an arm that has one point only."""
        rows = self.rows(path, arm, phase, task, split, metric)
        one_point = len({row.point for row in rows}) == 1
        return rows if one_point else [row for row in rows if row.selected]

    def base_value(self, path: Path, task: str, metric: str, split: str = "test") -> float | None:
        """The untouched base's score."""
        return next((row.value for row in self.rows(path, BASE, 0, task, split, metric)), None)

    def measure(self, name: str, path: Path, arm: str, phase: int, task: str, metric: str = "") -> Measure | None:
        """A measured quantity under LATEST routing. An empty metric stands for the task's primary one."""
        metric = metric or self.primary_metric(task)
        wanted = (name, path.base, arm, phase, task, metric, "latest")
        for row in self.results.measures:
            found = (row.measure, row.base, row.arm, row.phase, row.task, row.metric, row.routing)
            if found == wanted and (arm == BASE or row.sequence == path.sequence):
                return row
        return None

    def score(self, path: Path, arm: str, phase: int, task: str, metric: str) -> Estimate:
        """The test score of an arm after a phase at its chosen rate, with interval where one was estimated."""
        chosen = self.chosen_rows(path, arm, phase, task, "test", metric)
        shown = chosen or self.rows(path, arm, phase, task, "test", metric)
        failures = Counter(str(row.outcome) for row in shown if row.outcome is not Outcome.OK)
        good = [row for row in chosen if row.outcome is Outcome.OK and row.value is not None]
        values = [row.value for row in good if row.value is not None]
        seeds = [row.seed for row in good if row.seed is not None]
        measured = self.measure(SCORE, path, arm, phase, task, metric)
        plain = Estimate(value=statistics.fmean(values) if values else None, num_seeds=len(set(seeds)),
                         num_items=max((row.n for row in good), default=None),
                         num_missing_items=max((row.n_missing for row in good), default=0),
                         unit=self.unit(task, metric), failures=failures, note=measured.note if measured else "")
        if measured is None or measured.value is None:
            return plain
        num_seeds = plain.num_seeds if measured.n_seeds is None else measured.n_seeds
        return replace(plain, value=measured.value, low=measured.low, high=measured.high, num_seeds=num_seeds,
                       num_clusters=measured.n_clusters)

    def cost(self, path: Path, arm: str) -> Cost | None:
        """The cost of an arm on the last task of a path that has one."""
        rows = [row for row in self.results.costs if row.base == path.base and row.arm == arm]
        by_task = {row.task: row for row in rows}
        named = [by_task[task] for task in reversed(path.tasks) if task in by_task]
        return next(iter(named), rows[0] if rows else None)

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
                and row.sequence == path.sequence and row.arm != BASE]
        points = {arm: {row.point for row in here if row.arm == arm} for arm in {row.arm for row in here}}
        chosen = {(row.arm, row.seed, row.point) for row in here if row.selected}
        return [row for row in here if row.step is not None and row.value is not None
                and ((row.arm, row.seed, row.point) in chosen or len(points[row.arm]) == 1)]
