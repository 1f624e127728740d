"""Holm and its intervals agree; equivalence is two one-sided tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetrial.analysis.estimate import crossed
from finetrial.analysis.multiplicity import equivalence, holm, inside_p_value, range_p_value


def test_adjusted_p_values_and_levels() -> None:
    adjusted = holm([0.01, 0.04, 0.03, 0.005], alpha=0.05)
    assert [one.p_value for one in adjusted] == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert [one.alpha for one in adjusted] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_what_is_not_measured_keeps_its_place() -> None:
    assert [one.p_value for one in holm([0.02, None, None])] == pytest.approx([0.06, 1.0, 1.0])
    assert holm([]) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_intervals_decide_exactly_when_the_adjusted_p_value_does(seed: int, num_contrasts: int) -> None:
    generator = np.random.default_rng(seed)
    estimates = [crossed(generator.normal(generator.uniform(-1, 1), 1.0, (4, 6))) for _ in range(num_contrasts)]
    for estimate, member in zip(estimates, holm([one.p_value for one in estimates]), strict=True):
        interval = estimate.at(1 - member.alpha)
        assert interval.low is not None and interval.high is not None
        assert (member.p_value <= 0.05) == (interval.low > 0 or interval.high < 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 2.0))
def test_equivalence_is_the_90_percent_interval_within_the_margin(seed: int, margin: float) -> None:
    estimate = crossed(np.random.default_rng(seed).normal(0.2, 0.6, (5, 8)))
    interval = estimate.at(0.9)
    assert interval.low is not None and interval.high is not None
    assert equivalence(estimate, margin) == (-margin <= interval.low and interval.high <= margin)
    two_sided = estimate.at(0.95)
    assert two_sided.low is not None and two_sided.high is not None
    outside = two_sided.low > margin or two_sided.high < -margin
    assert (range_p_value(estimate, -margin, margin) <= 0.05) == (equivalence(estimate, margin) or outside)


def test_a_range_that_is_narrow_beside_the_noise_is_not_left_by_chance_more_often_than_said() -> None:
    generator = np.random.default_rng(5)
    estimates = [crossed(generator.normal(0, 1.0, (5, 1)) + generator.normal(0, 1.0, (5, 20))) for _ in range(2_000)]
    assert 0.03 < np.mean([range_p_value(estimate, -0.02, 0.02) <= 0.05 for estimate in estimates]) < 0.06


def test_the_larger_of_two_one_sided_tests_counts() -> None:
    estimate = crossed(np.random.default_rng(3).normal(0.2, 0.1, (5, 8)))
    assert inside_p_value(estimate, -5.0, 0.3) == estimate.p_below(0.3) > estimate.p_above(-5.0)
