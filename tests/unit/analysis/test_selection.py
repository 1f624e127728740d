"""The rate of each seed is chosen by the others."""

from __future__ import annotations

from finetrial.analysis.selection import choose_rates

RATES = (1e-4, 1e-3, 1e-2)


def grid(*rows: tuple[float | None, ...]) -> dict[tuple[int, float], float | None]:
    return {(seed, rate): value for seed, row in enumerate(rows) for rate, value in zip(RATES, row, strict=True)}


def test_each_seed_is_judged_by_the_others() -> None:
    # Seed 0 alone likes 1e-2 so much that it would win the mean over all; for itself it has no say.
    choices = choose_rates(grid((0.0, 1.0, 9.0), (0.0, 1.0, 0.0), (0.0, 1.0, 0.0)), RATES, (0, 1, 2))
    assert [choices[seed].rate for seed in (0, 1, 2)] == [1e-3, 1e-2, 1e-2]
    assert choices[0].means == (0.0, 1.0, 0.0)
    assert [choices[seed].at_edge for seed in (0, 1, 2)] == [False, True, True]


def test_one_seed_judges_itself() -> None:
    assert choose_rates(grid((0.0, 2.0, 1.0)), RATES, (0,))[0].rate == 1e-3


def test_a_failed_run_is_the_worst_there_is() -> None:
    choices = choose_rates(grid((0.0, 1.0, 5.0), (0.0, 1.0, None), (0.0, 1.0, 5.0)), RATES, (0, 1, 2))
    assert [choices[seed].rate for seed in (0, 1, 2)] == [1e-3, 1e-2, 1e-3]
    assert choices[0].means[2] is None
    nan = choose_rates(grid((0.0, 1.0, float("nan")), (0.0, 1.0, float("inf"))), RATES, (0, 1))
    assert [nan[seed].rate for seed in (0, 1)] == [1e-3, 1e-3]


def test_nothing_finished() -> None:
    choices = choose_rates(grid((None,) * 3, (None,) * 3), RATES, (0, 1))
    assert choices[0].rate is None and choices[0].reason == "no learning rate finished"
    assert not choices[0].at_edge


def test_a_seed_judges_only_when_it_is_complete() -> None:
    scores = grid((0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (5.0, 0.0, 0.0))
    del scores[2, 1e-2]
    choices = choose_rates(scores, RATES, (0, 1, 2))
    assert [choices[seed].rate for seed in (0, 1, 2)] == [1e-3, 1e-3, 1e-3]
    nobody = choose_rates({}, RATES, (0, 1))
    assert nobody[0].rate is None and "yet" in nobody[0].reason


def test_one_rate_is_no_choice_and_ties_go_to_the_lower() -> None:
    single = choose_rates({}, (1e-3,), (0, 1))[0]
    assert single.rate == 1e-3 and not single.at_edge
    assert choose_rates(grid((1.0, 1.0, 0.0), (1.0, 1.0, 0.0)), RATES, (0, 1))[0].rate == 1e-4


def test_equals_are_equal_in_any_order() -> None:
    """Hits are few, so means tie often: 0.1 + 0.2 + 0.3 is more than 0.3 + 0.2 + 0.1, added one after the other."""
    rows = ((0.9, 0.9, 0.0), (0.3, 0.1, 0.0), (0.2, 0.2, 0.0), (0.1, 0.3, 0.0))
    assert choose_rates(grid(*rows), RATES, (0, 1, 2, 3))[0].rate == 1e-4
