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

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetrial.analysis.estimate import Estimate
from finetrial.analysis.power import (
    POWER,
    clusters_needed,
    detectable_with,
    equivalence_margin,
    seeds_for_equivalence,
    seeds_needed,
    would_do_with_more_seeds,
)
from finetrial.errors import UserError
from finetrial.spec.study import FEWEST_SEEDS

MOST_SEEDS = 200  # beyond which more seeds are no answer
MOST_TIMES_ITEMS = 100  # as many clusters as there are; beyond it more items are none


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
    """What would settle a comparison, with a power of 80 % and the variances seen so far: more seeds if they can, else items.

    With `equivalence` they must show that there is no difference of `margin`, if there is none; else find one as large as
    the one seen, which a first look tends to overstate, or as the margin, if that is larger.
    """
    if estimate.components is None:
        if not estimate.num_seeds:
            return Settling(None, "add test items: how noisy they are is not known from one cluster")
        return Settling(max(0, FEWEST_SEEDS - estimate.num_seeds),
                        f"run at least {FEWEST_SEEDS} seeds; how noisy they are is not known yet")
    of_margin = margin is not None and (equivalence or margin >= abs(estimate.mean))
    effect = margin if margin is not None and of_margin else abs(estimate.mean)
    if effect == 0:
        return Settling(None, "no difference was seen: state a margin, and seeds can show that there is none beyond it")
    what = ("that there is no difference beyond the margin, if there is none," if equivalence else
            "a difference of the margin" if of_margin else "a difference as large as the one seen")
    count = seeds_for_equivalence if equivalence else seeds_needed
    total = count(effect, estimate.components, estimate.num_clusters, alpha, POWER, MOST_SEEDS) if estimate.num_seeds else None
    if total is None:
        return Settling(None, _beside_seeds(estimate, alpha, effect, what, equivalence))
    more = max(0, total - estimate.num_seeds)
    if more == 0:
        return Settling(0, f"{estimate.num_seeds} seeds had a power of 80 % to show {what}; more seeds narrow the "
                           "interval, but were not short")
    return Settling(more, f"{more} more seeds ({total} in all) would show {what} with a power of 80 %")


def _beside_seeds(estimate: Estimate, alpha: float, effect: float, what: str, equivalence: bool) -> str:
    """What is short where seeds are none, or too many would be needed."""
    components, now = estimate.components, estimate.num_clusters
    assert components is not None
    clusters = clusters_needed(effect, components, estimate.num_seeds, alpha, equivalence=equivalence)
    within_reach = clusters is not None and clusters <= MOST_TIMES_ITEMS * now
    if not estimate.num_seeds and clusters is not None and clusters <= now:
        return f"{now} clusters of test items had a power of 80 % to show {what}; more narrow the interval, but were not short"
    if not estimate.num_seeds:
        about = f"about {clusters:,}" if within_reach else f"more than {MOST_TIMES_ITEMS * now:,}"
        return f"{about} clusters of test items, in place of {now}, would show {what} with a power of 80 %"
    enough = f" (about {clusters:,} clusters)" if within_reach else ""
    if would_do_with_more_seeds(effect, components, now, alpha, equivalence=equivalence):
        items = f", or more test items{enough}" if enough else ""
        return f"more than {MOST_SEEDS} seeds{items} would be needed to show {what} with a power of 80 %"
    if equivalence:
        shown = f"that no difference lies beyond {equivalence_margin(components, math.inf, now, alpha):.3g}, at best"
    else:
        shown = f"differences from {detectable_with(components, math.inf, now, alpha):.3g} on"
    return f"more seeds would not settle it: with however many, {now} clusters of test items show {shown}; add test items{enough}"
