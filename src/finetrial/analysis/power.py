"""What a comparison could have seen: the effect it detects with 80 % power, and the seeds that an effect needs.

The t statistic of an effect of size delta is noncentral t with noncentrality delta / SE (Cohen 1988; the same
computation as R's power.t.test with strict = TRUE).
"""

from __future__ import annotations

import math

import scipy  # its parts are imported where they are first used

from finetrial.analysis.estimate import Components
from finetrial.spec.study import FEWEST_SEEDS

POWER = 0.8
LARGEST = 1e4  # noncentralities above it are taken for it: the power is 1 and the distribution function overflows


def power(effect: float, standard_error: float, degrees_of_freedom: float, alpha: float = 0.05) -> float:
    """The chance that the two-sided test at `alpha` rejects, if the true mean is `effect`."""
    critical = float(scipy.special.stdtrit(degrees_of_freedom, 1 - alpha / 2))
    return _rejection(effect / standard_error, degrees_of_freedom, critical)


def detectable_effect(standard_error: float, degrees_of_freedom: float, alpha: float = 0.05,
                      wanted: float = POWER) -> float:
    """The smallest effect that the two-sided test at `alpha` finds with power `wanted`, in units of the mean."""
    if standard_error == 0:
        return 0.0
    critical = float(scipy.special.stdtrit(degrees_of_freedom, 1 - alpha / 2))
    highest = 1.0
    while _rejection(highest, degrees_of_freedom, critical) < wanted:
        highest *= 2
    ratio = scipy.optimize.brentq(lambda x: _rejection(x, degrees_of_freedom, critical) - wanted, 0.0, highest)
    return float(ratio) * standard_error


def seeds_needed(effect: float, components: Components, num_clusters: int, alpha: float = 0.05, wanted: float = POWER,
                 most: int = 200) -> int | None:
    """The fewest seeds (at least 3) that find `effect` with power `wanted` on as many clusters.

    None where even `most` seeds do not: then the items are too few, not the seeds.
    """
    for num_seeds in range(FEWEST_SEEDS, most + 1):
        standard_error, freedom = _expected(components, num_seeds, num_clusters)
        if standard_error == 0 or power(abs(effect), standard_error, freedom, alpha) >= wanted:
            return num_seeds
    return None


def detectable_with(components: Components, num_seeds: int, num_clusters: int, alpha: float = 0.05,
                    wanted: float = POWER) -> float:
    """The smallest effect that so many seeds and clusters are expected to find with power `wanted`."""
    return detectable_effect(*_expected(components, num_seeds, num_clusters), alpha, wanted)


def seeds_for_equivalence(margin: float, components: Components, num_clusters: int, alpha: float = 0.05,
                          wanted: float = POWER, most: int = 200) -> int | None:
    """The fewest seeds (at least 3) at which two arms that do not differ are found equivalent with power `wanted`.

    Two one-sided tests at `alpha` (Phillips 1990, J. Pharmacokinet. Biopharm. 18(2), eq. 4 at a true difference of 0,
    with the central t): 2 P(T < margin / SE - t) - 1. None where even `most` seeds are too few.
    """
    for num_seeds in range(FEWEST_SEEDS, most + 1):
        standard_error, freedom = _expected(components, num_seeds, num_clusters)
        if standard_error == 0:
            return num_seeds
        room = margin / standard_error - float(scipy.special.stdtrit(freedom, 1 - alpha))
        if 2 * float(scipy.special.stdtr(freedom, room)) - 1 >= wanted:
            return num_seeds
    return None


def _rejection(noncentrality: float, degrees_of_freedom: float, critical: float) -> float:
    """P(|T| > critical). The far tail is below P(Z < -noncentrality): left out where that is under 1e-9."""
    noncentrality = min(noncentrality, LARGEST)
    upper = 1.0 - float(scipy.special.nctdtr(degrees_of_freedom, noncentrality, critical))
    if noncentrality > 6:
        return upper
    return upper + float(scipy.special.nctdtr(degrees_of_freedom, noncentrality, -critical))


def _expected(components: Components, num_seeds: int, num_clusters: int) -> tuple[float, float]:
    """Standard error and degrees of freedom that the components lead to (see `estimate`)."""
    residual = components.residual
    squares = (residual + num_clusters * components.seeds, residual + num_seeds * components.items, residual)
    freedoms = (num_seeds - 1, num_clusters - 1, (num_seeds - 1) * (num_clusters - 1))
    total = squares[0] + squares[1] - squares[2]
    spread = sum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True) if freedom)
    freedom = max(num_seeds - 1.0, total**2 / spread) if spread > 0 else num_seeds - 1.0
    return math.sqrt(total / (num_seeds * num_clusters)), freedom
