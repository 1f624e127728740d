"""Verdicts: what an interval, or several verdicts together, decide.

SUPPORTED: the Holm-adjusted interval lies wholly on the stated side; REFUTED: wholly on the other; else EQUIVALENT if
a margin is given and both one-sided tests pass: the interval of confidence 1 - 2 alpha, which is then the one that is
told, lies within it; else INCONCLUSIVE. A claim of a range (`equal`, `within`) is SUPPORTED where that interval lies wholly
inside, REFUTED where the one of confidence 1 - alpha lies wholly outside.
A difference that is 0 by construction is EQUIVALENT, whatever direction was claimed: no data could have shown another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from finetrial.analysis.answer import Answer
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.multiplicity import equivalence, range_p_value
from finetrial.records.results import Verdict
from finetrial.spec.hypothesis import COST, Contrast, Hypothesis


def claimed_range(contrast: Contrast, is_log: bool) -> tuple[float, float] | None:
    """The range that a contrast claims, on the scale of its estimate; None for a claim of a direction."""
    if contrast.expect == "within":
        assert contrast.bounds is not None
        low, high = contrast.bounds
        return (math.log(low), math.log(high)) if is_log else (low, high)
    if contrast.expect == "equal":
        assert contrast.margin is not None
        margin = math.log1p(contrast.margin) if is_log else contrast.margin
        return -margin, margin
    return None


def decision_p_value(contrast: Contrast, found: Answer) -> float | None:
    """The smallest error rate at which the contrast's interval decides; None without an interval."""
    if found.estimate is None or not found.has_interval:
        return None
    bounds = claimed_range(contrast, found.is_log)
    return found.estimate.p_value if bounds is None else range_p_value(found.estimate, *bounds)


def decision_interval(contrast: Contrast, found: Answer, alpha: float, verdict: Verdict | None = None) -> Estimate:
    """The estimate with the interval that decides at error rate `alpha`.

    A direction that is claimed has a two-sided one; where it ended in EQUIVALENT, two one-sided tests decided, as they do of a
    range unless it is REFUTED. What is not settled lies outside of no range.
    """
    assert found.estimate is not None
    two_sided, of_tests = found.estimate.at(1 - alpha), found.estimate.at(1 - 2 * alpha)
    bounds = claimed_range(contrast, found.is_log)
    if bounds is None:
        return of_tests if verdict == "EQUIVALENT" else two_sided
    return two_sided if verdict == "REFUTED" or _in_range(of_tests, *bounds) == "REFUTED" else of_tests


def verdict_of(contrast: Contrast, found: Answer, alpha: float) -> Verdict:
    """The verdict of one contrast at its error rate `alpha`."""
    if found.estimate is None:
        return "NOT MEASURED"
    if found.by_construction and contrast.expect in ("greater", "less"):
        return "EQUIVALENT"
    if found.exact:
        return _exact(contrast, found.estimate)
    if not found.has_interval:
        return "INCONCLUSIVE" if contrast.quantity == COST else "NOT MEASURED"
    interval = decision_interval(contrast, found, alpha)
    bounds = claimed_range(contrast, found.is_log)
    if bounds is not None:
        return _in_range(interval, *bounds)
    if contrast.expect == "less":
        interval = interval.mirrored()
    assert interval.low is not None and interval.high is not None
    if interval.low > 0:
        return "SUPPORTED"
    if interval.high < 0:
        return "REFUTED"
    margin = contrast.margin
    if margin is not None and equivalence(interval, math.log1p(margin) if found.is_log else margin, alpha):
        return "EQUIVALENT"
    return "INCONCLUSIVE"


def combine(hypothesis: Hypothesis, verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a hypothesis from those of its contrasts, in order."""
    if hypothesis.contrast is not None:
        return verdicts[0]
    left = iter(verdicts)
    groups = [[next(left) for _ in group] for group in hypothesis.groups]
    return _any_of([_all_of(group) for group in groups]) if len(groups) > 1 else _all_of(groups[0])


def _all_of(verdicts: Sequence[Verdict]) -> Verdict:
    if any(verdict in ("REFUTED", "EQUIVALENT") for verdict in verdicts):
        return "REFUTED"
    return "SUPPORTED" if all(verdict == "SUPPORTED" for verdict in verdicts) else _undecided(verdicts)


def _any_of(verdicts: Sequence[Verdict]) -> Verdict:
    if "SUPPORTED" in verdicts:
        return "SUPPORTED"
    return "REFUTED" if all(verdict == "REFUTED" for verdict in verdicts) else _undecided(verdicts)


def _undecided(verdicts: Sequence[Verdict]) -> Verdict:
    return "NOT MEASURED" if "NOT MEASURED" in verdicts else "INCONCLUSIVE"


def _in_range(interval: Estimate, least: float, most: float) -> Verdict:
    assert interval.low is not None and interval.high is not None
    if least <= interval.low and interval.high <= most:
        return "SUPPORTED"
    return "REFUTED" if interval.high < least or interval.low > most else "INCONCLUSIVE"


def _exact(contrast: Contrast, exact: Estimate) -> Verdict:
    bounds = claimed_range(contrast, is_log=False)
    if bounds is not None:
        return _in_range(replace(exact, low=exact.mean, high=exact.mean), *bounds)
    if exact.mean == 0:
        return "REFUTED"
    return "SUPPORTED" if (exact.mean > 0) == (contrast.expect == "greater") else "REFUTED"
