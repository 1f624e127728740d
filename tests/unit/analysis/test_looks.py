"""Looks: against Pocock's published boundaries, and by simulation of trials with nothing in them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from finetrial.analysis.estimate import Components, Estimate, crossed, items_only
from finetrial.analysis.looks import Look, extended, look_at, settle
from finetrial.analysis.power import POWER, clusters_needed, detectable_with, power, seeds_for_equivalence, seeds_needed
from finetrial.errors import SpecError, UserError
from finetrial.spec import Study

# Pocock (1977), Biometrika 64(2), table 1 (two-sided 5 %): the constant critical value of each of K looks.
POCOCK = {1: 1.960, 2: 2.178, 3: 2.289, 4: 2.361, 5: 2.413}


@pytest.mark.parametrize(("num_looks", "pocock"), POCOCK.items())
def test_no_wider_than_need_be_against_pocock(num_looks: int, pocock: float) -> None:
    alpha = look_at(3, declared=range(3, 3 + num_looks)).alpha
    critical = stats.norm.isf(alpha / 2)
    assert pocock - 0.001 <= critical <= 1.07 * pocock


def test_declared_looks_divide_the_error_rate() -> None:
    assert look_at(5) == Look(1, 1, 5, True, 0.05)
    assert [look_at(seeds, declared=(10, 3, 5)) for seeds in (3, 5, 10)] == [
        Look(number, 3, seeds, True, 0.05 / 3) for number, seeds in enumerate((3, 5, 10), start=1)]
    assert look_at(5).caveat == "" and look_at(5, declared=(3, 5)).caveat.startswith("look 2 of 2")


def test_what_was_not_declared_is_exploratory() -> None:
    again = look_at(8, earlier=(5,))
    assert not again.is_declared and again.alpha == 0.025 and again.number == 2
    assert "exploratory" in again.caveat
    assert not look_at(7, declared=(3, 5, 10)).is_declared  # another number than was planned
    assert not look_at(7, declared=(3, 5, 10), earlier=(3,)).is_declared


def test_a_look_is_what_it_is_however_often_it_is_read() -> None:
    assert look_at(5, earlier=(5,)) == look_at(5)
    assert look_at(5, declared=(3, 5), earlier=(3, 5)) == look_at(5, declared=(3, 5))
    assert look_at(5, declared=(3, 5), earlier=(3, 4)).is_declared, "a glance in between does not undo the plan"
    assert look_at(3, earlier=(3, 5)) == look_at(3)  # the first look, read again


def test_looks_that_cannot_be_declared() -> None:
    for looks in ((2, 5), (3, 3)):
        with pytest.raises(SpecError, match="looks .* are not different numbers of at least 3 seeds"):
            Study.model_validate({"name": "s", "question": "?", "bases": ["tiny-gpt"], "arms": [], "looks": looks})


def test_new_seeds_follow_the_old_ones() -> None:
    assert extended((0, 1, 2), 2) == (0, 1, 2, 3, 4)
    assert extended((7, 3), 1) == (7, 3, 8)
    with pytest.raises(UserError, match="adds no seed"):
        extended((0,), 0)


def simulated(generator: np.random.Generator, alpha_of: dict[int, float]) -> bool:
    """Whether a trial without any difference finds one at some look. Looks share their items and earlier seeds."""
    most = max(alpha_of)
    d = (generator.normal(0, 0.15, (most, 1)) + generator.normal(0, 1.0, (1, 60)) + generator.normal(0, 0.5, (most, 60)))
    return any((crossed(d[:seeds]).p_value or 0.0) <= alpha for seeds, alpha in alpha_of.items())


def test_false_findings_over_three_looks_stay_below_five_per_cent() -> None:
    generator = np.random.default_rng(1)
    looks = (3, 5, 10)
    declared = {seeds: look_at(seeds, declared=looks).alpha for seeds in looks}
    divided = np.mean([simulated(generator, declared) for _ in range(400)])
    naive = np.mean([simulated(generator, dict.fromkeys(looks, 0.05)) for _ in range(400)])
    assert divided <= 0.05 < naive


def estimate(seeds: float, items: float, residual: float, mean: float = 0.05, num_seeds: int = 5) -> Estimate:
    return Estimate(mean, 0.02, 4.0, 0.0, 0.1, 0.95, 0.05, num_seeds, 100, Components(seeds, items, residual))


def test_more_seeds_that_would_settle_it() -> None:
    found = settle(estimate(0.05**2, 0.0, 0.0), 0.05)
    assert found.more_seeds == seeds_needed(0.05, Components(0.05**2, 0.0, 0.0), 100) - 5  # type: ignore[operator]
    assert "as large as the one seen" in found.text
    wide = settle(estimate(0.05**2, 0.0, 0.0), 0.05, margin=0.1)
    assert "a difference of the margin" in wide.text
    assert settle(estimate(0.05**2, 0.0, 0.0), 0.05, margin=0.01) == found  # what was seen is larger: it settles the direction
    assert wide.more_seeds is not None and found.more_seeds is not None and wide.more_seeds < found.more_seeds
    stricter = settle(estimate(0.05**2, 0.0, 0.0), 0.01)
    assert stricter.more_seeds is not None and stricter.more_seeds > found.more_seeds


def test_what_seeds_cannot_settle() -> None:
    items = settle(estimate(0.0, 1.0, 0.01), 0.05)
    assert items.more_seeds is None and "add test items" in items.text
    nothing = settle(estimate(0.01, 0.0, 0.0, mean=0.0), 0.05)
    assert nothing.more_seeds is None and "margin" in nothing.text
    two = crossed(np.zeros((2, 3)))
    assert settle(two, 0.05).more_seeds == 1
    enough = settle(estimate(1e-6, 0.0, 0.0), 0.05)
    assert enough.more_seeds == 0


def test_what_is_short_is_named() -> None:
    """Items where no number of seeds would do, seeds where they are the noise, and items alone where nothing was trained."""
    items = settle(estimate(0.0, 1.0, 0.01), 0.05)
    number = clusters_needed(0.05, Components(0.0, 1.0, 0.01), 5)
    assert number is not None and f"add test items (about {number:,} clusters)" in items.text
    seeds = settle(estimate(1.0, 0.01, 0.01), 0.05)
    assert seeds.text == ("more than 200 seeds would be needed to show a difference as large as the one seen with a power of 80 %")
    untrained = settle(items_only(np.random.default_rng(0).normal(0.1, 1.0, 60)), 0.05, margin=0.3)
    assert untrained.more_seeds is None
    assert re.fullmatch(r"about \d+ clusters of test items, in place of 60, would show a difference of the margin with a power of "
                        "80 %", untrained.text)
    assert settle(items_only(np.ones(1)), 0.05).text.startswith("add test items")


def test_as_many_clusters_as_are_needed() -> None:
    for seeds in (0, 5):
        components = Components(0.0, 1.0, 0.2 * (seeds > 0))
        number = clusters_needed(0.2, components, seeds)
        assert number is not None
        assert detectable_with(components, seeds, number) <= 0.2 < detectable_with(components, seeds, number - 1)
    assert clusters_needed(0.05, Components(1.0, 0.0, 0.0), 5) is None
    equal = clusters_needed(0.2, Components(0.0, 1.0, 0.0), 5, equivalence=True)
    assert equal is not None and seeds_for_equivalence(0.2, Components(0.0, 1.0, 0.0), equal) == 3


def test_equivalence_is_found_with_the_power_that_is_promised() -> None:
    components = Components(seeds=0.01, items=0.0, residual=0.05)
    total = seeds_for_equivalence(0.15, components, 50)
    assert total is not None
    generator = np.random.default_rng(2)
    passed = 0
    for _ in range(500):
        found = crossed(generator.normal(0, 0.1, (total, 1)) + generator.normal(0, 0.05**0.5, (total, 50)))
        passed += max(found.p_above(-0.15), found.p_below(0.15)) <= 0.05
    assert passed / 500 >= POWER - 0.05
    assert seeds_for_equivalence(0.001, Components(0.0, 1.0, 0.0), 20) is None
    assert seeds_for_equivalence(0.001, Components(0.0, 0.0, 0.0), 20) == 3
    assert settle(estimate(0.01, 0.0, 0.05), 0.05, margin=0.15, equivalence=True).more_seeds is not None


def test_detectable_with_components_has_its_power() -> None:
    components = Components(0.01, 0.5, 0.2)
    effect = detectable_with(components, 5, 100)
    d = 0.01 / 5 + 0.5 / 100 + 0.2 / 500
    assert power(effect, d**0.5, 60.0) == pytest.approx(POWER, abs=0.03)
    assert detectable_with(components, 10, 100) < effect < detectable_with(components, 5, 100, alpha=0.01)
