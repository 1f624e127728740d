"""The ratio of two means with Fieller's interval (Fieller 1954, J. R. Statist. Soc. B 16(2), 175-185).

The interval holds every ratio r for which mean(n - r d) = 0 is not rejected, where n and d are the paired values of
numerator and denominator. It is the crossed test that is inverted, so that the interval speaks of new seeds and new
items. Where the denominator itself may be 0 there is no bounded interval: the ratio is refused.

Shapes: S seeds, I clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import scipy  # its parts are imported where they are first used

from finetrial.analysis.estimate import Estimate, crossed
from finetrial.analysis.missing import NotMeasured
from finetrial.records.table import Floats

_WIDEST = 60  # doublings of a step of one standard error, when looking for an end


def ratio_of_means(numerator: Floats, denominator: Floats, confidence: float = 0.95) -> Estimate:
    """mean(numerator) / mean(denominator), both [S, I], with its interval.

    Below 3 seeds there is no interval, and `reason` says so. Raises NotMeasured if the denominator may be 0.
    """
    below = crossed(denominator, confidence)
    if below.low is not None and below.high is not None and below.low <= 0 <= below.high:
        raise NotMeasured(f"the ratio has no bounded interval: what it is a share of may be 0 "
                          f"({below.mean:.3g}, interval {below.low:.3g} to {below.high:.3g})")
    if below.mean == 0:
        raise NotMeasured("what it is a share of is 0")
    ratio = float(numerator.mean()) / below.mean
    bare = crossed(numerator - ratio * denominator, confidence)
    found = replace(bare, mean=ratio, low=None, high=None, p_value=None, standard_error=None, components=None)
    if bare.standard_error is None:
        return found

    def excess(candidate: float) -> float:
        """Below 0 where the candidate is inside the interval."""
        tested = crossed(numerator - candidate * denominator, confidence)
        assert tested.low is not None and tested.high is not None
        return abs(tested.mean) - (tested.high - tested.low) / 2

    step = bare.standard_error / abs(below.mean)
    return replace(found, low=_end(excess, ratio, -step), high=_end(excess, ratio, step))


def _end(excess: Callable[[float], float], inside: float, step: float) -> float:
    """Where `excess` turns positive, going from `inside` in the direction of `step`."""
    if step == 0:
        return inside
    near = inside
    for _ in range(_WIDEST):
        far = near + step
        if excess(far) > 0:
            return float(scipy.optimize.brentq(excess, near, far, xtol=1e-9 * max(1.0, abs(far))))
        near, step = far, 2 * step
    raise NotMeasured("the ratio has no bounded interval")
