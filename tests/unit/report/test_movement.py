"""How far arms moved, beside what they forgot."""

from __future__ import annotations

import numpy as np
import pytest

from finetrial.report.movement import rank_correlation


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys_with_ties_too(seed: int) -> None:
    from scipy import stats

    one, other = np.random.default_rng(seed).integers(0, 6, (2, 12)).astype(float)
    assert rank_correlation(list(one), list(other)) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


def test_equal_values_have_no_order() -> None:
    assert rank_correlation([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]) is None
