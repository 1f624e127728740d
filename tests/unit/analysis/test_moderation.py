"""Moderated variances: the fitted prior is the planted one, and a cautious interval is never narrower."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from synthetic import make_table

from finetrial.analysis.contrasts import answer
from finetrial.analysis.estimate import crossed
from finetrial.analysis.moderation import Prior, _trigamma_inverse, fit_prior, moderated, moderated_alike
from finetrial.analysis.trial import Trial
from finetrial.spec.hypothesis import Contrast


@pytest.mark.parametrize(("freedom", "scale"), [(4.0, 2.0), (20.0, 0.1)])
def test_the_planted_prior_is_found(freedom: float, scale: float) -> None:
    generator = np.random.default_rng(0)
    true = freedom * scale / generator.chisquare(freedom, 40_000)
    found = fit_prior(true * generator.chisquare(4, 40_000) / 4, 4)
    assert found is not None
    assert found.freedom == pytest.approx(freedom, rel=0.1) and found.mean_square == pytest.approx(scale, rel=0.03)


def test_variances_that_differ_less_than_by_chance_are_pooled() -> None:
    prior = fit_prior([1.0, 1.1, 0.9, 1.0], 2)
    assert prior is not None and math.isinf(prior.freedom) and prior.mean_square == pytest.approx(1.0)
    assert prior.most_freedom == pytest.approx(2 * 4 / 1.75) and not prior.is_unequal


def test_two_comparisons_or_a_variance_of_zero_tell_nothing() -> None:
    assert fit_prior([1.0, 2.0], 2) is None and fit_prior([1.0, 2.0, 0.0], 2) is None


def test_variances_that_truly_differ_are_noticed() -> None:
    prior = fit_prior([1.0, 1.2, 400.0, 0.9], 9)
    assert prior is not None and prior.is_unequal


@given(st.floats(1e-3, 1e3))
def test_trigamma_is_inverted(value: float) -> None:
    assert float(special.polygamma(1, _trigamma_inverse(value))) == pytest.approx(value, rel=1e-6)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e3), st.sampled_from([1.0, 8.0, math.inf]), st.sampled_from([0.9, 0.99]))
def test_a_cautious_interval_is_never_narrower(seed: int, scale: float, freedom: float, confidence: float) -> None:
    d = np.random.default_rng(seed).normal(0.3, 1.0, (3, 20))
    own = crossed(d, confidence)
    cautious = moderated(own, Prior(scale, freedom, 6.0, is_unequal=False), cautious=True)
    assert own.low is not None and own.high is not None and cautious.low is not None and cautious.high is not None
    assert cautious.low <= own.low and cautious.high >= own.high
    assert cautious.p_value is not None and own.p_value is not None and cautious.p_value >= own.p_value
    bare = moderated(own, Prior(scale, freedom, 6.0, is_unequal=False), cautious=False)
    assert bare.low is not None and (cautious.low == pytest.approx(min(bare.low, own.low)))


def test_unequal_variances_make_moderation_cautious() -> None:
    own = crossed(np.random.default_rng(0).normal(0.3, 1.0, (3, 20)))
    prior = Prior(1e-6, 50.0, 6.0, is_unequal=True)
    assert moderated(own, prior, cautious=False) == moderated(own, prior, cautious=True)
    assert moderated(own, None, cautious=True) == own


def test_the_p_value_and_the_interval_agree() -> None:
    own = crossed(np.random.default_rng(4).normal(0.2, 1.0, (3, 30)))
    found = moderated(own, Prior(40.0, math.inf, 5.0, is_unequal=False), cautious=True)
    assert found.p_value is not None
    at_it = found.at(1 - found.p_value)
    assert at_it.low is not None and min(abs(at_it.low), abs(at_it.high or 0)) == pytest.approx(0.0, abs=1e-9)


def test_more_seeds_are_forecast_by_the_moderated_variance() -> None:
    own = crossed(np.random.default_rng(4).normal(0.2, 1.0, (3, 30)))
    assert own.components is not None
    prior = Prior(40.0, math.inf, 5.0, is_unequal=False)
    found = moderated(own, prior, cautious=True)
    assert found.components is not None and found.components.seeds > own.components.seeds
    assert moderated(own, replace(prior, mean_square=1e-9), cautious=True).components == own.components


@pytest.mark.parametrize("right", ["base", "lora-r32"])
def test_which_side_is_the_left_changes_no_interval(right: str) -> None:
    trial = Trial(*make_table("supported"))
    one = answer(trial, Contrast(left="lora-r8", right=right, task="new")).estimate
    other = answer(trial, Contrast(left=right, right="lora-r8", task="new")).estimate
    assert one is not None and other is not None and one.low is not None and other.high is not None
    assert other.mean == pytest.approx(-one.mean) and other.high == pytest.approx(-one.low)


def test_like_comparisons_moderate_each_other() -> None:
    generator = np.random.default_rng(0)
    plain = [crossed(generator.normal(0, 1, (3, 1)) + generator.normal(0.1, 0.2, (3, 40))) for _ in range(5)]
    found = moderated_alike(plain, "cautious")
    widths = [(one.high or 0) - (one.low or 0) for one in found]
    assert all(width >= (one.high or 0) - (one.low or 0) for width, one in zip(widths, plain, strict=True))
    assert moderated_alike(plain, "own") == plain and moderated_alike(plain[:2], "cautious") == plain[:2]
