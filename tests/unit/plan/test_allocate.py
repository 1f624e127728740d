"""Time -> grid: what is bought first, and that the forecast stays within the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrial.errors import UserError
from finetrial.plan.allocate import MIN_STEPS, SAFETY, Speed, allocate, seeds_within, spread

QUICK = {"full": Speed(0.1, 2.0, 1.0), "lora": Speed(0.08, 2.0, 1.0)}


def test_the_least_grid_comes_first_and_is_refused_below_it() -> None:
    least = SAFETY * 3 * (2 * (7.0 + 6.2) + 2 * 7.0) / 2  # seeds x (rates x cells + controls), on two processes
    grid = allocate(least, QUICK, jobs=2, epoch_steps=500, controls=("full", "full"))
    assert (grid.rates, grid.seeds, grid.steps) == (2, 3, MIN_STEPS)
    assert grid.seconds == pytest.approx(least)
    with pytest.raises(UserError, match="62 seconds are left .* takes about 64 seconds"):
        allocate(least - 1, QUICK, jobs=2, epoch_steps=500, controls=("full", "full"))


def test_fewer_arms_are_advised_only_where_two_would_be_left() -> None:
    def mend(speeds: dict[str, Speed]) -> str:
        with pytest.raises(UserError) as caught:
            allocate(1.0, speeds, jobs=2, epoch_steps=500)
        return caught.value.mend

    assert mend({**QUICK, "layer": QUICK["lora"]}).endswith("min), fewer arms (--arms), or a smaller model")
    assert mend(QUICK).endswith("min) or a smaller model")


def test_more_time_buys_a_bracket_then_an_epoch_then_seeds() -> None:
    grids = [allocate(seconds, QUICK, jobs=2, epoch_steps=150) for seconds in (70, 140, 260, 1000, 100_000)]
    assert [grid.rates for grid in grids] == sorted(grid.rates for grid in grids)
    assert grids[0].rates == 3 and grids[0].seeds == 3
    assert grids[1].steps > MIN_STEPS and grids[1].seeds == 3
    assert grids[-1] == allocate(1e9, QUICK, jobs=2, epoch_steps=150)
    assert (grids[-1].rates, grids[-1].seeds, grids[-1].steps) == (5, 10, 450)


@given(st.floats(30, 1e5), st.integers(1, 8), st.integers(1, 5000))
def test_the_forecast_stays_within_the_time(seconds: float, jobs: int, epoch: int) -> None:
    try:
        grid = allocate(seconds, QUICK, jobs=jobs, epoch_steps=epoch)
    except UserError:
        return
    assert grid.seconds <= seconds and grid.steps >= MIN_STEPS and grid.seeds >= 3


@pytest.mark.parametrize("seconds", [90, 120, 140, 170])
def test_what_is_left_goes_into_steps(seconds: float) -> None:
    grid = allocate(seconds, QUICK, jobs=2, epoch_steps=5000)
    one_more = SAFETY * grid.seeds * grid.rates * sum(speed.cell(grid.steps + 1) for speed in QUICK.values()) / 2
    assert grid.steps < 200 and one_more > seconds


def test_rates_are_half_a_decade_apart() -> None:
    assert spread(3e-4, 3) == (1e-4, 3e-4, 1e-3)
    assert spread(3e-3, 2) == (1e-3, 3e-3)
    assert spread(1e-5, 5) == (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
    assert spread(2e-4, 3) == (6.3e-5, 2e-4, 6.3e-4)
    assert len(spread(1e-3, 5)) == 5 and spread(1e-3, 5)[2] == 1e-3


def test_seeds_fit_into_the_time_that_is_left() -> None:
    assert seeds_within(1000, 100, done=3, most=10) == 10
    assert seeds_within(230, 100, done=3, most=10) == 5  # a little is kept back
    assert seeds_within(-5, 100, done=3, most=10) == 3
    assert seeds_within(1, 0.0, done=3, most=10) == 10  # everything was recorded
