"""The steps of `finetrial compare`: look, time, fit the grid to the time, run, answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetrial.compare import arms, design
from finetrial.compare.inspect import apart, inspect
from finetrial.compare.timing import Timing, time_arms
from finetrial.errors import UserError
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.build import Resolved, build
from finetrial.plan.power import Forecast, forecast_power
from finetrial.run.collect import collect
from finetrial.run.place import resolve_device
from finetrial.run.provenance import environment
from finetrial.run.store import Store
from finetrial.run.trial import RunOptions, Trial, lookup_in_store, run_study
from finetrial.spec.study import Limits, Study
from finetrial.spec.uses import Base

REPORT_SECONDS = 12.0  # collecting, analysing, drawing


@dataclass(frozen=True)
class Comparison:
    """What was asked for on the command line. `columns`: our name -> the file's."""

    model: str
    learn: str
    keep: str | None
    seconds: float
    arms: str | None
    limits: Limits
    revision: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    keep_columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """What will be run, said before it starts."""

    study: Study
    grid: design.Grid
    request: design.Request
    left_out: dict[str, str]  # arm -> why
    power: tuple[Forecast, ...]


def compare(asked: Comparison, options: RunOptions, *, say: Callable[[Planned], None], command: str) -> Trial:
    """Run the comparison within the time that was given. Raises UserError for what the user can mend."""
    began = time.monotonic()
    request = look(asked, options.runs)
    timing = time_arms(request, options)
    if len(timing.arms) < 2:
        why = "; ".join(f"{name}: {outcome}" for name, outcome in timing.left_out.items())
        raise UserError(f"{len(timing.arms)} of {len(request.ways)} arms can be run ({why})",
                        f"a comparison needs two; the logs lie below {options.runs}; choose smaller arms or model")
    request = replace(request, ways={name: request.ways[name] for name in timing.arms})
    grid = _grid(asked, timing, request, time.monotonic() - began)
    study = design.study_of(request, grid)
    say(Planned(study, grid, request, timing.left_out, _power(study, options)))
    return run_study(study, options, command=command)


def look(asked: Comparison, runs: Path) -> design.Request:
    """The model and the data, read and measured; arms that the model cannot take are left out."""
    from finetrial.models.load import load_tokenizer
    from finetrial.models.shapes import count_parameters

    base = find_base(asked.model, asked.revision)
    ways = arms.fitting(arms.parse_arms(asked.arms or arms.DEFAULT), base.config, asked.arms is not None)
    tokenizer = load_tokenizer(base.folder)
    learn = inspect(asked.learn, tokenizer, asked.columns)
    name, keep = design.study_name(asked.learn), None
    if asked.keep is not None:
        keep = inspect(asked.keep, tokenizer, asked.keep_columns)
        keep = apart(keep, learn, runs / f"{name}-custom-{design.SIZE}", tokenizer)
    return design.Request(base, count_parameters(base.config), ways, learn, keep, asked.limits, name)


def find_base(model: str, revision: str | None) -> ResolvedBase:
    """A model folder, a bundled base, or a hub repository."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return resolve_base(Base(name=design.as_name(folder.name) or "model", source=str(folder)))
    if "/" in model or revision is not None:
        return resolve_base(Base(name=model.rpartition("/")[2], source=model, revision=revision))
    return resolve_base(Base(name=model))


def _grid(asked: Comparison, timing: Timing, request: design.Request, elapsed: float) -> design.Grid:
    """The largest grid for what is left of the time."""
    overhead = timing.startup_seconds + REPORT_SECONDS
    spent = elapsed + overhead
    grid = design.grid_for(asked.seconds - spent, timing.arms, timing.processes, request, spent)
    return replace(grid, seconds=grid.seconds + overhead)


def _power(study: Study, options: RunOptions) -> tuple[Forecast, ...]:
    """What the run could find, by the noise of earlier records of these arms; unknown without them."""
    plan = build(study, resolved=Resolved())
    lookup = lookup_in_store(plan, Store(options.store_folder()), environment(resolve_device(options.device)))
    return forecast_power(study, collect(study, plan, lookup, {}))
