"""Average score: the mean of R[k, j] over the tasks learned up to phase k.

Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory", arXiv:1706.08840, eq. 2 (ACC, after the last phase).

Worked (matrix in `base`): after phase 2: (0.60 + 0.70) / 2 = 0.65; after phase 3: (0.50 + 0.75 + 0.90) / 3 = 0.717.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, learned, mean_of


class AverageScore(Measure):
    """The mean score over all tasks learned so far."""

    higher_is_better: ClassVar[bool] = True
    is_level: ClassVar[bool] = True
    summary: ClassVar[str] = "mean score over the tasks learned so far"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase."""
        for phase in range(1, len(order) + 1):
            scores = [Reading(phase, task, (Term(1.0, phase, task),)) for task in learned(order, phase)
                      if task in tasks]
            if scores:
                yield mean_of(scores, phase)
