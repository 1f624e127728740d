"""Many contrasts, one error rate: Holm's step-down test, intervals that agree with it, and equivalence.

Holm (1979, Scand. J. Statist. 6): sort the m p-values; the j-th smallest is rejected while p <= alpha / (m - j + 1).
Intervals (Serlin 1993, J. Exp. Educ. 61(4), "Confidence intervals and the scientific method: a case for Holm on the
range"): a rejected hypothesis gets the interval of its own step, 1 - alpha / (m - j + 1); the first that is not
rejected and all after it get that of the first. So an interval decides exactly when the adjusted p-value is at most
alpha. Each interval covers at its own level; jointly, the chance of any false decision is at most alpha.

A contrast that is not measured yet keeps its place in the family (p = 1): results do not become more certain because
cells are missing.

Equivalence: two one-sided tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15), each at alpha; the same as the
interval of confidence 1 - 2 alpha lying within the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetrial.analysis.estimate import Estimate


@dataclass(frozen=True)
class Adjusted:
    """One member of a Holm family: its adjusted p-value, and the error rate that its interval uses."""

    p_value: float
    alpha: float


def holm(p_values: Sequence[float | None], alpha: float = 0.05) -> list[Adjusted]:
    """Adjusted p-values and step-down levels, in the order given. None stands for a contrast without a p-value."""
    filled = [1.0 if p is None else p for p in p_values]
    order = sorted(range(len(filled)), key=lambda index: filled[index])
    adjusted: dict[int, Adjusted] = {}
    largest, level, rejecting = 0.0, alpha, True
    for step, index in enumerate(order):
        remaining = len(order) - step
        largest = max(largest, min(1.0, remaining * filled[index]))
        if rejecting:
            level = alpha / remaining
            rejecting = largest <= alpha
        adjusted[index] = Adjusted(largest, level)
    return [adjusted[index] for index in range(len(filled))]


def inside_p_value(estimate: Estimate, low: float, high: float) -> float:
    """p-value of the claim low < mean < high: the larger of the two one-sided ones."""
    return max(estimate.p_above(low), estimate.p_below(high))


def outside_p_value(estimate: Estimate, low: float, high: float) -> float:
    """p-value of the claim that the mean lies below `low` or above `high`: twice the smaller of the two one-sided ones, since
    in a range that is narrow beside the noise a mean may seem to lie on either side."""
    return min(1.0, 2 * min(estimate.p_below(low), estimate.p_above(high)))


def range_p_value(estimate: Estimate, low: float, high: float) -> float:
    """The smallest alpha at which the interval of confidence 1 - 2 alpha lies wholly inside, or that of 1 - alpha wholly
    outside. One of the two claims is true, so the other alone can be found wrongly."""
    return min(inside_p_value(estimate, low, high), outside_p_value(estimate, low, high))


def equivalence(estimate: Estimate, margin: float, alpha: float = 0.05) -> bool:
    """Whether both one-sided tests pass: the mean lies within +- margin."""
    return inside_p_value(estimate, -margin, margin) <= alpha
