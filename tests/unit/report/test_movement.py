"""How far arms moved, beside what they forgot."""

from __future__ import annotations

import numpy as np
import pytest

from finetrial.records.results import WeightChange
from finetrial.report.facts import Facts
from finetrial.report.movement import _weight_cells, rank_correlation


def test_the_weights_of_several_runs_are_a_range_not_an_interval(study, new_results) -> None:
    changes = tuple(WeightChange(base="tiny-gpt", arm="full", sequence="pydoc-chat", seed=seed, phase=1, part=part,
                                 relative_change=change + seed / 1000)
                    for seed in range(2) for part, change in (("whole", 0.02), ("block 1", 0.03)))
    facts = Facts(study, new_results(weight_changes=changes))
    whole, most = _weight_cells(facts, facts.paths[0], facts.arm("full"))
    assert (whole.text, whole.note, whole.more) == ("2.05 %", "from 2 % to 2.1 % over runs", "2 seeds")
    assert most.text == "block 1"


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys_with_ties_too(seed: int) -> None:
    from scipy import stats

    one, other = np.random.default_rng(seed).integers(0, 6, (2, 12)).astype(float)
    assert rank_correlation(list(one), list(other)) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


def test_equal_values_have_no_order() -> None:
    assert rank_correlation([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]) is None
