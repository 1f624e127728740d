"""The crossed estimator: where it coincides with known tests, and what it refuses to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.validate.coverage import SETTINGS, Setting, simulate

from finetrial.analysis.estimate import crossed, items_only


def test_one_item_per_seed_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(0.5, 1, 6), generator.normal(0, 1, 6)
    expected = stats.ttest_rel(left, right)
    found = crossed((left - right)[:, np.newaxis])
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-10)
    assert (found.num_seeds, found.num_clusters, found.degrees_of_freedom) == (6, 1, 5.0)


def test_items_only_is_the_one_sample_t_test() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 40)
    expected = stats.ttest_1samp(values, 0.0)
    found = items_only(values)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-10)
    assert found.num_seeds == 0


def test_variance_is_that_of_the_two_way_mean_squares() -> None:
    d = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 5.0], [4.0, 3.0, 9.0]])
    seeds = 3 * np.var(d.mean(axis=1), ddof=1)
    items = 3 * np.var(d.mean(axis=0), ddof=1)
    rest = np.sum((d - d.mean(axis=1, keepdims=True) - d.mean(axis=0, keepdims=True) + d.mean()) ** 2) / 4
    total = seeds + items - rest
    found = crossed(d)
    assert found.mean == pytest.approx(d.mean())
    assert found.standard_error == pytest.approx(np.sqrt(total / 9))
    assert found.degrees_of_freedom == pytest.approx(total**2 / (seeds**2 / 2 + items**2 / 2 + rest**2 / 4))
    assert found.components is not None
    assert found.components.items == pytest.approx((items - rest) / 3)


def test_degrees_of_freedom_are_never_below_those_of_the_seeds() -> None:
    generator = np.random.default_rng(2)
    d = generator.normal(size=(4, 1)) + 0.01 * generator.normal(size=(4, 50))
    assert crossed(d).degrees_of_freedom == pytest.approx(3.0, abs=0.05)
    assert crossed(d).degrees_of_freedom >= 3.0


@pytest.mark.parametrize(("num_seeds", "text"), [(1, "1 seed:"), (2, "2 seeds:")])
def test_below_three_seeds_there_is_no_interval(num_seeds: int, text: str) -> None:
    found = crossed(np.ones((num_seeds, 5)))
    assert found.mean == 1.0
    assert (found.low, found.high, found.p_value, found.standard_error) == (None, None, None, None)
    assert found.reason.startswith(text)


def test_equal_differences_have_no_variance() -> None:
    nothing, constant = crossed(np.zeros((3, 4))), crossed(np.full((3, 4), 0.1))
    assert (nothing.low, nothing.high, nothing.p_value) == (0.0, 0.0, 1.0)
    assert (constant.low, constant.high, constant.p_value) == pytest.approx((0.1, 0.1, 0.0))


def test_one_cluster_gives_the_base_no_interval() -> None:
    assert items_only(np.array([2.0])).low is None


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_what_cannot_be_estimated_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="differences must be"):
        crossed(bad)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 6), st.integers(1, 9), st.floats(0.5, 0.99))
def test_interval_and_p_value_agree(seed: int, num_seeds: int, num_clusters: int, confidence: float) -> None:
    d = np.random.default_rng(seed).normal(0.3, 1.0, (num_seeds, num_clusters))
    found = crossed(d, confidence)
    assert found.p_value is not None and found.low is not None and found.high is not None
    assert (found.p_value <= 1 - confidence) == (found.low > 0 or found.high < 0)
    assert found.p_above(found.low) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    assert found.p_below(found.high) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    assert found.mirrored().at(confidence).low == pytest.approx(-found.high)


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("setting", [SETTINGS[2], SETTINGS[7], SETTINGS[9]], ids=lambda setting: setting.name)
def test_intervals_cover(setting: Setting, num_seeds: int) -> None:
    found = simulate(setting, num_seeds, num_clusters=100, replicates=400)
    assert 0.92 <= found.share <= 0.985
    assert 0.8 <= found.relative_width <= 1.9


@pytest.mark.parametrize(("num_seeds", "num_clusters"), [(10, 3), (5, 3), (10, 5)])
def test_intervals_cover_where_items_vary_most_and_are_fewer_than_seeds(num_seeds: int, num_clusters: int) -> None:
    generator = np.random.default_rng(11)
    covered = []
    for _ in range(600):
        items = generator.normal(0, 1.0, (1, num_clusters))
        found = crossed(items + generator.normal(0, 0.02, (num_seeds, 1)) + generator.normal(0, 0.2, (num_seeds, num_clusters)))
        assert found.low is not None and found.high is not None
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) > 0.93
