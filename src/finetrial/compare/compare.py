"""The steps of `finetrial compare`: look, time, fit the grid to the time, run, answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, cast

from finetrial import __version__
from finetrial.compare import arms, design
from finetrial.compare.inspect import apart, inspect
from finetrial.compare.limits import beyond_limits
from finetrial.compare.timing import Timing, time_arms
from finetrial.errors import UserError, unknown
from finetrial.fingerprint import key_of
from finetrial.plan.bases import REPOSITORY, bundled_names, resolve_base
from finetrial.plan.build import Resolved, build
from finetrial.plan.power import Forecast, forecast_power
from finetrial.records.record import Outcome
from finetrial.run.collect import collect
from finetrial.run.disk import explained, replace_text
from finetrial.run.options import RunOptions, folder_named
from finetrial.run.place import resolve_device
from finetrial.run.provenance import environment
from finetrial.run.remote_store import open_store
from finetrial.run.run_file import PROFILE
from finetrial.run.trial import Trial, lookup_in_store, run_study
from finetrial.spec.io import parse_study
from finetrial.spec.study import Limits, Study
from finetrial.spec.uses import Base

REPORT_SECONDS = 12.0  # collecting, analysing, drawing: counted as gone from the start
ASKED_FILE = "compare-{digest}.json"  # in the run's folder, one for each question: what was asked, and the study that it led to


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
    beyond: dict[str, str]  # arm that is run and beyond a limit already -> why
    power: tuple[Forecast, ...]


def compare(asked: Comparison, options: RunOptions, *, say: Callable[[Planned | str], None], command: str) -> Trial:
    """Run the comparison within the time that was given. Raises UserError for what the user can mend.

    `say` gets the plan before it starts, and lines. A comparison that was asked before in the same words goes on as it
    was planned then: timed again it would be another one.
    """
    began = time.monotonic()
    options = replace(options, within_seconds=asked.seconds, fits=True)
    say("reading the data")
    request = look(asked, options.runs)
    words = _words(asked, request, options)
    memory = _memory(words, _folder(request.name, options.runs))
    before = _asked_before(words, memory)
    if before is not None:
        say(f"asked before: it goes on as it was planned then (to plan anew, delete {memory})")
        return run_study(before, options, command=command, began=began - REPORT_SECONDS)
    say("timing a few steps of each arm")
    request, timing, grid = _fitted(asked, request, options, began)
    study = design.study_of(request, grid)
    beyond = beyond_limits(request.ways, request.base.config, request.limits, timing.arms)
    say(Planned(study, grid, request, timing.left_out, beyond, _power(study, options)))
    study = study.model_copy(update={"seeds": tuple(range(design.MOST_SEEDS))})
    _remember(words, study, memory)
    return run_study(study, options, command=command, began=began - REPORT_SECONDS)


def _fitted(asked: Comparison, request: design.Request, options: RunOptions,
            began: float) -> tuple[design.Request, Timing, design.Grid]:
    """The arms that can be run, timed, and the grid for what is left of the time.

    The first timing, with the least batch, finds how much a run may do; the second, of runs that do so much, how long
    they take. The second's profiles are the study's own.
    """
    timing, known = time_arms(request, options), None
    while True:
        if len(timing.arms) < 2:
            raise _too_few(timing, request, options.runs)
        beyond_limits({name: request.ways[name] for name in timing.arms}, request.base.config, request.limits, timing.arms)
        running = replace(request, ways={name: request.ways[name] for name in timing.arms})
        grid = _grid(asked, timing, running, time.monotonic() - began, known)
        if grid.effort in (known, design.LEAST.effort):
            return running, timing, grid
        known = grid.effort
        timing = time_arms(request, options, grid)


def _too_few(timing: Timing, request: design.Request, runs: Path) -> UserError:
    """Why fewer than two arms can be run: each cause once."""
    causes: dict[str, list[str]] = {}
    for name, outcome in timing.left_out.items():
        causes.setdefault(outcome, []).append(name)
    why = "; ".join(f"{', '.join(names)}: {outcome}" for outcome, names in causes.items())
    memory = all(outcome.startswith(Outcome.OOM) for outcome in causes)
    return UserError(f"{len(timing.arms)} of {len(request.ways)} arms can be run, and a comparison needs two ({why})",
                     "choose smaller arms or a smaller model" if memory else
                     f"mend what is said there; the logs lie in {_folder(request.name, runs) / PROFILE / 'logs'}")


def _memory(words: dict[str, Any], folder: Path) -> Path:
    """Where it is kept what these words led to: data of one name and other models and arms share the folder of a run."""
    return folder / ASKED_FILE.format(digest=key_of(words)[:8])


def _asked_before(words: dict[str, Any], memory: Path) -> Study | None:
    """The study that the same words led to before, as it was planned then."""
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
        return parse_study(kept["study"], str(memory)) if kept["asked"] == words else None
    except (OSError, ValueError, KeyError, UserError):
        return None


def _remember(words: dict[str, Any], study: Study, memory: Path) -> None:
    with explained(memory.parent):
        memory.parent.mkdir(parents=True, exist_ok=True)
        replace_text(memory, json.dumps({"asked": words, "study": study.identity()}, indent=1) + "\n")


def _words(asked: Comparison, request: design.Request, options: RunOptions) -> dict[str, Any]:
    """What was asked, of which model and data, on what, as json holds it: all that the plan follows from."""
    words = {**vars(asked), "limits": asked.limits.model_dump(mode="json"), "version": __version__,
             "base": [request.base.weights_digest, request.base.tokenizer_digest], "jobs": options.jobs,
             "data": [data.examples.digest for data in request.data.values()], "device": resolve_device(options.device)}
    return cast("dict[str, Any]", json.loads(json.dumps(words)))


def _folder(name: str, runs: Path) -> Path:
    return folder_named(runs, name, design.SCALE, design.SIZE)


def look(asked: Comparison, runs: Path) -> design.Request:
    """The model and the data, read and measured; arms that the model cannot take are left out. Raises UserError for what the
    user can mend, limits that no arm can keep among it."""
    from finetrial.models.load import load_tokenizer
    from finetrial.models.shapes import count_parameters

    written = find_base(asked.model, asked.revision)
    base = resolve_base(written)
    ways = arms.fitting(arms.parse_arms(asked.arms or arms.DEFAULT), base.config, asked.arms is not None)
    beyond_limits(ways, base.config, asked.limits)
    tokenizer = load_tokenizer(base.folder)
    learn = inspect(asked.learn, tokenizer, asked.columns)
    name, keep = design.study_name(asked.learn), None
    if asked.keep is not None:
        keep = inspect(asked.keep, tokenizer, asked.keep_columns)
        keep = apart(keep, learn, _folder(name, runs), tokenizer)
    request = design.Request(written, base, count_parameters(base.config), ways, learn, keep, asked.limits, name)
    return request.without_long_prompts(tokenizer, _folder(name, runs)).with_usable_rows(tokenizer)


def find_base(model: str, revision: str | None, option: str = "--model") -> Base:
    """A model folder, a bundled base, or a hub repository (`owner/name@revision` with its revision), as a study writes it."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"--revision {revision!r}: {model} is a folder of this machine and has no revisions",
                            "leave --revision out")
        folder = folder.resolve()
        return Base(name=design.as_name(folder.name) or "model", source=str(folder))
    repository, _, written = model.partition("@")
    if written and REPOSITORY.fullmatch(repository):
        if revision not in (None, written):
            raise UserError(f"{option} {model} and --revision {revision!r} are two revisions", "leave --revision out")
        model, revision = repository, written
    if "/" in model or revision is not None:
        return Base(name=design.as_name(PurePath(model).name) or "model", source=model, revision=revision)
    if model not in bundled_names():
        raise UserError(unknown("model", model, bundled_names()),
                        f"{option} takes a folder, or a repository of the hub with its owner: openai-community/gpt2")
    return Base(name=model)


def _grid(asked: Comparison, timing: Timing, request: design.Request, elapsed: float,
          known: design.Effort | None) -> design.Grid:
    """The largest grid for what is left of the time."""
    overhead = timing.startup_seconds + REPORT_SECONDS
    spent = elapsed + overhead
    grid = design.grid_for(asked.seconds - spent, timing.arms, timing.processes, request, spent, known)
    return replace(grid, seconds=grid.seconds + overhead)


def _power(study: Study, options: RunOptions) -> tuple[Forecast, ...]:
    """What the run could find, by the noise of earlier records of these arms; unknown without them."""
    plan = build(study, resolved=Resolved())
    lookup = lookup_in_store(plan, open_store(options.store_location()), environment(resolve_device(options.device)))
    return forecast_power(study, collect(study, plan, lookup, {}))
