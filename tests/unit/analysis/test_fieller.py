"""Fieller's interval for a ratio of means: against the closed form, its coverage, and where it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from finetrial.analysis.fieller import ratio_of_means
from finetrial.analysis.missing import NotMeasured


def test_one_cluster_is_the_textbook_formula() -> None:
    generator = np.random.default_rng(0)
    n, d = 0.6 + generator.normal(0, 0.05, 8), 1.0 + generator.normal(0, 0.08, 8)
    found = ratio_of_means(n[:, np.newaxis], d[:, np.newaxis])
    # Fieller (1954): the roots of a r^2 - 2 b r + c with the (co)variances of the means
    t = stats.t.ppf(0.975, 7) ** 2
    v = np.cov(n, d) / 8
    a, b, c = d.mean() ** 2 - t * v[1, 1], n.mean() * d.mean() - t * v[0, 1], n.mean() ** 2 - t * v[0, 0]
    roots = (b + np.array([-1, 1]) * np.sqrt(b**2 - a * c)) / a
    assert (found.low, found.high) == pytest.approx(tuple(roots), rel=1e-6)
    assert found.mean == pytest.approx(n.mean() / d.mean())


def test_coverage_over_seeds_and_items() -> None:
    hits, trials = 0, 300
    for trial in range(trials):
        generator = np.random.default_rng([1, trial])
        seeds, items, noise = generator.normal(0, 0.1, (5, 1)), generator.normal(0, 0.3, (1, 40)), 0.2
        d = 1.0 + seeds + items + generator.normal(0, noise, (5, 40))
        n = 0.7 * d + generator.normal(0, 0.05, (5, 1)) + generator.normal(0, noise, (5, 40))
        found = ratio_of_means(n, d)
        assert found.low is not None and found.high is not None
        hits += found.low < 0.7 < found.high
    assert 0.92 <= hits / trials <= 0.995


def test_a_denominator_that_may_be_zero_is_refused() -> None:
    generator = np.random.default_rng(2)
    with pytest.raises(NotMeasured, match="may be 0"):
        ratio_of_means(generator.normal(0.5, 0.1, (4, 10)), generator.normal(0.0, 0.1, (4, 10)))
    with pytest.raises(NotMeasured, match="is 0"):
        ratio_of_means(np.ones((2, 1)), np.zeros((2, 1)))


def test_without_noise_the_interval_is_the_ratio() -> None:
    found = ratio_of_means(np.full((3, 4), 0.5), np.full((3, 4), 2.0))
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)


def test_two_seeds_have_a_ratio_and_no_interval() -> None:
    found = ratio_of_means(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    assert found.mean == pytest.approx(0.5) and found.low is None and "3 seeds" in found.reason
