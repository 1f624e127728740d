"""A trial from start to finish: plan, run, collect, analyse, report.

The run's folder holds what people read; the stage store, shared by all studies, holds what was computed. Everything
after the stages is a pure function of records, so a partial run has a report too.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetrial.analysis.analyse import analyse
from finetrial.errors import AuditError, DataError, StoreError, UserError
from finetrial.plan.audit import audit, audit_data, audit_plan, audit_records, refuse
from finetrial.plan.build import Resolved, build
from finetrial.plan.fetch import fetch_study
from finetrial.plan.matched import matched
from finetrial.plan.plan import Plan
from finetrial.records.record import Environment, Outcome
from finetrial.records.results import AuditFinding, Results
from finetrial.report import build as build_report
from finetrial.run.artifacts import link_artifacts
from finetrial.run.collect import collect
from finetrial.run.disk import explained, replace_text
from finetrial.run.earlier import set_aside
from finetrial.run.execute import ExecutionResult, execute
from finetrial.run.items import write_items
from finetrial.run.job import utc_now
from finetrial.run.looks import Looks
from finetrial.run.options import RunOptions, run_folder
from finetrial.run.outcomes import nothing_finished
from finetrial.run.place import Place, open_place
from finetrial.run.programs import check_programs
from finetrial.run.provenance import host_facts
from finetrial.run.ranks import check_processes
from finetrial.run.run_file import ARTIFACTS, ITEMS_FILE, REPORT_FILE, RESULTS_FILE, HowRun, write_run_files
from finetrial.run.seen import remember_showing, stated_after
from finetrial.run.stacks import automatic
from finetrial.run.status import write_refused
from finetrial.run.store import Store
from finetrial.run.view import open_view
from finetrial.run.within import fit_seeds
from finetrial.spec.study import Study
from finetrial.stages.base import Lookup, Stage, StageInput


@dataclass(frozen=True)
class Trial:
    """A finished (or partial) trial."""

    folder: Path
    study: Study
    results: Results
    corrupt: tuple[str, ...] = ()  # store entries that were found damaged and computed again
    trained: Mapping[int | None, int] = field(default_factory=dict)  # phases that were trained now, not found: by seed
    failure: UserError | None = None  # why no arm came to its end, where none did


def run_study(study: Study, options: RunOptions, *, relative_to: Path | None = None, command: str = "",
              began: float | None = None) -> Trial:
    """Run what is not recorded yet, then analyse and report. Raises UserError for what the user can mend.

    `began`: from when the time that it may take is counted, by `time.monotonic()`; None = from now.
    """
    began = time.monotonic() if began is None else began
    study = study.model_copy(update={"accept_threats": (*study.accept_threats, *options.accept)})
    refuse(audit(study))
    say = _say if options.view else None
    with open_place(options, say) as place:
        fetch_study(study, relative_to, say=say)
        return _run_at(place, study, options, relative_to, command, began)


def _run_at(place: Place, study: Study, options: RunOptions, relative_to: Path | None, command: str,
            began: float) -> Trial:
    store, here = place.store, place.environment
    study = matched(study, recorded=lambda plan: recorded_in_store(plan, store, here), relative_to=relative_to)
    plan = build(study, resolved=Resolved(), relative_to=relative_to)
    refuse((*audit(study), *audit_plan(study, plan)))
    check_programs(plan.stages, allow_unsandboxed=options.allow_unsandboxed)
    check_processes(options.processes, plan.stages, place.device, stack=options.stack or 1, local=options.on == "local",
                    shard=options.shard)
    folder = run_folder(study, options.runs)
    how, looks = HowRun(place.device, here, store.location, command, relative_to), Looks(folder, study)
    with explained(folder):
        kept = set_aside(folder, study)
        write_run_files(folder, study, plan, how, looks.as_json(options.more_seeds_from))
    if kept is not None and options.view:
        _say(f"{folder} holds results of another question: they and their report are kept in {kept}")

    stack = options.stack or (1 if options.processes > 1 else automatic(
        place.device, place.free_bytes and place.free_bytes // (place.jobs or 1)))
    plugins = [str((relative_to or Path()) / name) for name in study.plugins]
    since = utc_now()  # of the whole trial: what failed in one of its parts is not tried again in the next

    def run(stages: Sequence[Stage]) -> ExecutionResult:
        return execute(stages, store, folder, device=place.device, environment=here,
                       timeout_seconds=options.timeout_seconds, stack=stack, jobs=place.jobs,
                       processes=options.processes, shard=options.shard, executor=place.executor, since=since,
                       log_level=options.log_level, listener=open_view() if options.view else None, plugins=plugins,
                       allow_unsandboxed=options.allow_unsandboxed)

    data = [stage for stage in plan.stages if stage.kind == "data"]
    prepared = {stage.id: store.lookup(stage.kind, stage.key({}), here) for stage in data}
    if any(found is None or found.record.outcome is not Outcome.OK for found in prepared.values()):
        encoded = run(data)
        raise_for_data(data, encoded)  # data that cannot be used stops the trial before anything is trained
        prepared = {stage.id: encoded.found(stage.id) for stage in data}
    of_data = audit_data(study, plan, prepared.get)
    try:
        refuse(of_data)
    except AuditError:
        write_refused(folder, len(data), len(plan.stages))
        raise
    if options.within_seconds is not None:
        if decided := looks.seeds_within(options.within_seconds):
            study = study.model_copy(update={"seeds": decided})
        else:
            study = fit_seeds(study, options.within_seconds, run, lambda plan: recorded_in_store(plan, store, here),
                              jobs=place.jobs or place.places(), began=began, relative_to=relative_to,
                              say=_say if options.view else None, forecast=not options.fits)
            looks.decide(study.seeds, options.within_seconds)
        plan = build(study, resolved=Resolved(), relative_to=relative_to)
        with explained(folder):
            write_run_files(folder, study, plan, how, looks.as_json(options.more_seeds_from))
    result = run(plan.stages)
    if result.complete:
        store.drop_cache()
    trial = finish(study, plan, result.found, folder, here, command, figures=options.figures, of_data=of_data)
    if trial.results.status == "complete":
        looks.extension_is_complete()
    shared = {(cell.key.seed, phase.train) for cell in plan.cells for phase in cell.phases}  # cells may share a phase
    trained = Counter(seed for seed, stage in shared if stage in result.computed)
    return replace(trial, corrupt=result.corrupt, trained=trained, failure=nothing_finished(plan, result.found, folder))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def earlier_results(folder: Path) -> Results | None:
    """The results that a run's folder holds; None where there are none, or none that can be read."""
    try:
        return Results.model_validate_json((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finish(study: Study, plan: Plan, lookup: Lookup, folder: Path, here: Environment, command: str, *,
           figures: bool = True, again: bool = False, of_data: Sequence[AuditFinding] | None = None) -> Trial:
    """Everything after the stages: table, analysis, results, report, the selected artifacts.

    Where the results are those that the folder holds already, its report stands, unless it is asked for `again`: from what
    is recorded, and StoreError where the folder's results have more. `of_data`: what the audit found in the data, if it has
    looked.
    """
    made = earlier_results(folder) if again else None  # a report made again tells of the machine that computed
    provenance = {**(made.provenance if made is not None else host_facts(command)),
                  "environment": here.model_dump(), "command": command,
                  **({"bases": dict(plan.origins)} if plan.origins else {})}
    table = collect(study, plan, lookup, provenance)
    looks = Looks(folder, study)
    results = analyse(study, table, looks.earlier, stated_after(folder, study))
    if made is not None and len(results.scores) < len(made.scores):
        raise StoreError(f"{folder / RESULTS_FILE} holds {len(made.scores):,} scores, and only {len(results.scores):,} can be made "
                         "of what the store holds for this run's plan: it stays as it is",
                         "run the study again, which computes what is missing; for a report of what there is, move it away")
    if of_data is None:
        of_data = audit_data(study, plan, lookup)
    of_records = audit_records(study, plan, lookup, table, results)
    every = (*audit(study), *audit_plan(study, plan), *of_data, *of_records)
    results = results.model_copy(update={"audit": tuple(dict.fromkeys(every))})  # each thing once
    if results.status == "complete":
        looks.remember(len(study.seeds))
        remember_showing(folder, study, utc_now())
    text = results.model_dump_json(indent=1) + "\n"
    if not again and _stands(folder, text):
        return Trial(folder, study, results)
    (folder / REPORT_FILE).unlink(missing_ok=True)  # until it is made, there is none
    replace_text(folder / RESULTS_FILE, text)
    write_items(table, folder / ITEMS_FILE)
    link_artifacts(plan, results, lookup, folder / ARTIFACTS)
    build_report(study, results, folder, figures=figures)  # last: where it is, everything is
    return Trial(folder, study, results)


def _stands(folder: Path, results: str) -> bool:
    """Whether the folder holds these results and the report made of them."""
    try:
        return (folder / REPORT_FILE).is_file() and (folder / RESULTS_FILE).read_text(encoding="utf-8") == results
    except OSError:
        return False


def lookup_in_store(plan: Plan, store: Store, here: Environment) -> Lookup:
    """What the store holds for each stage of a plan; selections are followed."""
    found: dict[str, StageInput | None] = {}

    def choice(select: str, key: str) -> str | None:
        entry = store.lookup("select", key, here)
        return entry.record.values.get("chosen") if entry is not None else None

    kinds = {stage.id: stage.kind for stage in plan.stages}
    for stage, key in plan.keys(choice).items():
        found[stage] = store.lookup(kinds[stage], key, here) if key is not None else None
    return found.get


def recorded_in_store(plan: Plan, store: Store, here: Environment) -> Mapping[str, StageInput]:
    """The same without the stages that the store does not hold."""
    found = lookup_in_store(plan, store, here)
    return {stage.id: held for stage in plan.stages if (held := found(stage.id)) is not None}


def raise_for_data(stages: Sequence[Stage], result: ExecutionResult) -> None:
    """Raise DataError where one of these stages did not end well."""
    for stage in stages:
        found = result.found(stage.id)
        if found is not None and found.record.outcome is not Outcome.OK:
            raise DataError(f"{stage.label}: {found.record.message}", "finetrial data STUDY shows the rows and counts")
