"""Plasticity: what a phase teaches. Plasticity_j = R[j, j] - R[0, j]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term


class Plasticity(Measure):
    """The gain on a task right after the phase that trained it, over the untouched base."""

    higher_is_better: ClassVar[bool] = True
    summary: ClassVar[str] = "gain on the task just trained, over the untouched base"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase, of the task that it trained."""
        for phase, task in enumerate(order, start=1):
            yield Reading(phase, task, (Term(1.0, phase, task), Term(-1.0, 0, task)))
