"""Rows about generated outputs: what every arm wrote, and how its scores are spread."""

from __future__ import annotations

from typing import Literal

from finetrial.records.row import Row


class Written(Row):
    """What one arm wrote for one item."""

    arm: str
    seed: int | None  # None: the untouched base or a floor
    output: str | None  # None = missing
    score: float | None = None


class Example(Row):
    """One item with what every arm wrote for it, chosen by a rule. The rule compares `left` with `right`."""

    base: str
    sequence: str
    phase: int
    task: str
    item: str
    chosen: Literal["best", "median", "worst", "random"]  # by left minus right in `metric`; random: by a digest of id
    left: str
    right: str
    metric: str
    difference: float | None = None  # left minus right, signed so that higher is better, mean over seeds
    input: str
    reference: str
    written: tuple[Written, ...]


class Distribution(Row):
    """How one metric of one arm is spread over items, all seeds together: quantiles at 0, 5, ..., 100 %."""

    base: str
    arm: str
    sequence: str
    phase: int
    task: str
    metric: str
    n: int
    n_missing: int = 0
    num_distinct: int | None = None  # values; None in results that were written before it was counted
    quantiles: tuple[float, ...]

    @property
    def is_yes_or_no(self) -> bool:
        """Whether every item has 0 or 1, so that the mean says all."""
        return self.num_distinct is not None and self.num_distinct <= 2 and {self.quantiles[0], self.quantiles[-1]} <= {0.0, 1.0}
