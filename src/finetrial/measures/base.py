"""What a measure is: sums of entries of the score table R[k, j], the signed score on task j after phase k.

Scores are signed so that higher is better; phase 0 is the untouched base; phase k trains the k-th task of the
sequence. A measure yields readings; a reading is one number, a linear combination of entries: plasticity of task j is
+R[j, j] - R[0, j]. Because it is linear, the analysis gives every reading the interval of the crossed estimator, and
differences between arms are paired item by item. A reading over several tasks (such as mean forgetting) names no task
and has a value only where all of them share one metric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Term:
    """`coefficient` * R[phase, task]."""

    coefficient: float
    phase: int
    task: str


@dataclass(frozen=True)
class Reading:
    """One number of a measure: what it is of, and the entries it is made from. `task` is empty for a mean."""

    phase: int
    task: str
    terms: tuple[Term, ...]


class Measure(BaseModel, ABC):
    """A quantity made from R. The file's name is the registered name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ClassVar[int] = 1
    higher_is_better: ClassVar[bool]
    summary: ClassVar[str] = ""

    @abstractmethod
    def readings(self, order: Sequence[str], tasks: Sequence[str]) -> Iterable[Reading]:
        """Every reading of one arm along a sequence.

        `order` holds the tasks as they are learned (phase k trains order[k - 1]); `tasks` all tasks that are scored,
        those never trained on included.
        """


def phase_that_trained(task: str, order: Sequence[str], until: int) -> int:
    """The last phase up to `until` that trained `task`; 0 if none did."""
    return max((phase for phase, name in enumerate(order[:until], start=1) if name == task), default=0)
