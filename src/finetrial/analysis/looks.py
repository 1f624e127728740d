"""Looks: reading the results at several numbers of seeds, without being misled by having looked more than once.

A trial may add seeds and look again. Each look is another chance to find by luck what is not there: five looks at 5 %
each find something in 14 % of trials with nothing in them. So looks are declared before the first one (`looks: [3, 5,
10]`, numbers of seeds), and each of K looks is judged at the error rate alpha / K (Bonferroni). A look that was not
declared is exploratory: it is shown, and it decides nothing.

Why alpha / K and not a boundary of Pocock (1977) or an alpha-spending function (Lan & DeMets 1983): those are worked out
for sums of independent increments with known variance. Here the variance is estimated from as few as three seeds, and
all looks share their test items, so their estimates are more alike than such boundaries take into account. Alpha / K
holds whatever the dependence, needs no plan for the spacing of looks, and costs little: intervals 3 % wider than
Pocock's at two looks, 5 % at three, 7 % at five. It combines with Holm by dividing the family's alpha.

    look = look_at(5, declared=(3, 5, 10), earlier=(3,))
    holm(p_values, look.alpha)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetrial.analysis.estimate import Components, Estimate
from finetrial.analysis.power import POWER, detectable_with, seeds_for_equivalence, seeds_needed
from finetrial.errors import UserError
from finetrial.spec.study import FEWEST_SEEDS

MOST_SEEDS = 200  # beyond which more seeds are no answer


@dataclass(frozen=True)
class Look:
    """One reading of the results. `alpha` is the error rate of the whole family of contrasts at this look."""

    number: int  # 1, 2, ...
    num_looks: int  # over which the error rate is divided
    num_seeds: int
    is_declared: bool
    alpha: float

    @property
    def confidence(self) -> float:
        """Of an unadjusted interval at this look."""
        return 1 - self.alpha

    @property
    def caveat(self) -> str:
        """What has to be said beside a verdict; '' for the only look."""
        if not self.is_declared:
            return (f"exploratory, as results were seen before and a look at {self.num_seeds} seeds was not declared; "
                    "confirm it with new seeds")
        if self.num_looks == 1:
            return ""
        return f"look {self.number} of {self.num_looks}, each at an error rate of {self.alpha:.2g}"


def look_at(num_seeds: int, declared: Sequence[int] = (), earlier: Sequence[int] = (), alpha: float = 0.05) -> Look:
    """The look at `num_seeds` seeds. `declared`: the numbers of seeds at which looks were planned before the first one;
    `earlier`: those at which complete results were seen.

    Without declared looks the first one is the only one. A declared look stays one, whatever was looked at in between:
    what was declared is carried out. The same number of seeds again is the same look.
    """
    planned = tuple(sorted(declared))
    seen = sorted({*earlier} - {num_seeds})
    if num_seeds in planned:
        return Look(planned.index(num_seeds) + 1, len(planned), num_seeds, True, alpha / len(planned))
    if not planned and (not seen or seen[0] > num_seeds):
        return Look(1, 1, num_seeds, True, alpha)
    number = 1 + sum(seeds < num_seeds for seeds in seen)
    total = max(len(planned), len(seen) + 1)
    return Look(number, total, num_seeds, False, alpha / total)


def extended(seeds: Sequence[int], more: int) -> tuple[int, ...]:
    """The seeds with `more` new ones at the end. Raises UserError unless at least one is asked for."""
    if more < 1:
        raise UserError(f"--more-seeds {more} adds no seed", "for example --more-seeds 2")
    first = max(seeds, default=-1) + 1
    return (*seeds, *range(first, first + more))


@dataclass(frozen=True)
class Settling:
    """What would settle an open comparison."""

    more_seeds: int | None  # None = seeds are not what is missing
    text: str


def settle(estimate: Estimate, alpha: float, *, margin: float | None = None, equivalence: bool = False) -> Settling:
    """How many more seeds would settle a comparison, with a power of 80 % and the variances seen so far.

    `margin` is the difference that matters: the seeds must find one of that size (with `equivalence`: must show that
    there is none, if there is none). Without it they must find a difference of the size that was seen, which a first
    look tends to overstate.
    """
    if estimate.components is None:
        return Settling(max(0, FEWEST_SEEDS - estimate.num_seeds),
                        f"run at least {FEWEST_SEEDS} seeds; how noisy they are is not known yet")
    effect = abs(estimate.mean) if margin is None else margin
    what = "a difference as large as the one seen" if margin is None else "a difference of the margin"
    if effect == 0:
        return Settling(None, "no difference was seen: state a margin, and seeds can show that there is none beyond it")
    if equivalence:
        what = "that there is no difference beyond the margin, if there is none,"
        total = seeds_for_equivalence(effect, estimate.components, estimate.num_clusters, alpha, POWER, MOST_SEEDS)
    else:
        total = seeds_needed(effect, estimate.components, estimate.num_clusters, alpha, POWER, MOST_SEEDS)
    if total is None:
        return Settling(None, _items_are_short(estimate.components, estimate.num_clusters, alpha))
    more = max(0, total - estimate.num_seeds)
    if more == 0:
        return Settling(0, f"{estimate.num_seeds} seeds had a power of 80 % to show {what}; more seeds narrow the "
                           "interval, but were not short")
    return Settling(more, f"{more} more seeds ({total} in all) would show {what} with a power of 80 %")


def _items_are_short(components: Components, num_clusters: int, alpha: float) -> str:
    least = detectable_with(components, MOST_SEEDS, num_clusters, alpha)
    return (f"more seeds would not settle it: {num_clusters} clusters of test items show differences from {least:.3g} on, "
            "with however many seeds; add test items")
