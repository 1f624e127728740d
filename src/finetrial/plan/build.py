"""Study -> plan: every stage of the trial, with its identity and its inputs.

For each base, sequence, arm (controls included), learning rate and seed there is a chain of phases. A phase is one
group: a training stage and its predictions on every task. Between two phases a `select` stage picks the rate from
validation over the other seeds, and the next phase starts from what it chose. Stages of equal content are one stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrial import catalog
from finetrial.analysis.naming import aa_name, positive_control_name
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.check import check_arm
from finetrial.plan.plan import Plan, PlannedCell, PlannedPhase, PredictionOf, deduplicate
from finetrial.records.results import Point
from finetrial.records.table import CellKey
from finetrial.spec.arm import Arm, Component
from finetrial.spec.model import plugin_identity
from finetrial.spec.study import BASE_ARM, Sequence, Study, TaskUse
from finetrial.stages.base import Chosen, Source, Stage

PROFILE_REPEATS = 5
PROFILE_REPEATS_DEMO = 3


@dataclass(frozen=True)
class Resolved:
    """What the machine decides and the key must know: it changes the last bits of the results."""

    attention: str = "sdpa"
    threads: int = 1


@dataclass(frozen=True)
class ArmRun:
    """An arm as it is run: one of the study's, or a control made from one."""

    name: str
    arm: Arm
    learning_rates: tuple[float, ...]
    role: str = "arm"
    replicate: str = ""


@dataclass
class _Builder:
    study: Study
    resolved: Resolved
    stages: list[Stage] = field(default_factory=list)
    cells: list[PlannedCell] = field(default_factory=list)
    profiles: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, name: str, spec: Mapping[str, Any], inputs: Mapping[str, Source] | None = None,
            **more: Any) -> str:
        """Append a stage and return its id."""
        if kind not in self.versions:
            self.versions[kind] = catalog.find("stage", kind).version  # type: ignore[attr-defined]
        identifier = f"{kind}/{name}"
        self.stages.append(Stage(identifier, kind, self.versions[kind], spec, inputs or {}, **more))
        return identifier


def arm_runs(study: Study) -> list[ArmRun]:
    """The study's arms, then its controls."""
    runs = [ArmRun(arm.name, arm, arm.learning_rates) for arm in study.arms]
    controls = study.controls
    if controls is None:
        return runs
    reference = study.arm(controls.reference)
    if controls.positive is not None:
        arm = study.arm(controls.positive.arm)
        rate = float(f"{arm.centre_rate * controls.positive.rate_factor:.12g}")
        runs.append(ArmRun(positive_control_name(controls), arm, (rate,), role="positive control"))
    runs.append(ArmRun(aa_name(controls), reference, (reference.centre_rate,), role="A/A", replicate="aa/"))
    return runs


def build(study: Study, *, resolved: Resolved | None = None, relative_to: Path | None = None) -> Plan:
    """The plan of a study. Raises UserError where the study cannot be carried out as it is written."""
    builder = _Builder(study, resolved or Resolved())
    for written in study.bases:
        base = resolve_base(written, relative_to)
        data = {use.name: _data(builder, base, use, relative_to) for use in study.tasks}
        for arm in study.arms:
            check_arm(study, arm, base)
        _untouched(builder, base, data)
        _adapted(builder, base, data)
        _profiled(builder, base, data)
    return deduplicate(Plan(builder.stages, builder.cells, builder.profiles))


def _data(builder: _Builder, base: ResolvedBase, use: TaskUse, relative_to: Path | None) -> str:
    """Paths are told apart from identity: the data is known by its digest."""
    task = use.task.located(relative_to)
    written = plugin_identity(task)
    identity = {name: value for name, value in written.items() if name not in task.path_options}
    max_tokens = use.max_tokens or builder.study.training.sequence_length
    spec = {"task": {**identity, "version": type(task).version}, "source": task.source_digest(),
            "tokenizer": base.tokenizer_digest, "max_tokens": max_tokens, "num_val": use.num_val,
            "num_test": use.num_test}
    return builder.add("data", f"{base.name}/{use.name}", spec, label=f"data of {use.name}",
                       locations={"base": str(base.folder), "task": json.dumps(written)})


def _predictions(builder: _Builder, base: ResolvedBase, data: Mapping[str, str], owner: str, train: str | None,
                 group: str, label: str) -> dict[PredictionOf, str]:
    evaluation, found = builder.study.evaluation, {}
    inputs: dict[str, Source] = {"model": train} if train else {}
    for task, data_id in data.items():
        for split in evaluation.splits:
            spec = {"base": base.weights_digest, "split": split, "precision": evaluation.precision,
                    "attention": builder.resolved.attention, "threads": builder.resolved.threads}
            found[PredictionOf(task, split)] = builder.add(
                "predict", f"{owner}/{task}-{split}", spec, {**inputs, "data": data_id}, group=group,
                label=f"{label} on {task} ({split})", locations={"base": str(base.folder)})
    return found


def _untouched(builder: _Builder, base: ResolvedBase, data: Mapping[str, str]) -> None:
    owner = f"{base.name}/{BASE_ARM}"
    phase = PlannedPhase(0, "", None, _predictions(builder, base, data, owner, None, owner, base.name))
    for path in builder.study.paths:
        key = CellKey(base.name, BASE_ARM, path.name, None)
        builder.cells.append(PlannedCell(key, "base", [phase]))


def _adapted(builder: _Builder, base: ResolvedBase, data: Mapping[str, str]) -> None:
    """Seeds outermost: an interrupted run holds whole replicates."""
    runs = arm_runs(builder.study)
    for path in builder.study.paths:
        phases: dict[tuple[str, int, float], list[PlannedPhase]] = {}
        for index, task in enumerate(path.tasks, start=1):
            for seed in builder.study.seeds:
                for run in runs:
                    for rate in run.learning_rates:
                        parent = _parent(builder, base, path, run, seed, index)
                        phase = _phase(builder, base, data, path, run, seed, rate, index, task, parent)
                        phases.setdefault((run.name, seed, rate), []).append(phase)
            if index < len(path.tasks):
                _select(builder, base, path, runs, phases, index, task)
        for (name, seed, rate), chain in phases.items():
            run = next(run for run in runs if run.name == name)
            key = CellKey(base.name, name, path.name, seed, _point(builder.study, run, rate, path))
            builder.cells.append(PlannedCell(key, run.role, chain))


def _phase(builder: _Builder, base: ResolvedBase, data: Mapping[str, str], path: Sequence, run: ArmRun, seed: int,
           rate: float, index: int, task: str, parent: Source | None) -> PlannedPhase:
    owner = f"{base.name}/{run.name}/{path.name}/seed-{seed}/rate-{rate:g}/phase-{index}-{task}"
    label = f"{run.arm.title if run.role == 'arm' else run.name} at {rate:g}, seed {seed}"
    spec = {**_training_spec(builder, base, run.arm, task), "learning_rate": rate, "seed": seed}
    if run.replicate:
        spec["replicate"] = run.replicate
    inputs: dict[str, Source] = {"data": data[task], **({"parent": parent} if parent is not None else {})}
    train = builder.add("train", owner, spec, inputs, group=owner, label=label,
                        locations={"base": str(base.folder)})
    return PlannedPhase(index, task, train, _predictions(builder, base, data, owner, train, owner, label))


def _training_spec(builder: _Builder, base: ResolvedBase, arm: Arm, task: str) -> dict[str, Any]:
    spec = {"base": base.weights_digest, "attention": builder.resolved.attention,
            "threads": builder.resolved.threads,
            "components": [_component(component) for component in arm.for_task(task)],
            "training": builder.study.training_of(arm).model_dump(mode="json", exclude_defaults=True)}
    num_train = builder.study.task(task).num_train
    return spec if num_train is None else {**spec, "num_train": num_train}


def _component(component: Component) -> dict[str, Any]:
    method = {**plugin_identity(component.method), "version": type(component.method).version}
    return {"slot": component.slot, "carry": component.carry.value, "method": method}


def _select_id(base: ResolvedBase, path: Sequence, run: ArmRun, seed: int, index: int) -> str:
    return f"{base.name}/{run.name}/{path.name}/seed-{seed}/after-phase-{index}"


def _parent(builder: _Builder, base: ResolvedBase, path: Sequence, run: ArmRun, seed: int, index: int) -> Source | None:
    if index == 1:
        return None
    among = {f"{rate:g}": f"train/{base.name}/{run.name}/{path.name}/seed-{seed}/rate-{rate:g}"
                          f"/phase-{index - 1}-{path.tasks[index - 2]}" for rate in run.learning_rates}
    return Chosen(f"select/{_select_id(base, path, run, seed, index - 1)}", among)


def _select(builder: _Builder, base: ResolvedBase, path: Sequence, runs: list[ArmRun],
            phases: Mapping[tuple[str, int, float], list[PlannedPhase]], index: int, task: str) -> None:
    """One choice for each arm and seed, from the validation predictions of every seed and rate."""
    for run in runs:
        inputs: dict[str, Source] = {
            f"rate={rate:g}/seed={seed}": phases[run.name, seed, rate][index - 1].predictions[PredictionOf(task, "val")]
            for rate in run.learning_rates for seed in builder.study.seeds}
        for seed in builder.study.seeds:
            spec = {"seed": seed, "seeds": list(builder.study.seeds),
                    "options": [f"{rate:g}" for rate in run.learning_rates]}
            builder.add("select", _select_id(base, path, run, seed, index), spec, inputs,
                        label=f"rate of {run.name}, seed {seed}")


def _point(study: Study, run: ArmRun, rate: float, path: Sequence) -> Point:
    components = run.arm.for_task(path.tasks[0])
    ranks = {rank for component in components if (rank := getattr(component.method, "rank", None)) is not None}
    return Point(learning_rate=rate, rank=ranks.pop() if len(ranks) == 1 else None,
                 num_train=study.task(path.tasks[0]).num_train)


def _profiled(builder: _Builder, base: ResolvedBase, data: Mapping[str, str]) -> None:
    """Cost, measured apart: repeats are the outer loop, so that the arms are interleaved."""
    repeats = PROFILE_REPEATS_DEMO if builder.study.size == "demo" else PROFILE_REPEATS
    for repeat, arm, task in _profile_grid(builder.study, repeats):
        spec = {**_training_spec(builder, base, arm, task), "repeat": repeat}
        stage = builder.add("profile", f"{base.name}/{arm.name}/{task}/repeat-{repeat}", spec, {"data": data[task]},
                            exclusive=True, label=f"cost of {arm.title}", locations={"base": str(base.folder)})
        builder.profiles.setdefault((base.name, arm.name, task), []).append(stage)


def _profile_grid(study: Study, repeats: int) -> Iterator[tuple[int, Arm, str]]:
    learned = dict.fromkeys(task for path in study.paths for task in path.tasks)
    for repeat in range(repeats):
        for arm in study.arms:
            for task in learned:
                yield repeat, arm, task
