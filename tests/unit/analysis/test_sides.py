"""What pairing buys, beside the same numbers made plainly; the sides of a contrast are tested through its answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic import make_table

from finetrial.analysis import sides
from finetrial.analysis.analyse import analyse
from finetrial.analysis.loading import Branch, Entry, Loading
from finetrial.analysis.trial import Trial
from finetrial.spec.hypothesis import Contrast

FULL, LORA = "full", "lora-r8"


def planted(monkeypatch: pytest.MonkeyPatch, left: Any, right: Any) -> sides.Pairing | None:
    """The pairing of two arms whose values are given, [seeds, clusters]."""
    entry = Entry(1, "new", "nats-per-token")
    of_sides = [[Loading(sign, Branch("tiny", arm, "new"), entry)] for sign, arm in ((1.0, FULL), (-1.0, LORA))]
    values = {FULL: np.asarray(left), LORA: -np.asarray(right)}
    trial: Any = SimpleNamespace(
        differences=lambda loadings, seeds, beside: SimpleNamespace(values=values[loadings[0].branch.arm]))
    monkeypatch.setattr(sides, "sides_of", lambda *_: ("nats-per-token", of_sides))
    monkeypatch.setattr(sides, "all_seeds", lambda *_: tuple(range(len(left))))
    return sides.pairing(trial, Contrast(left=FULL, right=LORA, task="new"))


def test_one_cluster_is_the_paired_against_the_independent_t_test(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = np.array([2.0, 3.0, 5.0, 4.0]), np.array([1.0, 2.5, 4.5, 2.5])
    found = planted(monkeypatch, left[:, np.newaxis], right[:, np.newaxis])
    assert found is not None
    assert found.correlation == pytest.approx(stats.pearsonr(left, right).statistic)
    paired, independent = stats.ttest_rel(left, right).statistic, stats.ttest_ind(left, right).statistic
    assert found.gain == pytest.approx(paired / independent)  # one mean difference over two standard errors


def test_arms_that_share_nothing_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 5, 2000))
    found = planted(monkeypatch, left, right)
    assert found is not None and abs(found.correlation) < 0.05 and found.gain == pytest.approx(1.0, abs=0.05)


def test_items_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are items of variance 1 and noise of variance 0.01: r = 1 / 1.01; with many seeds items alone count apart."""
    rng = np.random.default_rng(1)
    items = rng.normal(size=4000)
    left, right = items + 0.1 * rng.normal(size=(2, 5, 4000))
    found = planted(monkeypatch, left, right)
    assert found is not None and found.correlation == pytest.approx(1 / 1.01, abs=1e-3)
    assert found.gain == pytest.approx(np.sqrt((1 + 0.01 / 5) / (0.01 / 5)), rel=0.1)


@pytest.mark.parametrize("right", [np.ones((3, 4)), np.arange(12.0).reshape(3, 4)])
def test_nothing_to_say_where_an_arm_or_the_difference_never_varies(monkeypatch: pytest.MonkeyPatch, right: Any) -> None:
    assert planted(monkeypatch, np.arange(12.0).reshape(3, 4), right) is None


def test_findings_have_it_where_there_is_an_interval_over_items() -> None:
    results = analyse(*make_table("supported"))
    rows = [row for row in results.findings if row.contrast]
    assert any(row.pairing_gain is not None for row in rows)
    for row in rows:
        assert (row.pairing_gain is not None) == (row.n_clusters is not None and row.low is not None)
        assert row.pairing_correlation is None or -1 <= row.pairing_correlation <= 1


def test_an_interaction_has_no_pairs() -> None:
    study, table = make_table("supported")
    contrast = Contrast(left=FULL, right=LORA, interaction=("lora-r32", "base"), task="new")
    assert sides.pairing(Trial(study, table), contrast) is None
