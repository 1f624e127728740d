"""Forgetting: what a phase costs elsewhere. Forgetting of j after phase k = R[m, j] - R[k, j], positive = worse.

m is the phase that last trained j, 0 for text that was never trained on. (Chaudhry et al. 2018, arXiv:1801.10112,
take the maximum over earlier phases instead of m: `forgetting_max`.) The unit is the task's own; never a difference of
perplexities.

Worked (matrix in `base`): A after phase 2: 0.80 - 0.60 = 0.20, after phase 3: 0.80 - 0.50 = 0.30; B after phase 3:
0.70 - 0.75 = -0.05.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, first_phase, phase_that_trained


class Forgetting(Measure):
    """The loss on a task since the phase that trained it, or since the base for text never trained on."""

    higher_is_better: ClassVar[bool] = False
    summary: ClassVar[str] = "loss on a task since it was trained (or since the base); positive = worse"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase and task that this phase did not train and that is either old text or learned before.

        A task that a later phase will train has no forgetting yet.
        """
        for phase in range(1, len(order) + 1):
            for task in tasks:
                trained = phase_that_trained(task, order, until=phase)
                if trained != phase and (trained > 0 or not first_phase(task, order)):
                    yield Reading(phase, task, (Term(1.0, trained, task), Term(-1.0, phase, task)))
