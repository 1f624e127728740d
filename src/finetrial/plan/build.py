"""Study -> plan: every stage of the trial, with its identity and its inputs.

For each base, sequence, arm (controls included), learning rate and seed there is a chain of phases (those whose grid
has that rate). A phase is one group: a training stage and its predictions on every task. After a phase a `select` stage
picks the rate from validation over the other seeds; the next phase starts from what it chose, and outputs are generated
at that rate only, as are the losses on test items where the study's evaluation says so.
Stages of equal content are one stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetrial.plan import specs
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.check import check_arm, check_tasks
from finetrial.plan.lines import OF_TEST_ROWS, ArmRun, Builder, Line, arm_runs, runs_along
from finetrial.plan.outputs import outputs_at_chosen, routed, score_outputs, validation_outputs
from finetrial.plan.plan import (
    Plan,
    PlannedCell,
    PlannedLosses,
    PlannedOutputs,
    PlannedPhase,
    PlannedProbe,
    PredictionOf,
)
from finetrial.plan.specs import Resolved
from finetrial.records.table import CellKey
from finetrial.spec.arm import Arm
from finetrial.spec.slots import State, joined_tasks
from finetrial.spec.study import BASE_ARM, Sequence, Study, slot_states
from finetrial.stages.base import Source

__all__ = ["ArmRun", "Resolved", "arm_runs", "build"]

PROFILE_REPEATS = 5
PROFILE_REPEATS_OF = {"demo": 3, "small": 1, "compare": 1}  # by size, where it is not the usual
FLOORS = "floors"  # in the place of an arm, until a record names each
BASE_SEED = 0  # of the untouched base, where its outputs are sampled


def build(study: Study, *, resolved: Resolved | None = None, relative_to: Path | None = None,
          fetch: bool = True) -> Plan:
    """The plan of a study; without `fetch`, with provisional keys where the hub has not been asked yet (`plan/bases.py`).

    Raises UserError where the study cannot be carried out as it is written.
    """
    check_tasks(study)
    builder = Builder(study, resolved or Resolved())
    for written in study.bases:
        base = resolve_base(written, relative_to, fetch=fetch)
        if base.provenance:
            builder.origins[base.name] = base.provenance
        for use in study.tasks:
            spec, task = specs.data(study, base, use, relative_to)
            builder.data[base.name, use.name] = builder.add(
                "data", f"{base.name}/{use.name}", spec, label=f"data of {use.name}",
                locations={"base": str(base.folder), "task": task})
        for arm in study.arms:
            check_arm(study, arm, base)
        _untouched(builder, base)
        for path in study.every_path:
            _along(builder, base, path, runs_along(study, path))
        _profiled(builder, base)
    return builder.plan()


def _untouched(builder: Builder, base: ResolvedBase) -> None:
    """The base before any phase, and the floors beside it: outputs that need no model."""
    owner = f"{base.name}/{BASE_ARM}"
    evaluated = {use.name for use in builder.study.tasks if use.evaluate}
    predictions = _predictions(builder, base, owner, {}, owner, base.name, lambda task: ["latest"], evaluated)
    for path in builder.study.every_path:
        key = CellKey(base.name, BASE_ARM, path.name, None)
        builder.cells.append(PlannedCell(key, "base", [PlannedPhase(0, "", None, predictions)]))
    for use in builder.study.tasks:
        if not specs.output_metrics(use) or not use.evaluate:
            continue
        data = builder.data[base.name, use.name]
        of = PredictionOf(use.name, "test")
        spec = {**specs.model(base, builder.resolved), **specs.ends(base),
                **specs.decoding(builder.study, use, BASE_SEED)}
        generate = builder.add("generate", f"{owner}/{use.name}-test", spec, {"data": data}, group=f"{owner}/outputs",
                               label=f"{base.name} answers {use.name}", locations={"base": str(base.folder)})
        score = score_outputs(builder, f"{owner}/{use.name}-test", use, {"outputs": generate, "data": data})
        floors = score_outputs(builder, f"{base.name}/{FLOORS}/{use.name}-test", use, {"data": data})
        for path in builder.study.every_path:
            where: dict[str, Any] = {"base": base.name, "sequence": path.name, "seed": None, "phase": 0, "of": of}
            builder.outputs.append(PlannedOutputs(**where, arm=BASE_ARM, generate=generate, score=score))
            builder.outputs.append(PlannedOutputs(**where, arm=FLOORS, generate=None, score=floors))


def _along(builder: Builder, base: ResolvedBase, path: Sequence, runs: list[ArmRun]) -> None:
    """All arms along one sequence. Seeds outermost: an interrupted run holds whole replicates."""
    lines = [Line(builder, base, path, run, tuple(slot_states(run.arm, path))) for run in runs]
    chains: dict[tuple[str, int, float], list[PlannedPhase]] = {}
    chooses = any(specs.output_metrics(use) or specs.probe_metrics(use) for use in builder.study.tasks)
    chooses = chooses or any(line.deferred(index) for line in lines for index in range(1, len(path.tasks) + 1))
    for index, task in enumerate(path.tasks, start=1):
        for seed in builder.study.seeds:
            for line in lines:
                for rate in line.run.rates(task):
                    phase = _phase(line, seed, rate, index)
                    chains.setdefault((line.run.name, seed, rate), []).append(phase)
        if index < len(path.tasks) or chooses:
            for line in lines:
                if len(line.run.rates(task)) > 1:
                    _select(line, chains, index)
        for seed in builder.study.seeds:
            for line in lines:
                if line.deferred(index):
                    _losses(line, seed, index)
                if line.run.role != "positive control":
                    outputs_at_chosen(line, seed, index)
                    _probes(line, seed, index)
    for (name, seed, rate), chain in chains.items():
        line = next(line for line in lines if line.run.name == name)
        builder.cells.append(PlannedCell(CellKey(base.name, name, path.name, seed, line.point(rate)),
                                         line.run.role, chain))


def _phase(line: Line, seed: int, rate: float, index: int) -> PlannedPhase:
    builder, base, run, task = line.builder, line.base, line.run, line.path.tasks[index - 1]
    owner = line.owner(seed, f"rate-{rate:g}/phase-{index}-{task}")
    label = f"{run.arm.title if run.role == 'arm' else run.name} at {rate:g}, seed {seed}"
    spec = {**specs.training(builder.study, base, run.arm, task, builder.resolved, line.before(index)),
            "phase": index, "learning_rate": rate, "seed": seed}
    if run.replicate:
        spec["replicate"] = run.replicate
    inputs: dict[str, Source] = {name: builder.data[base.name, learned]
                                 for name, learned in zip(specs.data_inputs(task), joined_tasks(task), strict=True)}
    if index > 1:
        inputs["parent"] = line.chosen(seed, index - 1)
    train = builder.add("train", owner, spec, inputs, group=owner, label=label, locations={"base": str(base.folder)},
                        ignores=OF_TEST_ROWS, activation_checkpointing=builder.study.training_of(run.arm).activation_checkpointing)
    judged = joined_tasks(task) if len(run.rates(task)) > 1 else ()  # validation picks the rate
    evaluated = () if line.deferred(index) else {use.name for use in builder.study.evaluated_along(line.path)}
    predictions = _predictions(builder, base, owner, {"model": train}, owner, label,
                               lambda scored: line.routings(index, scored), evaluated, judged)
    if judged and line.selected_by_outputs(index):
        validation_outputs(line, seed, rate, index, train, label)
    return PlannedPhase(index, task, train, predictions)


def _predictions(builder: Builder, base: ResolvedBase, owner: str, model: Mapping[str, Source], group: str,
                 label: str, routings: Any, evaluated: Collection[str], judged: tuple[str, ...] = (),
                 splits: tuple[str, ...] = ("val", "test")) -> dict[PredictionOf, str]:
    """The losses on every task in `evaluated`; on those in `judged` the validation losses in any case.

    Where both routings take the same instances, one stage stands for both.
    """
    evaluation, found = builder.study.evaluation, {}
    for use in builder.study.tasks:
        for split in evaluation.splits:
            if split not in use.task.splits or split not in splits:
                continue
            if use.name not in evaluated and (use.name not in judged or split != "val"):
                continue
            for routing in routings(use.name):
                spec = {**specs.model(base, builder.resolved), "split": split, "precision": evaluation.precision,
                        **routed(routing, use.name)}
                suffix = "" if routing == "latest" else f"-{routing}"
                found[PredictionOf(use.name, split, routing)] = builder.add(
                    "predict", f"{owner}/{use.name}-{split}{suffix}", spec,
                    {**model, "data": builder.data[base.name, use.name]}, group=group,
                    label=f"{label} on {use.name} ({split})", locations={"base": str(base.folder)},
                    ignores=() if split == "test" else OF_TEST_ROWS)
            if "oracle" in evaluation.routings:
                latest = found[PredictionOf(use.name, split)]
                found.setdefault(PredictionOf(use.name, split, "oracle"), latest)
    return found


def _losses(line: Line, seed: int, index: int) -> None:
    """The losses of test items after a phase, at the rate that was picked."""
    owner = line.owner(seed, f"phase-{index}-outputs")
    evaluated = {use.name for use in line.builder.study.evaluated_along(line.path)}
    found = _predictions(line.builder, line.base, owner, {"model": line.chosen(seed, index)}, owner,
                         f"{line.run.arm.title}, seed {seed},", lambda scored: line.routings(index, scored), evaluated,
                         splits=("test",))
    line.builder.losses += [PlannedLosses(**line.at_chosen(seed, index, of), predict=stage)
                            for of, stage in found.items()]


def _probes(line: Line, seed: int, index: int) -> None:
    """How far the arm has moved from its base after a phase, at the rate that was picked: on every task that asks for it.

    The first one looks at the weights too.
    """
    builder, base, run = line.builder, line.base, line.run
    group = line.owner(seed, f"phase-{index}-outputs")
    asking = [use for use in builder.study.evaluated_along(line.path) if specs.probe_metrics(use)]
    for number, use in enumerate(asking):
        spec = {**specs.model(base, builder.resolved), "split": "test", **({} if number else {"weights": True})}
        inputs = {"model": line.chosen(seed, index), "data": builder.data[base.name, use.name]}
        probe = builder.add("probe", f"{group}/{use.name}", spec, inputs, group=group,
                            label=f"{run.arm.title}, seed {seed}, against its base on {use.name}",
                            locations={"base": str(base.folder)})
        at = line.at_chosen(seed, index, PredictionOf(use.name, "test"))
        builder.probes.append(PlannedProbe(**at, probe=probe))


def _select(line: Line, chains: Mapping[tuple[str, int, float], list[PlannedPhase]], index: int) -> None:
    """One choice for each seed, from validation of every seed and rate on the task just trained: predictions, or where rates
    are selected by a metric the scores of outputs."""
    builder, run = line.builder, line.run
    tasks, options = joined_tasks(line.path.tasks[index - 1]), run.options(line.path.tasks[index - 1])
    phases = {(option, seed): next(p for p in chains[run.name, seed, rate] if p.index == index)
              for option, rate in options.items() for seed in builder.study.seeds}
    by_outputs = line.selected_by_outputs(index)
    inputs: dict[str, Source] = {
        f"rate={option}/seed={seed}/task={task}":
            "score/" + line.validation_name(seed, option, index, task) if by_outputs
            else phases[option, seed].predictions[PredictionOf(task, "val")]
        for option in options for seed in builder.study.seeds for task in tasks}
    metric = {"metric": specs.primary_scorer(builder.study.task(tasks[0]))} if by_outputs else {}
    for seed in builder.study.seeds:
        spec = {"seed": seed, "seeds": list(builder.study.seeds), "options": list(options), "tasks": list(tasks), **metric}
        builder.add("select", line.select_id(seed, index).removeprefix("select/"), spec, inputs,
                    label=f"rate of {run.name}, seed {seed}")


def _profiled(builder: Builder, base: ResolvedBase) -> None:
    """Cost, measured apart: repeats are the outer loop, so that the arms are interleaved."""
    repeats = PROFILE_REPEATS_OF.get(builder.study.size, PROFILE_REPEATS)
    for repeat, arm, path, index in _profile_grid(builder.study, repeats):
        task, held = path.tasks[index], (State(), *slot_states(arm, path))
        trained = specs.training(builder.study, base, arm, task, builder.resolved, held[index])
        spec = {**specs.profiled(trained, builder.study.training_of(arm)), "repeat": repeat,
                "predict_precision": builder.study.evaluation.precision}
        if index:
            spec["before"] = [{"task": done, "components": specs.components(arm, done, state)}
                              for done, state in zip(path.tasks[:index], held, strict=False)]
        stage = builder.add("profile", f"{base.name}/{arm.name}/{task}/repeat-{repeat}", spec,
                            {"data": builder.data[base.name, task]}, exclusive=True, label=f"cost of {arm.title}",
                            locations={"base": str(base.folder)}, ignores=OF_TEST_ROWS)
        builder.profiles.setdefault((base.name, arm.name, task), []).append(stage)


def _profile_grid(study: Study, repeats: int) -> Iterator[tuple[int, Arm, Sequence, int]]:
    """(repeat, arm, sequence, place in it): each task where it first occurs in the sequences of an arm."""
    first: dict[tuple[str, str], tuple[Arm, Sequence, int]] = {}
    for arm in study.arms:
        for path in study.paths:
            for index, task in enumerate(path.tasks):
                if arm in study.arms_along(path) and len(joined_tasks(task)) == 1 and study.task(task).evaluate:
                    first.setdefault((arm.name, task), (arm, path, index))
    for repeat in range(repeats):
        yield from ((repeat, *place) for place in first.values())
