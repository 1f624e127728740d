"""Verdicts of contrasts and of combinations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetrial.analysis.answer import Answer
from finetrial.analysis.estimate import Estimate, crossed
from finetrial.analysis.verdicts import combine, decision_interval, decision_p_value, verdict_of
from finetrial.records.results import Verdict
from finetrial.spec import Contrast, Hypothesis

S, R, E, I, N = "SUPPORTED", "REFUTED", "EQUIVALENT", "INCONCLUSIVE", "NOT MEASURED"


def around(mean: float, spread: float = 0.1) -> Answer:
    """An answer whose standard error is about spread / sqrt(5)."""
    return Answer(crossed(mean + spread * np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]])))


def contrast(expect: str, **options: object) -> Contrast:
    return Contrast(left="a", right="b", task="new", expect=expect, **options)


@pytest.mark.parametrize(("claim", "found", "verdict"), [
    (contrast("greater"), around(0.5), S), (contrast("greater"), around(-0.5), R),
    (contrast("less"), around(-0.5), S), (contrast("less"), around(0.5), R),
    (contrast("greater"), around(0.02), I), (contrast("greater", margin=0.5), around(0.02), E),
    (contrast("greater", margin=0.03), around(0.02), I), (contrast("less", margin=0.5), around(0.02), E),
    (contrast("greater", margin=0.9), around(0.5), S),  # the direction comes first
    (contrast("equal", margin=0.5), around(0.02), S), (contrast("equal", margin=0.5), around(0.2), S),
    (contrast("equal", margin=0.5), around(1.0), R), (contrast("equal", margin=0.5), around(0.5), I),
    (contrast("within", bounds=(1.0, 2.0)), around(1.5), S), (contrast("within", bounds=(1.0, 2.0)), around(3.0), R),
    (contrast("within", bounds=(1.0, 2.0)), around(2.0), I)])
def test_one_contrast(claim: Contrast, found: Answer, verdict: Verdict) -> None:
    assert verdict_of(claim, found, alpha=0.05) == verdict
    p_value = decision_p_value(claim, found)
    assert p_value is not None
    assert (p_value <= 0.05) == (verdict in (S, R))


def test_the_interval_that_is_told_is_the_one_that_decided() -> None:
    """Mean 0.02, standard error 0.0354, 4 degrees of freedom: t is 2.776 two-sided, 2.132 for two one-sided tests."""
    claim, found = contrast("greater", margin=0.1), around(0.02)
    two_sided, equivalent = (decision_interval(claim, found, 0.05, verdict) for verdict in (I, E))
    assert (two_sided.low, two_sided.high, two_sided.confidence) == pytest.approx((-0.0782, 0.1182, 0.95), abs=1e-4)
    assert (equivalent.low, equivalent.high, equivalent.confidence) == pytest.approx((-0.0554, 0.0954, 0.9), abs=1e-4)
    assert verdict_of(claim, found, 0.05) == E and equivalent.high is not None and equivalent.high < 0.1


def test_ratios_are_judged_in_logs() -> None:
    claim = Contrast(left="a", right="b", quantity="learning-rate-ratio", expect="within", bounds=(5.0, 20.0))
    logs = Answer(crossed(math.log(10) + np.array([[-0.1], [0.0], [0.1]])), is_log=True)
    assert verdict_of(claim, logs, 0.05) == S


def test_without_estimate_or_interval_there_is_no_verdict() -> None:
    assert verdict_of(contrast("greater"), Answer(reason="gone"), 0.05) == N
    assert verdict_of(contrast("greater"), Answer(crossed(np.ones((2, 3)))), 0.05) == N
    assert decision_p_value(contrast("greater"), Answer(reason="gone")) is None


@pytest.mark.parametrize(("difference", "expect", "verdict"), [(3.0, "greater", S), (3.0, "less", R), (-3.0, "less", S),
                                                             (0.0, "greater", R)])
def test_exact_quantities_are_decided_by_their_sign(difference: float, expect: str, verdict: Verdict) -> None:
    claim = Contrast(left="a", right="b", quantity="cost", cost="params_trainable", expect=expect)
    exact = Estimate(difference, None, None, None, None, 0.95, None, 0, 0)
    assert verdict_of(claim, Answer(exact, exact=True), 0.05) == verdict
    assert verdict_of(claim, Answer(exact), 0.05) == I  # measured once: no interval


@pytest.mark.parametrize(("parts", "all_of", "any_of"), [
    ((S, S), S, S), ((S, R), R, S), ((S, E), R, S), ((S, I), I, S), ((S, N), N, S), ((R, N), R, N), ((R, R), R, R),
    ((E, R), R, R), ((I, R), R, I), ((I, N), N, N), ((I, I), I, I), ((E, I), R, I), ((N, N), N, N)])
def test_combinations(parts: tuple[Verdict, ...], all_of: Verdict, any_of: Verdict) -> None:
    two = (contrast("greater"), contrast("less"))
    assert combine(Hypothesis(name="H", statement="", all_of=two), parts) == all_of
    assert combine(Hypothesis(name="H", statement="", any_of=two), parts) == any_of


@pytest.mark.parametrize(("parts", "verdict"), [
    ((S, S, R, S), S), ((R, S, S, S), S), ((S, R, R, S), R), ((S, I, R, S), I), ((S, N, R, S), N), ((S, N, S, S), S)])
def test_any_of_several_groups(parts: tuple[Verdict, ...], verdict: Verdict) -> None:
    group = (contrast("greater"), contrast("less"))
    assert combine(Hypothesis(name="H", statement="", any_of=(group, group)), parts) == verdict


@pytest.mark.parametrize(("claim", "verdict"), [
    (contrast("greater"), E), (contrast("less"), E), (contrast("equal", margin=0.1), S),
    (contrast("within", bounds=(1.0, 2.0)), R)])
def test_zero_by_construction_settles_no_direction(claim: Contrast, verdict: Verdict) -> None:
    zero = Estimate(0.0, None, None, None, None, 0.95, None, 0, 0)
    found = Answer(zero, exact=True, by_construction=True)
    assert verdict_of(claim, found, 0.05) == verdict and decision_p_value(claim, found) is None


@pytest.mark.parametrize("verdict", [S, R, E, I, N])
def test_a_single_contrast_is_the_hypothesis(verdict: Verdict) -> None:
    assert combine(Hypothesis(name="H", statement="", contrast=contrast("greater")), (verdict,)) == verdict


def test_both_directions_are_one_test() -> None:
    forth = Contrast(left="a", right="b", task="new", left_sequence="x", expect="less", margin=0.1)
    assert forth.flipped.left_sequence == "" and forth.flipped.right_sequence == "x" and forth.flipped.flipped == forth
    assert forth.test == forth.flipped.model_copy(update={"expect": "greater"}).test
    ranged = contrast("equal", margin=0.1)
    assert ranged.test == ranged
