"""Pseudo-values: exact for means, delta method for ratios, jackknife for anything; pairing on shared items."""

from __future__ import annotations

import numpy as np
import pytest

from finetrial.analysis.linearise import Linearised, cluster_statistics, linearised, shared_items
from finetrial.records.table import CellKey, Floats, Items, ItemScores

CELL = CellKey("tiny", "full", "new", 0)


def scores(ids: str, clusters: str, rows: list[list[float]]) -> ItemScores:
    return ItemScores(CELL, 1, "new", "test", "m", Items(tuple(ids), tuple(clusters)), np.array(rows, dtype=float))


def ratio(sums: Floats) -> Floats:
    return sums[..., 0] / sums[..., 1]


def corpus(sums: Floats) -> Floats:
    """A corpus metric in the manner of BLEU: geometric mean of two rates."""
    return np.sqrt(sums[..., 0] / sums[..., 2] * sums[..., 1] / sums[..., 2])


def test_a_mean_is_its_own_linearisation() -> None:
    values = np.random.default_rng(0).normal(size=(2, 7))
    z = linearised(np.stack([values, np.ones_like(values)], axis=-1), ratio)
    assert z == pytest.approx(values)


def test_a_ratio_agrees_with_the_delta_method() -> None:
    generator = np.random.default_rng(1)
    tokens = generator.integers(20, 200, 400).astype(float)
    losses = tokens * generator.normal(3.0, 0.4, 400)
    z = linearised(np.stack([losses, tokens], axis=-1)[np.newaxis], ratio)[0]
    value = losses.sum() / tokens.sum()
    assert z.mean() == pytest.approx(value, rel=1e-12)
    assert z == pytest.approx(value + (losses - value * tokens) / tokens.mean(), abs=0.02)


def test_a_corpus_metric_gets_its_leave_one_out_jackknife() -> None:
    statistics = np.random.default_rng(2).integers(1, 9, (3, 6, 3)).astype(float)
    z = linearised(statistics, corpus)
    assert z.mean(axis=1) == pytest.approx(corpus(statistics.sum(axis=1)))
    left_out = np.array([[corpus(np.delete(cell, at, axis=0).sum(axis=0)) for at in range(6)] for cell in statistics])
    jackknife = 5 / 6 * ((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    assert z.var(axis=1, ddof=1) / 6 == pytest.approx(jackknife)


def test_one_cluster_is_the_metric_itself() -> None:
    assert linearised(np.array([[[6.0, 3.0]]]), ratio) == pytest.approx(np.array([[2.0]]))


def test_clusters_are_summed_and_missing_items_left_out() -> None:
    found = scores("abcd", "yxyx", [[1, 1], [2, 1], [3, 1], [np.nan, 1]])
    assert cluster_statistics(found) == pytest.approx(np.array([[2.0, 1.0], [4.0, 2.0]]))  # x, y


def test_arms_are_paired_on_the_items_that_all_have() -> None:
    same = scores("abc", "xyy", [[1, 1], [np.nan, np.nan], [3, 1]])
    shared = shared_items([same, scores("abc", "xyy", [[4, 1], [5, 1], [6, 1]])])
    assert (shared.items.ids, shared.num_missing, shared.num_clusters) == (("a", "c"), 1, 2)
    other = scores("cda", "yxx", [[7, 1], [8, 1], [9, 1]])
    shared = shared_items([same, other])
    assert (shared.items.ids, shared.num_missing) == (("a", "c"), 2)  # b has no score, d is only in the other
    assert cluster_statistics(other, shared)[:, 0] == pytest.approx([9.0, 7.0])
    assert cluster_statistics(same, shared)[:, 0] == pytest.approx([1.0, 3.0])


def test_values_are_made_once_for_complete_cells_and_again_for_a_part() -> None:
    cell = scores("abcd", "xxyy", [[1, 1], [2, 1], [3, 1], [4, 1]])
    short = scores("abcd", "xxyy", [[1, 1], [2, 1], [np.nan, 1], [4, 1]])
    made = Linearised()
    whole = made.values(cell, made.shared([cell]), ratio)
    assert whole.mean() == pytest.approx(2.5) and made.values(cell, made.shared([cell]), ratio) is whole
    shared = made.shared([cell, short])
    assert shared.num_missing == 1
    assert made.values(cell, shared, ratio).mean() == pytest.approx(7 / 3)


def test_nothing_in_common_is_empty() -> None:
    assert shared_items([scores("a", "x", [[1, 1]]), scores("b", "x", [[1, 1]])]).items.ids == ()
