"""Drift: how much worse texts that no phase trains on became, R[0, o] - R[k, o], mean over these texts o.

It is forgetting with the untouched base as the start, over all outside texts at once: what training did to the rest of
the model's abilities. Positive = worse.

Worked: outside texts W and N with R[0] = (0.50, 0.40) and R[2] = (0.45, 0.43): drift after phase 2 =
((0.50 - 0.45) + (0.40 - 0.43)) / 2 = 0.01.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, first_phase, mean_of


class Drift(Measure):
    """The mean loss on texts never trained on, since the untouched base."""

    higher_is_better: ClassVar[bool] = False
    summary: ClassVar[str] = "mean loss on texts never trained on; positive = worse"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase; none without outside texts."""
        outside = [task for task in tasks if not first_phase(task, order)]
        for phase in range(1, len(order) + 1):
            losses = [Reading(phase, task, (Term(1.0, 0, task), Term(-1.0, phase, task))) for task in outside]
            if losses:
                yield mean_of(losses, phase)
