"""`finetrial profile`: the speed and memory of every arm of a study, and nothing else of it.

What a match on training time is solved from, and what a plan's forecast of time is made of. A run finds the profiles
recorded and does not repeat them.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from finetrial.plan.audit import audit, refuse
from finetrial.plan.build import build
from finetrial.plan.fetch import fetch_study
from finetrial.plan.matched import matched_untimed, without_open_matches
from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.run.disk import explained
from finetrial.run.execute import ExecutionResult, execute
from finetrial.run.options import RunOptions, run_folder
from finetrial.run.place import Place, open_place
from finetrial.run.run_file import PROFILE, HowRun, write_run_files
from finetrial.run.trial import raise_for_data
from finetrial.run.view import open_view
from finetrial.spec.study import Study
from finetrial.stages.base import StageInput


@dataclass(frozen=True)
class Speed:
    """One arm on one task: medians over its profiles, None where none of them ended well, and then how one ended."""

    base: str
    arm: str
    task: str
    tokens_per_second: float | None
    step_seconds: float | None
    peak_bytes: int | None  # the device's, on a CPU the host's
    outcome: Outcome


def profile_study(study: Study, options: RunOptions, *, relative_to: Path | None = None) -> list[Speed]:
    """Record the profiles that are not recorded yet. Raises UserError for what the user can mend."""
    refuse(audit(study))
    with open_place(replace(options, jobs=1)) as place:
        fetch_study(study, relative_to)
        study = without_open_matches(matched_untimed(study, relative_to=relative_to))
        plan = build(study, relative_to=relative_to)
        wanted = {stage for stages in plan.profiles.values() for stage in stages}
        result = measure(place, study, plan, wanted, options, relative_to=relative_to)
    raise_for_data([stage for stage in plan.stages if stage.kind == "data"], result)
    return [_speed(key, [found for stage in stages if (found := result.found(stage)) is not None])
            for key, stages in plan.profiles.items()]


def measure(place: Place, study: Study, plan: Plan, wanted: Collection[str], options: RunOptions, *,
            relative_to: Path | None = None) -> ExecutionResult:
    """The data of a plan and those of its profiles that are wanted, one after the other. They belong to the folder `profile`
    of the study's run, whose status and logs are not the run's."""
    folder = run_folder(study, options.runs) / PROFILE
    how = HowRun(place.device, place.environment, place.store.location, "", relative_to)
    with explained(folder):
        write_run_files(folder, study, plan, how)
    return execute([stage for stage in plan.stages if stage.kind == "data" or stage.id in wanted], place.store, folder,
                   device=place.device, environment=place.environment, jobs=1, executor=place.executor,
                   log_level=options.log_level, timeout_seconds=options.timeout_seconds,
                   listener=open_view() if options.view else None,
                   plugins=[str((relative_to or Path()) / name) for name in study.plugins])


def _speed(place: tuple[str, str, str], found: list[StageInput]) -> Speed:
    values = [one.record.values for one in found if one.record.outcome is Outcome.OK]
    if not values:
        return Speed(*place, None, None, None, found[0].record.outcome if found else Outcome.FAILED)
    peak = "peak_host_bytes" if values[0].get("peak_device_allocated_bytes") is None else "peak_device_allocated_bytes"
    return Speed(*place, statistics.median(row["tokens_per_second"] for row in values),
                 statistics.median(row["step_seconds"] for row in values),
                 int(statistics.median(row[peak] for row in values)), Outcome.OK)
