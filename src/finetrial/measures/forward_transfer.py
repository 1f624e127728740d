"""Forward transfer: how much better a task is before its own phase than on the untouched base.

Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory", arXiv:1706.08840, eq. 4: FWT = mean over tasks j from the second
on of R[j - 1, j] - R[0, j] (their baseline is a random initialisation; here it is the pretrained base).

Worked (matrix in `base`): B: 0.15 - 0.10 = 0.05; C: 0.20 - 0.10 = 0.10; FWT = (0.05 + 0.10) / 2 = 0.075.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, first_phase, learned, mean_of


class ForwardTransfer(Measure):
    """The gain on a task, over the untouched base, from the phases before its own."""

    higher_is_better: ClassVar[bool] = True
    summary: ClassVar[str] = "gain on a task from the phases before its own; positive = they helped"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per task learned from the second phase on, after the phase before it; then their mean."""
        gains = [Reading(phase - 1, task, (Term(1.0, phase - 1, task), Term(-1.0, 0, task)))
                 for task in learned(order, len(order)) if task in tasks
                 and (phase := first_phase(task, order)) > 1]
        yield from gains
        if gains:
            yield mean_of(gains, len(order))
