"""Retention: the share of what a phase taught that later phases left.

Retention_j after k = (R[k, j] - R[0, j]) / (R[m, j] - R[0, j]), m = the phase that trained j. 1 = all is left, 0 = as
good as the untouched base. A ratio: Fieller's interval (Fieller 1954, J. R. Statist. Soc. B 16(2)), and no value where
the gain in the denominator may be 0, or was a loss.

Worked (matrix in `base`): A after phase 3: (0.50 - 0.10) / (0.80 - 0.10) = 0.571; B: (0.75 - 0.10) / (0.70 - 0.10) =
1.083.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, learned_before, phase_that_trained


class Retention(Measure):
    """The gain that is left of the gain there was."""

    higher_is_better: ClassVar[bool] = True
    is_ratio: ClassVar[bool] = True
    summary: ClassVar[str] = "share of the gain on a task that later phases left"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase from the second on and task learned before it."""
        for phase in range(2, len(order) + 1):
            for task in learned_before(order, phase):
                if task in tasks:
                    trained = phase_that_trained(task, order, phase)
                    yield Reading(phase, task, (Term(1.0, phase, task), Term(-1.0, 0, task)),
                                  (Term(1.0, trained, task), Term(-1.0, 0, task)))
