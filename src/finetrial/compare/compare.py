"""The steps of `finetrial compare`: look, time, fit the grid to the time, run, answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from finetrial.compare import arms, design
from finetrial.compare.inspect import Inspected, inspect
from finetrial.errors import UserError
from finetrial.plan.allocate import Allocation, Speed
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.build import build
from finetrial.records.record import Outcome
from finetrial.run.execute import execute
from finetrial.run.provenance import environment
from finetrial.run.store import Store
from finetrial.run.trial import RunOptions, Trial, default_jobs, resolve_device, run_folder, run_study
from finetrial.spec.study import Base, Limits, Study

REPORT_SECONDS = 12.0  # collecting, analysing, drawing


@dataclass(frozen=True)
class Comparison:
    """What was asked for on the command line."""

    model: str
    learn: Path
    keep: Path | None
    seconds: float
    arms: str | None
    limits: Limits
    revision: str | None = None


@dataclass(frozen=True)
class Planned:
    """What will be run, said before it starts."""

    study: Study
    grid: Allocation
    request: design.Request
    left_out: dict[str, str]  # arm -> why


def compare(asked: Comparison, options: RunOptions, *, say: Callable[[Planned], None], command: str) -> Trial:
    """Run the comparison within the time that was given. Raises UserError for what the user can mend."""
    began = time.monotonic()
    request = look(asked)
    known, left_out = time_arms(request, options)
    remaining = asked.seconds - (time.monotonic() - began) - REPORT_SECONDS
    if len(known) < 2:
        raise UserError(f"{len(known)} of {len(request.methods)} arms can be run: "
                        + "; ".join(f"{name}: {why}" for name, why in left_out.items()),
                        "a comparison needs two; choose smaller arms, or a smaller model")
    jobs = options.jobs or default_jobs(resolve_device(options.device))
    request = replace(request, methods={name: request.methods[name] for name in known})
    grid = design.grid_for(remaining, known, jobs, request)
    study = design.study_of(request, grid)
    say(Planned(study, grid, request, left_out))
    return run_study(study, options, command=command)


def look(asked: Comparison) -> design.Request:
    """The model and the data, read and measured; arms that the model cannot take are left out."""
    from finetrial.models.load import load_tokenizer
    from finetrial.models.shapes import count_parameters

    base = find_base(asked.model, asked.revision)
    methods = arms.fitting(arms.parse_arms(asked.arms or arms.DEFAULT), base.config, asked.arms is not None)
    tokenizer = load_tokenizer(base.folder)
    learn = inspect(asked.learn, tokenizer)
    keep: Inspected | None = inspect(asked.keep, tokenizer) if asked.keep is not None else None
    return design.Request(base, count_parameters(base.config), methods, learn, keep, asked.limits)


def find_base(model: str, revision: str | None) -> ResolvedBase:
    """A model folder, a bundled base, or a hub repository."""
    folder = design.as_path(model)
    if folder is not None:
        name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in folder.resolve().name)
        return resolve_base(Base(name=name.lstrip("._-") or "model", source=str(folder.resolve())))
    if "/" in model or revision is not None:
        return resolve_base(Base(name=model.rpartition("/")[2], source=model, revision=revision))
    return resolve_base(Base(name=model))


def time_arms(request: design.Request, options: RunOptions) -> tuple[dict[str, Speed], dict[str, str]]:
    """A few steps of every arm, each alone; what could not be run is left out, with its outcome."""
    study = design.first_study(request)
    plan = build(study)
    wanted = {stages[0] for stages in plan.profiles.values()}
    stages = [stage for stage in plan.stages if stage.kind == "data" or stage.id in wanted]
    device = resolve_device(options.device)
    folder = run_folder(study, options.runs)
    folder.mkdir(parents=True, exist_ok=True)
    result = execute(stages, Store(options.store_folder()), folder, device=device, environment=environment(device),
                     jobs=1, log_level=options.log_level)
    found = design.speeds(study, plan, result, request)
    known = {arm: speed for arm, speed in found.items() if isinstance(speed, Speed)}
    left_out = {arm: outcome.value for arm, outcome in found.items() if isinstance(outcome, Outcome)}
    return known, left_out
