"""Best rates by parabola, and the ratio of two arms' best rates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.rates import best_log_rate, log_ratio

RATES = (1e-4, 3e-4, 1e-3, 3e-3)


@pytest.mark.parametrize("peak", [2.5e-4, 3e-4, 4.5e-4])
def test_the_vertex_of_a_parabola_is_found_exactly(peak: float) -> None:
    scores = [-0.7 * (math.log(rate) - math.log(peak)) ** 2 for rate in RATES]
    assert best_log_rate(RATES, scores) == pytest.approx(math.log(peak))
    fit = np.polyfit(np.log(RATES[:3]), scores[:3], 2)
    assert best_log_rate(RATES[:3], scores[:3]) == pytest.approx(-fit[1] / (2 * fit[0]))


def test_equal_falls_on_both_sides_leave_the_middle() -> None:
    assert best_log_rate((1e-4, 1e-3, 1e-2), (0.0, 1.0, 0.0)) == pytest.approx(math.log(1e-3))


@pytest.mark.parametrize(("scores", "reason"), [
    ((3.0, 2.0, 1.0, 0.0), "edge"), ((0.0, 1.0, 2.0, 3.0), "edge"), ((None, 3.0, 2.0, 1.0), "did not finish"),
    ((0.0, 1.0, 2.0, None), "did not finish"), ((None,) * 4, "no learning rate finished")])
def test_where_the_best_is_not_inside_it_is_not_estimated(scores: tuple[float | None, ...], reason: str) -> None:
    with pytest.raises(NotMeasured, match=reason):
        best_log_rate(RATES, scores)


def test_the_ratio_is_paired_over_seeds() -> None:
    left = {0: math.log(2e-3), 1: math.log(4e-3), 2: math.log(8e-3), 3: 0.0}
    right = {0: math.log(2e-4), 1: math.log(4e-4), 2: math.log(8e-4)}
    found = log_ratio(left, right)
    assert math.exp(found.mean) == pytest.approx(10.0)
    assert found.low is not None and math.exp(found.low) == pytest.approx(10.0)
    assert found.num_seeds == 3
