"""A few steps of every arm, each alone, before anything is decided; and how much of the machine is free."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

import psutil

from finetrial.compare import design
from finetrial.plan.build import build
from finetrial.records.record import Outcome
from finetrial.run.options import RunOptions
from finetrial.run.place import default_jobs, open_place
from finetrial.run.profiling import measure
from finetrial.run.trial import raise_for_data
from finetrial.stages.base import StageInput
from finetrial.stages.profile import MEASURED_STEPS, PREDICTED_ROWS, WARMUP_STEPS

LEAST_START_SECONDS = 0.3


@dataclass(frozen=True)
class Timing:
    """What was timed: arms that run, those that do not with their outcome and why, runs at once, seconds to start workers."""

    arms: dict[str, design.Timed]
    left_out: dict[str, str]
    processes: float
    startup_seconds: float


def time_arms(request: design.Request, options: RunOptions, grid: design.Grid = design.LEAST) -> Timing:
    """Profile every arm once, as it is run in a grid. Raises DataError for data that cannot be used."""
    study = design.study_of(request, grid)
    plan = build(study)
    wanted = {stages[0] for stages in plan.profiles.values()}
    stages = [stage for stage in plan.stages if stage.kind == "data" or stage.id in wanted]
    with open_place(replace(options, jobs=1)) as place:
        began, idle = time.monotonic(), psutil.cpu_times().idle
        result = measure(place, study, plan, wanted, replace(options, view=False))
        elapsed, idle = time.monotonic() - began, psutil.cpu_times().idle - idle
    raise_for_data([stage for stage in stages if stage.kind == "data"], result)
    arms: dict[str, design.Timed] = {}
    left_out: dict[str, str] = {}
    for (_, arm, _), of_arm in plan.profiles.items():
        found = result.found(of_arm[0])
        if found is not None and found.record.outcome is Outcome.OK:
            arms[arm] = _timed(found, request)
        else:
            left_out[arm] = Outcome.FAILED.value if found is None else f"{found.record.outcome}: {found.record.message}"
    known = (result.found(stage.id) for stage in stages)
    worked = sum(found.record.seconds for found in known if found is not None)
    return Timing(arms, left_out, _processes(options, place.device, idle / elapsed), max(0.0, elapsed - worked))


def _timed(found: StageInput, request: design.Request) -> design.Timed:
    """Speeds from a profile; what its steps do not account for is the start: loading the model, writing weights."""
    values = found.record.values
    scored = PREDICTED_ROWS * min(request.learn.mean_tokens, request.row_tokens) / values["predict_tokens_per_second"]
    steps = (WARMUP_STEPS + MEASURED_STEPS) * values["step_seconds"]
    return design.Timed(values["tokens_per_second"], values["predict_tokens_per_second"],
                        max(LEAST_START_SECONDS, found.record.seconds - steps - scored),
                        values.get("peak_device_allocated_bytes") or values.get("peak_host_bytes"))


def _processes(options: RunOptions, device: str, idle_cores: float) -> float:
    """How many runs will go on at once: as many as are allowed, or as there were idle cores beside the one we used."""
    jobs = options.jobs or default_jobs(device)
    return float(jobs) if device != "cpu" else max(1.0, min(jobs, 1.0 + idle_cores, os.cpu_count() or 1))
