"""Backward transfer: what later phases did to a task learned before; minus forgetting, positive = it improved.

Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory", arXiv:1706.08840, eq. 3: BWT = mean over tasks j learned before
the last phase T of R[T, j] - R[j, j].

Worked (matrix in `base`): A: 0.50 - 0.80 = -0.30; B: 0.75 - 0.70 = 0.05; BWT = (-0.30 + 0.05) / 2 = -0.125.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, learned_before, mean_of, phase_that_trained


class BackwardTransfer(Measure):
    """The change of tasks learned before, since the phase that trained each."""

    higher_is_better: ClassVar[bool] = True
    summary: ClassVar[str] = "change of tasks learned before; positive = later phases helped"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """For each phase from the second on: one reading per task learned before it, and their mean."""
        for phase in range(2, len(order) + 1):
            changes = [Reading(phase, task, (Term(1.0, phase, task),
                                             Term(-1.0, phase_that_trained(task, order, phase), task)))
                       for task in learned_before(order, phase) if task in tasks]
            yield from changes
            if changes:
                yield mean_of(changes, phase)
