"""Choosing the learning rate from validation, for each seed by the other seeds.

For seed s the rate is the one with the best mean validation score over the other seeds (leave one seed out), so that
the test score of s at that rate is not biased by its own luck, and the spread over seeds contains the choice. With one
seed there is no other: its own validation decides. A rate at which any of those seeds ran out of memory, diverged or
failed is the worst there is; its numbers at other seeds do not save it. A seed decides over others only when it has a
result at every rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Choice:
    """The rate chosen for one seed. `means` are signed (higher is better); None where a run failed or is missing."""

    seed: int
    rates: tuple[float, ...]
    means: tuple[float | None, ...]
    rate: float | None
    reason: str = ""  # why there is none

    @property
    def at_edge(self) -> bool:
        """Whether a better rate may lie outside the grid. A grid of one rate was not tuned and has no edge."""
        return len(self.rates) > 1 and self.rate in (self.rates[0], self.rates[-1])


def choose_rates(scores: Mapping[tuple[int, float], float | None], rates: Sequence[float],
                 seeds: Sequence[int]) -> dict[int, Choice]:
    """The rate of each seed, from signed validation scores by (seed, rate).

    A value of None is a run that failed; an absent key is one that has not been made yet. Ties go to the lower rate.
    """
    grid = tuple(sorted(rates))
    finished = [seed for seed in seeds if all((seed, rate) in scores for rate in grid)]
    return {seed: _choose(seed, scores, grid, finished) for seed in seeds}


def _choose(seed: int, scores: Mapping[tuple[int, float], float | None], grid: tuple[float, ...],
            finished: Sequence[int]) -> Choice:
    if len(grid) == 1:
        return Choice(seed, grid, (scores.get((seed, grid[0])),), grid[0])
    judges = [other for other in finished if other != seed] or [other for other in finished if other == seed]
    if not judges:
        return Choice(seed, grid, (None,) * len(grid), None, "not every learning rate has validation scores yet")
    means = tuple(_mean([scores[judge, rate] for judge in judges]) for rate in grid)
    measured = [(mean, -at) for at, mean in enumerate(means) if mean is not None]
    if not measured:
        return Choice(seed, grid, means, None, "no learning rate finished")
    return Choice(seed, grid, means, grid[-max(measured)[1]])


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, rounded once, so that equals stay equal in any order; or None if any run failed."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(finite) if len(finite) == len(values) else None
