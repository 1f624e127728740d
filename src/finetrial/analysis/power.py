"""What a comparison could have seen: the effect it detects with 80 % power, and the seeds or items that an effect needs.

The t statistic of an effect of size delta is noncentral t with noncentrality delta / SE (Cohen 1988; the same
computation as R's power.t.test with strict = TRUE).
"""

from __future__ import annotations

import bisect
import math

import scipy  # its parts are imported where they are first used

from finetrial.analysis.estimate import Components, fewest_freedom
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
    """The fewest seeds (at least 3) that find `effect` with power `wanted` on as many clusters; None if not even `most` do."""
    return next((number for number in range(FEWEST_SEEDS, most + 1)
                 if _finds(effect, components, number, num_clusters, alpha, wanted)), None)


def clusters_needed(effect: float, components: Components, num_seeds: int, alpha: float = 0.05, wanted: float = POWER,
                    most: int = 1_000_000, *, equivalence: bool = False) -> int | None:
    """The fewest clusters of items (at least 2) that find `effect` with as many seeds (0: nothing is trained), or with
    `equivalence` that there is none of that size; None if not even `most` do."""
    def enough(number: int) -> bool:
        return (_finds_none if equivalence else _finds)(effect, components, num_seeds, number, alpha, wanted)

    low = high = 2
    while not enough(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    return low + bisect.bisect_left(range(low, high), True, key=enough)


def detectable_with(components: Components, num_seeds: float, num_clusters: int, alpha: float = 0.05,
                    wanted: float = POWER) -> float:
    """The smallest effect that so many seeds and clusters are expected to find with power `wanted`."""
    return detectable_effect(*_expected(components, num_seeds, num_clusters), alpha, wanted)


def equivalence_margin(components: Components, num_seeds: float, num_clusters: int, alpha: float = 0.05,
                       wanted: float = POWER) -> float:
    """The smallest margin within which so many seeds and clusters are expected to find two arms that do not differ."""
    standard_error, freedom = _expected(components, num_seeds, num_clusters)
    return standard_error * float(scipy.special.stdtrit(freedom, 1 - alpha) + scipy.special.stdtrit(freedom, (1 + wanted) / 2))


def seeds_for_equivalence(margin: float, components: Components, num_clusters: int, alpha: float = 0.05,
                          wanted: float = POWER, most: int = 200) -> int | None:
    """The fewest seeds (at least 3) at which two arms that do not differ are found equivalent with power `wanted`; None where
    even `most` are too few."""
    return next((number for number in range(FEWEST_SEEDS, most + 1)
                 if _finds_none(margin, components, number, num_clusters, alpha, wanted)), None)


def would_do_with_more_seeds(effect: float, components: Components, num_clusters: int, alpha: float = 0.05,
                             wanted: float = POWER, *, equivalence: bool = False) -> bool:
    """Whether any number of seeds finds `effect` on as many clusters, or with `equivalence` that there is none of that size."""
    enough = _finds_none if equivalence else _finds
    return enough(effect, components, math.inf, num_clusters, alpha, wanted)


def _finds(effect: float, components: Components, num_seeds: float, num_clusters: float, alpha: float, wanted: float) -> bool:
    standard_error, freedom = _expected(components, num_seeds, num_clusters)
    return standard_error == 0 or power(abs(effect), standard_error, freedom, alpha) >= wanted


def _finds_none(margin: float, components: Components, num_seeds: float, num_clusters: float, alpha: float,
                wanted: float) -> bool:
    """Two one-sided tests at `alpha` (Phillips 1990, J. Pharmacokinet. Biopharm. 18(2), eq. 4 at a true difference of 0, with
    the central t): 2 P(T < margin / SE - t) - 1."""
    standard_error, freedom = _expected(components, num_seeds, num_clusters)
    if standard_error == 0:
        return True
    room = margin / standard_error - float(scipy.special.stdtrit(freedom, 1 - alpha))
    return 2 * float(scipy.special.stdtr(freedom, room)) - 1 >= wanted


def _rejection(noncentrality: float, degrees_of_freedom: float, critical: float) -> float:
    """P(|T| > critical). The far tail is below P(Z < -noncentrality): left out where that is under 1e-9."""
    noncentrality = min(noncentrality, LARGEST)
    upper = 1.0 - float(scipy.special.nctdtr(degrees_of_freedom, noncentrality, critical))
    if noncentrality > 6:
        return upper
    return upper + float(scipy.special.nctdtr(degrees_of_freedom, noncentrality, -critical))


def _expected(components: Components, num_seeds: float, num_clusters: float) -> tuple[float, float]:
    """Standard error and degrees of freedom that the components lead to (see `estimate`). Seeds may be infinitely many, or 0
    where nothing is trained: what varies with them is then not there."""
    num_seeds = num_seeds or math.inf
    rest = components.residual / num_seeds / num_clusters
    of_seeds, of_items = components.seeds / num_seeds, components.items / num_clusters
    shares = (of_seeds + rest, of_items + rest, rest)
    freedoms = (num_seeds - 1, num_clusters - 1, (num_seeds - 1) * (num_clusters - 1) if num_clusters > 1 else 0)
    variance = of_seeds + of_items + rest
    spread = sum(share**2 / freedom for share, freedom in zip(shares, freedoms, strict=True) if freedom and share)
    fewest = fewest_freedom(num_seeds, num_clusters)
    return math.sqrt(variance), max(fewest, variance**2 / spread) if spread > 0 else fewest
