"""Study -> plan: every stage of the trial, with its identity and its inputs.

For each base, sequence, arm (controls included), learning rate and seed there is a chain of phases (those whose grid has
that rate). A phase is one group: a training stage and its predictions on every task. After a phase a `select` stage picks the rate from
validation over the other seeds; the next phase starts from what it chose, and outputs are generated at that rate only.
Stages of equal content are one stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrial import catalog
from finetrial.analysis.naming import aa_name, positive_control_name
from finetrial.plan import specs
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.check import can_go, check_arm, states
from finetrial.plan.plan import Plan, PlannedCell, PlannedOutputs, PlannedPhase, PredictionOf, deduplicate
from finetrial.plan.specs import Resolved
from finetrial.records.results import Point
from finetrial.records.table import CellKey
from finetrial.spec.arm import Arm
from finetrial.spec.slots import Routing, State, answering
from finetrial.spec.study import BASE_ARM, Sequence, Study, joined_tasks
from finetrial.stages.base import Chosen, Source, Stage

__all__ = ["ArmRun", "Resolved", "arm_runs", "build"]

PROFILE_REPEATS = 5
PROFILE_REPEATS_DEMO = 3
FLOORS = "floors"  # in the place of an arm, until a record names each


@dataclass(frozen=True)
class ArmRun:
    """An arm as it is run: one of the study's, or a control made from one, at `factor` times its centre rates."""

    name: str
    arm: Arm
    role: str = "arm"
    replicate: str = ""
    factor: float | None = None  # None: the whole grid

    def rates(self, phase: str) -> tuple[float, ...]:
        """The learning rates of the phase that trains on a task."""
        if self.factor is None:
            return self.arm.rates(phase)
        return (float(f"{self.arm.centre_rate(phase) * self.factor:.12g}"),)

    def options(self, phase: str) -> dict[str, float]:
        """The rates by the names that a `select` stage gives them."""
        return {f"{rate:g}": rate for rate in self.rates(phase)}


@dataclass
class _Builder:
    study: Study
    resolved: Resolved
    stages: list[Stage] = field(default_factory=list)
    cells: list[PlannedCell] = field(default_factory=list)
    profiles: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    outputs: list[PlannedOutputs] = field(default_factory=list)
    data: dict[tuple[str, str], str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, name: str, spec: Mapping[str, Any], inputs: Mapping[str, Source] | None = None,
            **more: Any) -> str:
        """Append a stage and return its id."""
        if kind not in self.versions:
            self.versions[kind] = catalog.find("stage", kind).version  # type: ignore[attr-defined]
        identifier = f"{kind}/{name}"
        self.stages.append(Stage(identifier, kind, self.versions[kind], spec, inputs or {}, **more))
        return identifier


@dataclass(frozen=True)
class _Line:
    """One arm along one sequence on one base: what its phases have in common."""

    builder: _Builder
    base: ResolvedBase
    path: Sequence
    run: ArmRun
    states: tuple[State, ...]  # after phase 1, 2, ...

    def owner(self, seed: int, rest: str) -> str:
        """The readable name of a stage of this line."""
        return f"{self.base.name}/{self.run.name}/{self.path.name}/seed-{seed}/{rest}"

    def train_id(self, seed: int, option: str, index: int) -> str:
        """The id of a training stage."""
        return "train/" + self.owner(seed, f"rate-{option}/phase-{index}-{self.path.tasks[index - 1]}")

    def select_id(self, seed: int, index: int) -> str:
        """The id of the stage that picks the rate of phase `index`."""
        return "select/" + self.owner(seed, f"after-phase-{index}")

    def chosen(self, seed: int, index: int) -> Source:
        """The training stage of phase `index` at the rate that was picked; the only one where there is one rate."""
        options = self.run.options(self.path.tasks[index - 1])
        if len(options) == 1:
            return self.train_id(seed, next(iter(options)), index)
        among = {option: self.train_id(seed, option, index) for option in options}
        return Chosen(self.select_id(seed, index), among)

    def before(self, index: int) -> State:
        """What the slots hold when phase `index` begins."""
        return self.states[index - 2] if index > 1 else State()

    def point(self, rate: float) -> Point:
        """Where in the grid a cell of this line lies."""
        return Point(**specs.as_point(self.builder.study, self.run.arm, rate, self.path.tasks[-1]))

    def routings(self, index: int, task: str) -> list[Routing]:
        """The routings whose answering instances differ after phase `index`; the first one is `latest`."""
        found: list[Routing] = ["latest"]
        state = self.states[index - 1]
        if "oracle" in self.builder.study.evaluation.routings:
            if answering(state, "oracle", task) != answering(state, "latest"):
                found.append("oracle")
        return found


def arm_runs(study: Study) -> list[ArmRun]:
    """The study's arms, then its controls."""
    runs = [ArmRun(arm.name, arm) for arm in study.arms]
    controls = study.controls
    if controls is None:
        return runs
    if controls.positive is not None:
        runs.append(ArmRun(positive_control_name(controls), study.arm(controls.positive.arm), role="positive control",
                           factor=controls.positive.rate_factor))
    runs.append(ArmRun(aa_name(controls), study.arm(controls.reference), role="A/A", replicate="aa/", factor=1.0))
    return runs


def build(study: Study, *, resolved: Resolved | None = None, relative_to: Path | None = None) -> Plan:
    """The plan of a study. Raises UserError where the study cannot be carried out as it is written."""
    builder = _Builder(study, resolved or Resolved())
    for written in study.bases:
        base = resolve_base(written, relative_to)
        for use in study.tasks:
            spec, task = specs.data(study, base, use, relative_to)
            builder.data[base.name, use.name] = builder.add(
                "data", f"{base.name}/{use.name}", spec, label=f"data of {use.name}",
                locations={"base": str(base.folder), "task": task})
        for arm in study.arms:
            check_arm(study, arm, base)
        _untouched(builder, base)
        for path in (*study.paths, *study.control_paths):
            _along(builder, base, path, _runs_along(study, path))
        _profiled(builder, base)
    return deduplicate(Plan(builder.stages, builder.cells, builder.profiles, builder.outputs, builder.data))


def _runs_along(study: Study, path: Sequence) -> list[ArmRun]:
    """The runs of one sequence: arms and controls, or for a sequence that the controls add the arms that can."""
    if path in study.paths:
        return [run for run in arm_runs(study) if run.arm in study.arms_along(path)]
    return [ArmRun(arm.name, arm) for arm in study.arms if can_go(arm, path)]


def _untouched(builder: _Builder, base: ResolvedBase) -> None:
    """The base before any phase, and the floors beside it: outputs that need no model."""
    owner = f"{base.name}/{BASE_ARM}"
    predictions = _predictions(builder, base, owner, {}, owner, base.name, lambda task: ["latest"])
    for path in (*builder.study.paths, *builder.study.control_paths):
        key = CellKey(base.name, BASE_ARM, path.name, None)
        builder.cells.append(PlannedCell(key, "base", [PlannedPhase(0, "", None, predictions)]))
    for use in builder.study.tasks:
        metrics = specs.scored(use)
        if not metrics or not use.evaluate:
            continue
        data = builder.data[base.name, use.name]
        of = PredictionOf(use.name, "test")
        spec = {**specs.model(base, builder.resolved), **_decoding(builder, use.name)}
        generate = builder.add("generate", f"{owner}/{use.name}-test", spec, {"data": data}, group=f"{owner}/outputs",
                               label=f"{base.name} answers {use.name}", locations={"base": str(base.folder)})
        score = _score(builder, f"{owner}/{use.name}-test", metrics, {"outputs": generate, "data": data})
        floors = _score(builder, f"{base.name}/{FLOORS}/{use.name}-test", metrics, {"data": data})
        for path in (*builder.study.paths, *builder.study.control_paths):
            builder.outputs.append(PlannedOutputs(base.name, BASE_ARM, path.name, None, 0, of, generate, score))
            builder.outputs.append(PlannedOutputs(base.name, FLOORS, path.name, None, 0, of, None, floors))


def _along(builder: _Builder, base: ResolvedBase, path: Sequence, runs: list[ArmRun]) -> None:
    """All arms along one sequence. Seeds outermost: an interrupted run holds whole replicates."""
    lines = [_Line(builder, base, path, run, tuple(states(run.arm, path))) for run in runs]
    chains: dict[tuple[str, int, float], list[PlannedPhase]] = {}
    generates = any(specs.output_metrics(use) for use in builder.study.tasks)
    for index, task in enumerate(path.tasks, start=1):
        for seed in builder.study.seeds:
            for line in lines:
                for rate in line.run.rates(task):
                    phase = _phase(line, seed, rate, index)
                    chains.setdefault((line.run.name, seed, rate), []).append(phase)
        if index < len(path.tasks) or generates:
            for line in lines:
                if len(line.run.rates(task)) > 1:
                    _select(line, chains, index)
        for seed in builder.study.seeds:
            for line in lines:
                if line.run.role != "positive control":
                    _outputs(line, seed, index)
    for (name, seed, rate), chain in chains.items():
        line = next(line for line in lines if line.run.name == name)
        builder.cells.append(PlannedCell(CellKey(base.name, name, path.name, seed, line.point(rate)),
                                         line.run.role, chain))


def _phase(line: _Line, seed: int, rate: float, index: int) -> PlannedPhase:
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
    train = builder.add("train", owner, spec, inputs, group=owner, label=label, locations={"base": str(base.folder)})
    judged = joined_tasks(task) if len(run.rates(task)) > 1 else ()  # validation picks the rate
    predictions = _predictions(builder, base, owner, {"model": train}, owner, label,
                               lambda scored: line.routings(index, scored), judged)
    return PlannedPhase(index, task, train, predictions)


def _predictions(builder: _Builder, base: ResolvedBase, owner: str, model: Mapping[str, Source], group: str,
                 label: str, routings: Any, judged: tuple[str, ...] = ()) -> dict[PredictionOf, str]:
    """The losses on every task that is evaluated; on those in `judged` the validation losses in any case.

    Where both routings take the same instances, one stage stands for both.
    """
    evaluation, found = builder.study.evaluation, {}
    for use in builder.study.tasks:
        for split in evaluation.splits:
            if not use.evaluate and (use.name not in judged or split != "val"):
                continue
            for routing in routings(use.name):
                spec = {**specs.model(base, builder.resolved), "split": split, "precision": evaluation.precision,
                        **_routed(routing, use.name)}
                suffix = "" if routing == "latest" else f"-{routing}"
                found[PredictionOf(use.name, split, routing)] = builder.add(
                    "predict", f"{owner}/{use.name}-{split}{suffix}", spec,
                    {**model, "data": builder.data[base.name, use.name]}, group=group,
                    label=f"{label} on {use.name} ({split})", locations={"base": str(base.folder)})
            if "oracle" in evaluation.routings:
                latest = found[PredictionOf(use.name, split)]
                found.setdefault(PredictionOf(use.name, split, "oracle"), latest)
    return found


def _outputs(line: _Line, seed: int, index: int) -> None:
    """What the arm generates after a phase, at the rate that was picked, for every task that generates."""
    builder, base, run = line.builder, line.base, line.run
    model = line.chosen(seed, index)
    points = {option: line.point(rate) for option, rate in run.options(line.path.tasks[index - 1]).items()}
    group = line.owner(seed, f"phase-{index}-outputs")
    for use in builder.study.tasks:
        metrics = specs.scored(use)
        if not metrics or not use.evaluate:
            continue
        data, latest = builder.data[base.name, use.name], None
        for routing in builder.study.evaluation.routings:
            if routing in line.routings(index, use.name) or latest is None:
                name = f"{group}/{use.name}-test{'' if routing == 'latest' else '-' + routing}"
                spec = {**specs.model(base, builder.resolved), **_decoding(builder, use.name),
                        **_routed(routing, use.name)}
                generate = builder.add("generate", name, spec, {"model": model, "data": data}, group=group,
                                       label=f"{run.arm.title}, seed {seed}, answers {use.name}",
                                       locations={"base": str(base.folder)})
                latest = generate, _score(builder, name, metrics, {"outputs": generate, "data": data}, group)
            of = PredictionOf(use.name, "test", routing)
            select = line.select_id(seed, index) if len(points) > 1 else None
            builder.outputs.append(PlannedOutputs(base.name, run.name, line.path.name, seed, index, of, *latest,
                                                  select, points))


def _score(builder: _Builder, name: str, metrics: list[dict[str, Any]], inputs: Mapping[str, Source],
           group: str = "") -> str:
    return builder.add("score", name, {"split": "test", "metrics": metrics}, inputs, group=group,
                       label=f"score {name.rpartition('/')[2]}")


def _decoding(builder: _Builder, task: str) -> dict[str, Any]:
    return {"split": "test", "precision": builder.study.evaluation.precision,
            "max_new_tokens": builder.study.task(task).max_new_tokens}


def _routed(routing: str, task: str) -> dict[str, Any]:
    return {} if routing == "latest" else {"routing": routing, "task": task}


def _select(line: _Line, chains: Mapping[tuple[str, int, float], list[PlannedPhase]], index: int) -> None:
    """One choice for each seed, from the validation predictions of every seed and rate on the task just trained."""
    builder, run = line.builder, line.run
    tasks, options = joined_tasks(line.path.tasks[index - 1]), run.options(line.path.tasks[index - 1])
    phases = {(option, seed): next(p for p in chains[run.name, seed, rate] if p.index == index)
              for option, rate in options.items() for seed in builder.study.seeds}
    inputs: dict[str, Source] = {
        f"rate={option}/seed={seed}/task={task}":
            phases[option, seed].predictions[PredictionOf(task, "val")]
        for option in options for seed in builder.study.seeds for task in tasks}
    for seed in builder.study.seeds:
        spec = {"seed": seed, "seeds": list(builder.study.seeds), "options": list(options), "tasks": list(tasks)}
        builder.add("select", line.select_id(seed, index).removeprefix("select/"), spec, inputs,
                    label=f"rate of {run.name}, seed {seed}")


def _profiled(builder: _Builder, base: ResolvedBase) -> None:
    """Cost, measured apart: repeats are the outer loop, so that the arms are interleaved."""
    repeats = PROFILE_REPEATS_DEMO if builder.study.size == "demo" else PROFILE_REPEATS
    for repeat, arm, path, index in _profile_grid(builder.study, repeats):
        task, held = path.tasks[index], (State(), *states(arm, path))
        spec = {**specs.profiled(specs.training(builder.study, base, arm, task, builder.resolved, held[index])),
                "repeat": repeat}
        if index:
            spec["before"] = [{"task": done, "components": specs.components(arm, done, state)}
                              for done, state in zip(path.tasks[:index], held, strict=False)]
        stage = builder.add("profile", f"{base.name}/{arm.name}/{task}/repeat-{repeat}", spec,
                            {"data": builder.data[base.name, task]}, exclusive=True, label=f"cost of {arm.title}",
                            locations={"base": str(base.folder)})
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
