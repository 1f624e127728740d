"""`run --within`: as many of a study's seeds as fit into the time that there is.

Arms, learning rates and steps are the question and stay. The first seeds, the fewest that give an interval, are run and
timed; how many more fit follows from what they took. Nobody has looked at a result by then, so stopping by the clock
costs no error rate. What was decided is kept (`run/looks.py`): the same command again asks for the same seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetrial.errors import UserError
from finetrial.plan.allocate import SAFETY, minutes_text, seeds_within
from finetrial.plan.build import build
from finetrial.plan.forecast.study import forecast_study
from finetrial.plan.plan import Plan
from finetrial.run.execute import ExecutionResult
from finetrial.spec.study import FEWEST_SEEDS, Study
from finetrial.stages.base import Stage, StageInput

Run = Callable[[Sequence[Stage]], ExecutionResult]
Recorded = Callable[[Plan], Mapping[str, StageInput]]


def fit_seeds(study: Study, seconds: float, run: Run, recorded: Recorded, *, jobs: int, began: float,
              relative_to: Path | None, say: Callable[[str], None] | None = None, forecast: bool = True) -> Study:
    """The study with the seeds that fit. Computes the first of them.

    `seconds` count from `began`, by `time.monotonic()`. Raises UserError where the first cannot fit, as far as profiles
    tell (of training and prediction, each arm once); without `forecast` nothing is forecast.
    """
    first = study.model_copy(update={"seeds": study.seeds[:FEWEST_SEEDS]})
    plan = build(first, relative_to=relative_to)
    profiled = {stages[0] for stages in plan.profiles.values()}
    run([stage for stage in plan.stages if stage.kind == "data" or stage.id in profiled])
    if forecast:
        least = forecast_study(first, plan, recorded=recorded(plan), relative_to=relative_to).time.seconds / jobs
        _refuse_too_short(least, seconds, time.monotonic() - began)
    started = time.monotonic()
    result = run(plan.stages)
    elapsed = time.monotonic() - started
    worked = sum(found.record.seconds for stage in _repeated(plan) if (found := result.found(stage)) is not None)
    gone = time.monotonic() - began
    per_seed = max(worked / jobs, elapsed) / len(first.seeds)  # what was recorded before took no time now
    count = seeds_within(seconds - gone, per_seed, done=len(first.seeds), most=len(study.seeds))
    if say is not None:
        earlier = any(stage not in result.computed for stage in _repeated(plan) if result.found(stage) is not None)
        since = " of this run (earlier runs, in which parts of them were computed, are not counted)" if earlier else ""
        say(f"{len(first.seeds)} seeds are done after {minutes_text(gone)}{since}; {count} of {len(study.seeds)} fit into "
            f"{minutes_text(seconds)}")
    return study.model_copy(update={"seeds": study.seeds[:count]})


def _refuse_too_short(least: float, seconds: float, gone: float) -> None:
    if gone + least > seconds:
        needed = math.ceil((gone + SAFETY * least) / 60)
        raise UserError(f"{FEWEST_SEEDS} seeds, the fewest that give an interval, take at least {minutes_text(least)}, "
                        f"and {minutes_text(max(0.0, seconds - gone))} of {minutes_text(seconds)} are left",
                        f"give more time (--within {needed}min), fewer arms or learning rates, or a smaller size of a built-in "
                        "study (--size demo)")


def _repeated(plan: Plan) -> set[str]:
    """The stages that belong to one seed: more seeds repeat their like."""
    found = {stage for cell in plan.cells if cell.key.seed is not None for phase in cell.phases
             for stage in (phase.train, *phase.predictions.values()) if stage}
    found |= {stage for row in plan.outputs if row.seed is not None for stage in (row.generate, row.score) if stage}
    return found | {row.predict for row in plan.losses} | {row.probe for row in plan.probes}
