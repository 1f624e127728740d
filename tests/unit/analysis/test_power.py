"""Power: the noncentral t distribution, against R and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetrial.analysis.estimate import Components, crossed
from finetrial.analysis.power import detectable_effect, power, seeds_needed


def test_power_of_a_one_sample_test() -> None:
    # R: power.t.test(n = 10, delta = 1, sd = 1, type = "one.sample", strict = TRUE) gives 0.8030962
    assert power(1.0, 1 / math.sqrt(10), 9) == pytest.approx(0.8030962, abs=1e-6)


@pytest.mark.parametrize("degrees_of_freedom", [2.0, 4.5, 60.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_the_detectable_effect_is_detected(degrees_of_freedom: float, alpha: float) -> None:
    effect = detectable_effect(0.3, degrees_of_freedom, alpha)
    assert power(effect, 0.3, degrees_of_freedom, alpha) == pytest.approx(0.8, abs=1e-6)


def test_detectable_in_seed_deviations() -> None:
    effects = [detectable_effect(1 / math.sqrt(n), n - 1) for n in (3, 5, 10)]
    assert effects == pytest.approx([3.26, 1.68, 1.0], abs=0.02)


def test_no_variance_detects_anything() -> None:
    assert detectable_effect(0.0, 4) == 0.0
    assert power(1e6, 1e-6, 4.0) == pytest.approx(1.0)


def test_seeds_needed_matches_the_detectable_effect_and_knows_its_limit() -> None:
    only_seeds = Components(seeds=1.0, items=0.0, residual=0.0)
    assert seeds_needed(1.69, only_seeds, num_clusters=200) == 5
    assert seeds_needed(0.1, Components(0.0, 1.0, 0.1), num_clusters=20) is None  # more items are needed, not seeds
    assert seeds_needed(0.1, Components(0.0, 0.0, 0.0), num_clusters=20) == 3


def test_seeds_needed_from_an_estimate() -> None:
    generator = np.random.default_rng(0)
    found = crossed(generator.normal(0, 0.1, (5, 1)) + generator.normal(0, 0.2, (5, 100)))
    assert found.components is not None
    few, many = (seeds_needed(effect, found.components, 100) for effect in (0.4, 0.1))
    assert few is not None and many is not None and 3 <= few < many
