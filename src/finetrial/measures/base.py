"""What a measure is: sums of entries of the score table R[k, j], the signed score on task j after phase k.

Scores are signed so that higher is better; phase 0 is the untouched base; phase k trains the k-th task of the
sequence (all of `a+b` where a phase trains two tasks jointly). A measure yields readings; a reading is one number, a
linear combination of entries: plasticity of task j is +R[j, j] - R[0, j]. Because it is linear, the analysis gives
every reading the interval of the crossed estimator, and differences between arms are paired item by item. A reading
over several tasks (such as mean forgetting) names no task and has a value only where they share one unit. A reading
with a denominator is a ratio of two such sums, with Fieller's interval, and none where the denominator may be 0.

The worked matrices in the measures' docstrings are accuracies (higher is better), rows phases, columns tasks:

    R      A     B     C
    0    0.10  0.10  0.10    untouched
    1    0.80  0.15  0.12    after A
    2    0.60  0.70  0.20    after B
    3    0.50  0.75  0.90    after C
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from finetrial.settings import Settings
from finetrial.spec.slots import joined_tasks


@dataclass(frozen=True)
class Term:
    """`coefficient` * R[phase, task]; with `among`, the best of R[p, task] over those phases p, for each seed."""

    coefficient: float
    phase: int
    task: str
    among: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One number of a measure: what it is of, and the entries it is made from. `task` is empty for a mean."""

    phase: int
    task: str
    terms: tuple[Term, ...]
    denominator: tuple[Term, ...] = ()  # empty: the sum of `terms` itself


class Measure(Settings, ABC):
    """A quantity made from R. The file's name is the registered name."""

    version: ClassVar[int] = 1
    higher_is_better: ClassVar[bool]
    is_level: ClassVar[bool] = False  # a score, not a change of scores: reported in the metric's own direction
    is_ratio: ClassVar[bool] = False  # its readings have denominators
    summary: ClassVar[str] = ""

    @abstractmethod
    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """Every reading of one arm along a sequence.

        `order` holds what each phase trains, in order (phase k trains order[k - 1]); `tasks` all tasks that are
        scored, those never trained on included.
        """


def phase_that_trained(task: str, order: Sequence[str], until: int) -> int:
    """The last phase up to `until` that trained `task`; 0 if none did."""
    return max((phase for phase, name in enumerate(order[:until], start=1) if task in joined_tasks(name)), default=0)


def first_phase(task: str, order: Sequence[str]) -> int:
    """The first phase that trains `task`; 0 if none does."""
    return next((phase for phase, name in enumerate(order, start=1) if task in joined_tasks(name)), 0)


def learned(order: Sequence[str], until: int) -> tuple[str, ...]:
    """The tasks that phases up to `until` trained, in order of their first phase."""
    return tuple(dict.fromkeys(task for name in order[:until] for task in joined_tasks(name)))


def learned_before(order: Sequence[str], phase: int) -> tuple[str, ...]:
    """The tasks that were learned before `phase` and that it does not train."""
    return tuple(task for task in learned(order, phase - 1) if task not in joined_tasks(order[phase - 1]))


def mean_of(readings: Sequence[Reading], phase: int) -> Reading:
    """The mean of readings (without denominators) as one reading that names no task."""
    share = 1 / len(readings)
    terms = (Term(share * term.coefficient, term.phase, term.task, term.among)
             for reading in readings for term in reading.terms)
    return Reading(phase, "", tuple(terms))
