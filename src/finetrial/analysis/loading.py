"""Loadings: what every quantity that the analysis compares is a sum of.

A branch is one arm on one base along one sequence. An entry is one place of its score table. A loading is a
coefficient and an entry, evaluated seed by seed at the rate that validation chose for that seed and phase (or at a
fixed rate, for controls). The untouched base and the floors (outputs that need no model) are fixed branches: they have
phase 0 only, no seed and no rate, whatever the sequence, and stand for every seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from finetrial.measures.base import Term
from finetrial.records.table import ItemScores
from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.study import BASE_ARM


@dataclass(frozen=True)
class Branch:
    """One arm on one base along one sequence."""

    base: str
    arm: str
    sequence: str

    @property
    def is_fixed(self) -> bool:
        """Whether nothing was trained: the untouched base, or a floor."""
        return is_fixed(self.arm)

    @property
    def origin(self) -> Branch:
        """The untouched base of this branch."""
        return Branch(self.base, BASE_ARM, "")


@dataclass(frozen=True)
class Entry:
    """An entry of the score table: one task after one phase, by one metric."""

    phase: int
    task: str
    metric: str
    split: str = "test"
    routing: str = "latest"


@dataclass(frozen=True)
class Loading:
    """coefficient * R[phase, task] of a branch; at the chosen rate of each seed, or at `rate`.

    With `among`, the phase is, for each seed, the one of these after which the score was best.
    """

    coefficient: float
    branch: Branch
    entry: Entry
    rate: float | None = None
    among: tuple[int, ...] = ()

    def at_phase(self, phase: int) -> Loading:
        """The loading of one phase."""
        branch = self.branch if phase else self.branch.origin
        return replace(self, branch=branch, entry=replace(self.entry, phase=phase), among=())


def is_fixed(arm: str) -> bool:
    """Whether an arm is the untouched base or a floor."""
    return arm == BASE_ARM or arm.startswith(FLOOR)


def normal(branch: Branch, entry: Entry) -> tuple[Branch, Entry]:
    """A fixed branch has one row, whatever sequence, phase and routing it is asked for."""
    if branch.is_fixed:
        return replace(branch, sequence=""), replace(entry, phase=0, routing="latest")
    return branch, entry


def address(scores: ItemScores) -> tuple[Branch, Entry]:
    """The branch and the entry that a row of the table belongs to."""
    cell = scores.cell
    return normal(Branch(cell.base, cell.arm, cell.sequence),
                  Entry(scores.phase, scores.task, scores.metric, scores.split, scores.routing))


def term_loadings(terms: Iterable[Term], branch: Branch, entry: Entry, coefficient: float = 1.0) -> list[Loading]:
    """The terms of a measure as loadings of a branch; phase 0 is the untouched base."""
    found = []
    for term in terms:
        whole = Loading(coefficient * term.coefficient, branch, replace(entry, phase=term.phase, task=term.task))
        found.append(replace(whole, among=term.among) if len(term.among) > 1 else whole.at_phase(term.phase))
    return found


def merged(loadings: Iterable[Loading]) -> list[Loading]:
    """Loadings of the same entry added up; those that cancel (the base, between two arms) are left out."""
    sums: dict[Loading, float] = defaultdict(float)
    for loading in loadings:
        branch, entry = normal(loading.branch, loading.entry)
        sums[replace(loading, coefficient=0.0, branch=branch, entry=entry)] += loading.coefficient
    return [replace(loading, coefficient=total) for loading, total in sums.items() if abs(total) > 1e-12]
