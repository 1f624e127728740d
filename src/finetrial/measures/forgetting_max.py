"""Forgetting from the best there was: max over earlier phases l of R[l, j], minus R[k, j]; positive = worse.

Chaudhry, Dokania, Ajanthan & Torr 2018, "Riemannian Walk for Incremental Learning", arXiv:1801.10112, eq. 2 (f_j^k,
l from 1 to k - 1). It differs from `forgetting` where a task goes on improving after the phase that trained it. The
maximum is taken for each seed by its mean score, so noise makes it a little larger than the truth, never smaller:
beside small effects read `forgetting`. For text never trained on, the untouched base (l = 0) is among the phases.

Worked (matrix in `base`): after phase 3, A: max(0.80, 0.60) - 0.50 = 0.30; B: max(0.15, 0.70) - 0.75 = -0.05.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from finetrial.measures.base import Measure, Reading, Term, first_phase, learned_before


class ForgettingMax(Measure):
    """The loss on a task since the phase after which it was best."""

    higher_is_better: ClassVar[bool] = False
    summary: ClassVar[str] = "loss on a task since it was best (Chaudhry et al. 2018); positive = worse"

    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """One reading per phase from the second on and task learned before it; outside texts from the first on."""
        for phase in range(1, len(order) + 1):
            for task in tasks:
                outside = not first_phase(task, order)
                if outside or task in learned_before(order, phase):
                    earlier = tuple(range(0 if outside else 1, phase))
                    yield Reading(phase, task, (Term(1.0, earlier[0], task, earlier), Term(-1.0, phase, task)))
