"""What a plan is built with: the arms as they are run, and one arm along one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetrial import catalog
from finetrial.plan import specs
from finetrial.plan.bases import ResolvedBase
from finetrial.plan.plan import (
    Plan,
    PlannedCell,
    PlannedLosses,
    PlannedOutputs,
    PlannedProbe,
    PredictionOf,
    deduplicate,
)
from finetrial.plan.specs import Resolved
from finetrial.records.results import NATS_PER_TOKEN, Point, Routing
from finetrial.spec.arm import Arm
from finetrial.spec.slots import State, answering
from finetrial.spec.study import Sequence, Study
from finetrial.stages.base import Chosen, Source, Stage

OF_TEST_ROWS = ("num_test",)  # in the specs of data: nothing that is trained or chosen depends on it


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
class Builder:
    study: Study
    resolved: Resolved
    stages: list[Stage] = field(default_factory=list)
    cells: list[PlannedCell] = field(default_factory=list)
    profiles: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    outputs: list[PlannedOutputs] = field(default_factory=list)
    losses: list[PlannedLosses] = field(default_factory=list)
    probes: list[PlannedProbe] = field(default_factory=list)
    data: dict[tuple[str, str], str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, name: str, spec: Mapping[str, Any], inputs: Mapping[str, Source] | None = None,
            **more: Any) -> str:
        """Append a stage and return its id."""
        if kind not in self.versions:
            self.versions[kind] = catalog.find("stage", kind).version  # type: ignore[attr-defined]
        identifier = f"{kind}/{name}"
        self.stages.append(Stage(identifier, kind, self.versions[kind], spec, inputs or {}, **more))
        return identifier


    def plan(self) -> Plan:
        """What was added, equal stages once."""
        return deduplicate(Plan(self.stages, self.cells, self.profiles, self.outputs, self.losses, self.probes,
                                self.data, self.origins))


@dataclass(frozen=True)
class Line:
    """One arm along one sequence on one base: what its phases have in common."""

    builder: Builder
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

    def selected_by_outputs(self, index: int) -> bool:
        """Whether the rate of phase `index` is picked by what the model writes for validation items."""
        return self.builder.study.selection_metric(self.path.tasks[index - 1]) != NATS_PER_TOKEN

    def validation_name(self, seed: int, option: str, index: int, task: str) -> str:
        """The name, without its kind, of the stages that generate and score these outputs at one rate."""
        return self.owner(seed, f"rate-{option}/phase-{index}-{self.path.tasks[index - 1]}/{task}-val")

    def chosen(self, seed: int, index: int) -> Source:
        """The training stage of phase `index` at the rate that was picked; the only one where there is one rate."""
        options = self.run.options(self.path.tasks[index - 1])
        if len(options) == 1:
            return self.train_id(seed, next(iter(options)), index)
        among = {option: self.train_id(seed, option, index) for option in options}
        return Chosen(self.select_id(seed, index), among)

    def deferred(self, index: int) -> bool:
        """Whether what phase `index` gives is evaluated at the rate that is picked only."""
        tuned = len(self.run.rates(self.path.tasks[index - 1])) > 1
        return tuned and not self.builder.study.at_every_rate(self.run.name)

    def at_chosen(self, seed: int, index: int, of: PredictionOf) -> dict[str, Any]:
        """The fields of `AtChosen`."""
        task = self.path.tasks[index - 1]
        options = self.run.options(task)
        return {"base": self.base.name, "arm": self.run.name, "sequence": self.path.name, "seed": seed, "phase": index,
                "of": of, "select": self.select_id(seed, index) if len(options) > 1 else None,
                "points": {option: self.point(rate) for option, rate in options.items()}}

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
        asked = "oracle" in self.builder.study.evaluation.routings
        if asked and answering(state, "oracle", task) != answering(state, "latest"):
            found.append("oracle")
        return found


def arm_runs(study: Study) -> list[ArmRun]:
    """The study's arms, then its controls."""
    runs = [ArmRun(arm.name, arm) for arm in study.arms]
    controls = study.controls
    if controls is None:
        return runs
    if controls.positive is not None:
        runs.append(ArmRun(controls.positive_name, study.arm(controls.positive.arm), role="positive control",
                           factor=controls.positive.rate_factor))
    runs.append(ArmRun(controls.aa_name, study.arm(controls.reference), role="A/A", replicate="aa/", factor=1.0))
    return runs


def runs_along(study: Study, path: Sequence) -> list[ArmRun]:
    """The runs of one sequence: arms and controls, or for a sequence that the controls add the arms that can."""
    if path in study.paths:
        return [run for run in arm_runs(study) if run.arm in study.arms_along(path)]
    return [ArmRun(arm.name, arm) for arm in study.arms_along(path)]
