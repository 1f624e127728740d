"""Forgetting at matched plasticity: frontier on validation, read on test, never extrapolated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finetrial.analysis.frontier import States, match, on_frontier
from finetrial.analysis.missing import NotMeasured

BASE = (np.zeros(3), np.zeros(3))  # before a first phase


def states(arm: str, plasticity: list[float], forgetting: list[float], before: tuple[float, float] | None = (0.0, 0.0),
           num_seeds: int = 3) -> States:
    p, f = (np.tile(np.array(values, dtype=float), (num_seeds, 1)) for values in (plasticity, forgetting))
    start = None if before is None else (np.full(num_seeds, before[0]), np.full(num_seeds, before[1]))
    return States(arm, p, f, p, f, start)


def test_frontier_keeps_what_nothing_beats() -> None:
    keep = on_frontier(np.array([0.2, 0.5, 0.4, 0.5]), np.array([0.1, 0.3, 0.4, 0.3]))
    assert keep.tolist() == [True, True, False, True]


def test_forgetting_is_interpolated_at_90_percent_of_the_smaller_best() -> None:
    found = match(states("full", [0.5, 1.5], [0.2, 0.6]), states("lora", [0.2, 1.0], [0.1, 0.3]))
    assert found.plasticity == pytest.approx(0.9)
    assert found.left == pytest.approx([0.2 + 0.4 * 0.4] * 3)
    assert found.right == pytest.approx([0.1 + 0.2 * 0.7 / 0.8] * 3)


def test_more_learning_never_costs_less() -> None:
    validation = states("a", [0.2, 0.6, 1.0], [0.1, 0.2, 0.3])
    noisy = States("a", validation.plasticity_val, validation.forgetting_val, validation.plasticity_test,
                   np.tile([0.1, 0.4, 0.2], (3, 1)), BASE)
    found = match(noisy, validation)
    assert found.left == pytest.approx([0.3] * 3)  # the pool of 0.4 and 0.2


def test_the_frontier_of_a_seed_is_chosen_by_the_others() -> None:
    p = np.tile([0.2, 0.5, 1.0], (3, 1))
    f = np.tile([0.1, 0.2, 0.3], (3, 1))
    f[0, 1] = 9.0  # dominated for the seeds that see seed 0, not for seed 0 itself
    found = match(States("a", p, f, p, np.tile([0.1, 0.2, 0.3], (3, 1)), BASE), states("b", [0.2, 0.6], [0.0, 0.1]))
    assert found.plasticity == pytest.approx(0.54)
    assert found.left[0] == pytest.approx(0.2 + 0.1 * 0.04 / 0.5)
    assert found.left[1] == found.left[2] == pytest.approx(0.1 + 0.2 * 0.34 / 0.8)


def test_the_untouched_base_is_a_point_of_every_arm() -> None:
    found = match(states("left", [1.5, 2.0], [0.3, 0.4]), states("right", [0.2, 1.0], [0.1, 0.2]))
    assert found.plasticity == pytest.approx(0.9)
    assert found.left[0] == pytest.approx(0.3 * 0.9 / 1.5)  # between the base and the lowest rate


@pytest.mark.parametrize("transfer", [0.5, 0.0, -0.4])
def test_arms_of_one_line_forget_alike_whatever_the_phases_before_have_transferred(transfer: float) -> None:
    """F = 0.5 (P - transfer) of both: what is matched lies below all that one of them reached."""
    def on_line(arm: str, plasticity: list[float]) -> States:
        return states(arm, plasticity, [0.5 * (learned - transfer) for learned in plasticity], (transfer, 0.0))

    found = match(on_line("low", [0.55, 0.6, 0.65]), on_line("high", [0.9, 1.0, 1.1]))
    assert found.plasticity == pytest.approx(0.585)
    assert found.left == pytest.approx(found.right) and found.left == pytest.approx([0.5 * (0.585 - transfer)] * 3)


@pytest.mark.parametrize(("before", "begins"), [(None, 1.5), ((1.2, 0.1), 1.2)])
def test_nothing_is_read_below_where_an_arm_begins(before: tuple[float, float] | None, begins: float) -> None:
    with pytest.raises(NotMeasured, match=f"not comparable at P\\*=0.9: arm late begins at P={begins}"):
        match(states("late", [1.5, 2.0], [0.3, 0.4], before), states("right", [0.2, 1.0], [0.1, 0.2]))


def test_learning_that_helps_the_old_text_is_read_as_it_is() -> None:
    """F = -0.3 P: -0.27 at 0.9. The base, at 0, does not pull it up."""
    found = match(states("left", [0.5, 1.0], [-0.15, -0.3]), states("right", [0.5, 1.0], [-0.05, -0.1]))
    assert found.left == pytest.approx([-0.27] * 3) and found.right == pytest.approx([-0.09] * 3)


@pytest.mark.parametrize(("left", "right", "text"), [
    (([-0.2, -0.1], [0.3, 0.4]), ([0.2, 1.0], [0.1, 0.2]), "left learns nothing"),
    (([np.nan, np.nan], [0.3, 0.4]), ([0.2, 1.0], [0.1, 0.2]), "left has no learning rate")])
def test_nothing_is_extrapolated(left: tuple[list[float], list[float]], right: tuple[list[float], list[float]],
                                 text: str) -> None:
    with pytest.raises(NotMeasured, match=text):
        match(states("left", *left), states("right", *right))


def on_test(arm: States, plasticity: list[list[float]]) -> States:
    return replace(arm, plasticity_test=np.array(plasticity))


def test_rows_of_validation_that_are_easier_than_those_of_test_move_nothing_out_of_reach() -> None:
    """Best on validation at the second rate, 1.0; the same rate gains 0.8 on test, the first one 0.85."""
    easier = on_test(states("a", [0.2, 1.0], [0.1, 0.2]), [[0.85, 0.8]] * 3)
    assert match(easier, states("b", [0.2, 1.2], [0.1, 0.2])).plasticity == pytest.approx(0.72)


def test_a_seed_that_stops_short_on_test_is_not_extrapolated() -> None:
    short = on_test(states("a", [0.2, 1.0], [0.1, 0.2]), [[0.2, 0.5], [0.2, 1.0], [0.2, 1.0]])
    with pytest.raises(NotMeasured, match="not comparable at P\\*=0.75: arm a stops at P=0.5"):
        match(short, states("b", [0.2, 1.2], [0.1, 0.2]))


def test_rates_that_failed_for_a_seed_are_left_out() -> None:
    p, f = np.tile([0.2, 1.0, 3.0], (3, 1)), np.tile([0.1, 0.2, 0.9], (3, 1))
    p[1, 2] = np.nan
    assert match(States("a", p, f, p, f, BASE), states("b", [0.2, 2.0], [0.1, 0.2])).plasticity == pytest.approx(0.9)
