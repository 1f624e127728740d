"""Plasticity: what a phase teaches. Plasticity_j = R[j, j] - R[0, j].

Worked (matrix in `base`): A: 0.80 - 0.10 = 0.70; B: 0.70 - 0.10 = 0.60; C: 0.90 - 0.10 = 0.80.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term
from finetrial.spec.slots import joined_tasks


class Plasticity(Measure):
    """The gain on a task right after the phase that trained it, over the untouched base."""

    higher_is_better: ClassVar[bool] = True
    summary: ClassVar[str] = "gain on the task just trained, over the untouched base"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase and task that it trained, if the task is scored."""
        for phase, name in enumerate(order, start=1):
            for task in (task for task in joined_tasks(name) if task in tasks):
                yield Reading(phase, task, (Term(1.0, phase, task), Term(-1.0, 0, task)))
