"""Arms that do no better than an answer that needs no model: whatever they are compared in, none of them is of use yet.

Floors are scored beside the outputs of a task: the input copied, its first sentences, one answer for all. An arm beats a
floor where the interval of their difference, over seeds and items, lies above 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.analysis.contrasts import answer
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.naming import titles
from finetrial.analysis.numbers import plain
from finetrial.analysis.trial import Trial
from finetrial.measures.base import first_phase
from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.spec.hypothesis import FLOOR, Contrast
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import Sequence, Study


class BelowFloor(Rule):
    """At least one arm beats every floor of a task, right after it was learned."""

    summary: ClassVar[str] = "no arm beats an answer that needs no model"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """One warning for each base, sequence and learned task on which no arm is shown to beat every floor."""
        floors = sorted({row.cell.arm for row in records.table.scores if row.cell.arm.startswith(FLOOR)})
        if not floors:
            return
        trial = Trial(study, records.table)
        names = titles(study, set(floors))
        for base in study.bases:
            for path in study.paths:
                for task in dict.fromkeys(name for phase in path.tasks for name in joined_tasks(phase)):
                    missed = _missed(trial, base.name, path, task, floors)
                    if missed is not None:
                        arm, floor, estimate = missed
                        where = ", ".join([task, *([path.name] if len(study.paths) > 1 else []),
                                           *([base.name] if len(study.bases) > 1 else [])])
                        unit = trial.metric(trial.primary(task)).unit
                        yield Found("warning", f"{where}: no arm is shown to beat {names[floor]}; the best, {trial.label(arm)}, "
                                               f"is {_distance(estimate, unit)}: train longer, on more rows or a stronger "
                                               "base before choosing between the arms", f"tasks.{task}")


def _missed(trial: Trial, base: str, path: Sequence, task: str, floors: list[str]) -> tuple[str, str, Estimate] | None:
    """The best arm with the floor that it is least shown to beat, unless some arm beats every floor."""
    closest: list[tuple[str, str, Estimate]] = []
    for arm in trial.study.arms_along(path):
        found = [(arm.name, floor, estimate) for floor in floors
                 if (estimate := _difference(trial, base, path, task, arm.name, floor)) is not None]
        if not found:
            continue
        missed = [row for row in found if row[2].low is None or row[2].low <= 0]
        if not missed:
            return None
        closest.append(min(missed, key=lambda row: row[2].mean))
    return max(closest, key=lambda row: row[2].mean) if closest else None


def _difference(trial: Trial, base: str, path: Sequence, task: str, arm: str, floor: str) -> Estimate | None:
    """Arm minus floor after the phase that trained the task; None where outputs are missing."""
    contrast = Contrast(left=arm, right=floor, task=task, base=base, sequence=path.name,
                        phase=first_phase(task, path.tasks))
    return answer(trial, contrast).estimate


def _distance(estimate: Estimate, unit: str) -> str:
    """How far ahead or behind, counted from there."""
    ahead = estimate.mean > 0
    shown = estimate if ahead else estimate.mirrored()
    amount = f"{plain(shown.mean)}{f' {unit}' if unit else ''} {'ahead' if ahead else 'behind'}"
    if shown.low is None or shown.high is None:
        return f"{amount} (no interval)"
    return f"{amount} ({100 * shown.confidence:g} % interval {plain(shown.low)} to {plain(shown.high)})"
