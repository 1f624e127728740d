"""Time -> grid: how many learning rates, seeds and steps fit into the minutes that there are.

The least that gives a verdict comes first (2 rates x 3 seeds x 40 steps); then, in this order, as long as it fits:
three rates, so that the best one has a neighbour on both sides; an epoch of data (at most 200 steps); five seeds;
three epochs (at most 600 steps); five rates; ten seeds. Each step up buys what is worth most of what is left: without
a bracket around the rate a comparison of methods is one of tunings, without replicates it is an anecdote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finetrial.errors import UserError

MIN_STEPS, EPOCH_STEPS, MOST_STEPS = 40, 200, 600
FEWEST_ARMS = 2  # that can be compared
SAFETY = 1.05  # of the forecast: a machine is rarely as quiet as while it was measured


@dataclass(frozen=True)
class Speed:
    """What one arm costs: seconds of an optimizer step, of all predictions of one cell, of starting a phase."""

    step_seconds: float
    predict_seconds: float
    start_seconds: float

    def cell(self, steps: int) -> float:
        """Seconds of one phase."""
        return self.start_seconds + steps * self.step_seconds + self.predict_seconds


@dataclass(frozen=True)
class Allocation:
    """What is run for every arm, and the seconds that it is forecast to take."""

    rates: int
    seeds: int
    steps: int
    seconds: float


def allocate(seconds: float, speeds: Mapping[str, Speed], *, jobs: float, epoch_steps: int,
             controls: tuple[str, ...] = (), spent: float = 0.0) -> Allocation:
    """The largest grid within `seconds`. `controls` names the arms that are run once more at one rate a seed.

    `jobs`: runs at once. `epoch_steps`: optimizer steps of one epoch. `spent`: seconds that go on other things. Raises
    UserError with the least time that would do, `spent` included.
    """
    def forecast(rates: int, seeds: int, steps: int) -> float:
        work = sum(rates * speed.cell(steps) for speed in speeds.values())
        work += sum(speeds[name].cell(steps) for name in controls)
        return SAFETY * seeds * work / jobs

    chosen = (2, 3, MIN_STEPS)
    least = forecast(*chosen)
    if least > seconds:
        raise UserError(f"{minutes_text(max(0, math.floor(seconds)))} are left for {len(speeds)} arms; the least that gives a verdict, "
                        f"2 learning rates x 3 seeds x {MIN_STEPS} steps, takes about {minutes_text(math.ceil(least))}",
                        f"give more time (--within {math.ceil((least + spent) / 60)}min)"
                        + (", fewer arms (--arms)," if len(speeds) > FEWEST_ARMS else "") + " or a smaller model")

    def most_steps(rates: int, seeds: int, wanted: int) -> int:
        """As many steps as fit, up to `wanted`: the forecast grows evenly with them."""
        start, a_step = forecast(rates, seeds, 0), forecast(rates, seeds, 1) - forecast(rates, seeds, 0)
        return min(wanted, int((seconds - start) / a_step))

    one_epoch = max(MIN_STEPS, min(epoch_steps, EPOCH_STEPS))
    three_epochs = max(MIN_STEPS, min(3 * epoch_steps, MOST_STEPS))
    for rates, seeds, steps in ((3, 3, None), (3, 3, one_epoch), (3, 5, None), (3, 5, three_epochs), (5, 5, None),
                                (5, 10, None)):
        wanted = (max(rates, chosen[0]), max(seeds, chosen[1]))
        fitting = most_steps(*wanted, max(steps or 0, chosen[2]))
        if fitting >= chosen[2]:
            chosen = (*wanted, fitting)
    return Allocation(*chosen, forecast(*chosen))


def seeds_within(seconds: float, seconds_per_seed: float, *, done: int, most: int) -> int:
    """How many seeds of a study fit when `done` of them are recorded and `seconds` are left: from `done` to `most`."""
    if seconds_per_seed <= 0:
        return most
    return min(most, done + max(0, int(seconds / (SAFETY * seconds_per_seed))))


def spread(centre: float, count: int) -> tuple[float, ...]:
    """`count` learning rates around a centre, half a decade apart: 1, 3, 10, 30, ... around one that is such a number."""
    first = -(count - 1) // 2 if count % 2 else -(count // 2)
    digits = 1 if f"{centre:.1e}"[:3] in ("1.0", "3.0") else 2
    return tuple(_half_decades(centre, first + place, digits) for place in range(count))


def _half_decades(centre: float, places: int, digits: int) -> float:
    """A rate so many half decades up: of whole decades exactly, of half ones with so many digits (3.16 as 3)."""
    exponent = math.log10(centre) + 0.5 * places
    if digits == 1:
        whole, half = divmod(round(2 * exponent), 2)
        return float(f"{3 if half else 1}e{whole}")
    return float(f"{10 ** exponent:.2g}")


def minutes_text(seconds: float) -> str:
    """`4.2 minutes`; below two minutes `42 seconds`."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
