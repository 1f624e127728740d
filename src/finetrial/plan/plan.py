"""A plan: the stages of a study in an order that respects their inputs, and which stages make up each cell.

Keys follow from content alone. A stage behind a `select` has no key before the selection is recorded; the plan shows
it as "selected rate".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finetrial.records.results import Point
from finetrial.records.table import CellKey
from finetrial.stages.base import Chosen, InputKeys, Source, Stage

Choice = Callable[[str, str], str | None]  # (id of a select stage, its key) -> the option it chose, if recorded


@dataclass(frozen=True)
class PredictionOf:
    """Which prediction a stage makes."""

    task: str
    split: str
    routing: str = "latest"


@dataclass(frozen=True, kw_only=True)
class AtChosen:
    """What one cell gives after one phase at the rate that validation chose, known once it has."""

    base: str
    arm: str
    sequence: str
    seed: int | None
    phase: int
    of: PredictionOf
    select: str | None = None  # the stage that chooses the rate; None where there is one rate, or none
    points: Mapping[str, Point] = field(default_factory=dict)  # option of `select` (or "") -> point


@dataclass(frozen=True, kw_only=True)
class PlannedOutputs(AtChosen):
    """What it generates for one task."""

    generate: str | None  # None for floors, which need no model
    score: str


@dataclass(frozen=True, kw_only=True)
class PlannedLosses(AtChosen):
    """Its losses on one task, where they are not taken at every rate."""

    predict: str


@dataclass(frozen=True, kw_only=True)
class PlannedProbe(AtChosen):
    """How far it has moved from its base, on one task."""

    probe: str


@dataclass(frozen=True)
class PlannedPhase:
    """One phase of a cell: the training stage (none for the untouched base) and its predictions."""

    index: int  # 0 = the untouched base
    task: str
    train: str | None
    predictions: Mapping[PredictionOf, str]


@dataclass(frozen=True)
class PlannedCell:
    """A cell at a point, with the stages that fill its row of the score table."""

    key: CellKey
    role: str  # "base", "arm", "positive control", "A/A"
    phases: Sequence[PlannedPhase]


@dataclass(frozen=True)
class Plan:
    """Everything that will be done, and where each result belongs."""

    stages: Sequence[Stage]
    cells: Sequence[PlannedCell]
    profiles: Mapping[tuple[str, str, str], Sequence[str]] = field(default_factory=dict)  # (base, arm, task) -> ids
    outputs: Sequence[PlannedOutputs] = ()
    losses: Sequence[PlannedLosses] = ()
    probes: Sequence[PlannedProbe] = ()
    data: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (base, task) -> id
    origins: Mapping[str, str] = field(default_factory=dict)  # base -> repository and commit, of those of the hub

    def keys(self, choice: Choice = lambda select, key: None) -> dict[str, str | None]:
        """The key of every stage; None where it waits for a selection that is not recorded."""
        return keys_of(self.stages, choice)

    def describe(self) -> dict[str, Any]:
        """JSON-like content for plan.json."""
        keys = self.keys()
        return {"origins": dict(self.origins),
                "stages": [{"id": stage.id, "kind": stage.kind, "version": stage.version, "key": keys[stage.id],
                            "group": stage.group, "label": stage.label, "spec": dict(stage.spec), "ignores": list(stage.ignores),
                            "inputs": {name: _describe(source) for name, source in stage.inputs.items()}}
                           for stage in self.stages]}

    def as_described(self, described: Mapping[str, Any]) -> Plan:
        """The same plan with the identity that its stages had when they were described: keys are those of then, whatever has
        become of data, bases and versions since. Stages that were not planned then stay as they are."""
        now = {stage.id: stage for stage in self.stages}
        then = [replace(now.get(stage.id, stage), version=stage.version, spec=stage.spec, inputs=stage.inputs,
                        ignores=stage.ignores)
                for stage in described_stages(described)]
        known = stage_ids(then)
        return replace(self, stages=[*then, *(stage for stage in self.stages if stage.id not in known)],
                       origins=described["origins"])


def keys_of(stages: Iterable[Stage], choice: Choice = lambda select, key: None) -> dict[str, str | None]:
    """The key of every stage, in an order that respects their inputs; None where it waits for a selection."""
    keys: dict[str, str | None] = {}
    seen: dict[str, Stage] = {}
    of_inputs = InputKeys()
    for stage in stages:
        seen[stage.id] = stage
        known = {}
        for name, source in stage.inputs.items():
            found = _resolve(source, keys, choice)
            if found is not None and (key := keys[found]) is not None:
                known[name] = of_inputs.of(stage, seen[found], key)
        keys[stage.id] = stage.key(known) if len(known) == len(stage.inputs) else None
    return keys


def described_stages(described: Mapping[str, Any]) -> list[Stage]:
    """The stages that `Plan.describe` told of: identity, id, group and label. Raises KeyError for what is no plan."""
    return [Stage(row["id"], row["kind"], row["version"], row["spec"],
                  {name: source if isinstance(source, str) else Chosen(source["chosen_by"], source["among"])
                   for name, source in row["inputs"].items()}, row["group"], row["label"],
                  ignores=tuple(row.get("ignores", ())))
            for row in described["stages"]]


def deduplicate(plan: Plan) -> Plan:
    """One stage for each key: a stage whose key another has already is replaced by the first everywhere."""
    keys = plan.keys()
    first: dict[str, str] = {}
    same: dict[str, str] = {}
    for stage in plan.stages:
        key = keys[stage.id]
        same[stage.id] = first.setdefault(key, stage.id) if key is not None else stage.id
    # What is no part of the key may differ between equal stages: what one of them asks for, the one that stays has.
    checkpointing = {same[stage.id] for stage in plan.stages if stage.activation_checkpointing}
    kept = [replace(stage, inputs={name: _renamed(source, same) for name, source in stage.inputs.items()},
                    activation_checkpointing=stage.id in checkpointing)
            for stage in plan.stages if same[stage.id] == stage.id]
    cells = [replace(cell, phases=[_renamed_phase(phase, same) for phase in cell.phases]) for cell in plan.cells]
    profiles = {cost: [same[stage] for stage in stages] for cost, stages in plan.profiles.items()}
    same_select = {row.select: row.select and same[row.select] for row in (*plan.outputs, *plan.losses, *plan.probes)}
    outputs = [replace(row, generate=row.generate and same[row.generate], score=same[row.score],
                       select=same_select[row.select]) for row in plan.outputs]
    losses = [replace(row, predict=same[row.predict], select=same_select[row.select]) for row in plan.losses]
    probes = [replace(row, probe=same[row.probe], select=same_select[row.select]) for row in plan.probes]
    data = {place: same[stage] for place, stage in plan.data.items()}
    return replace(plan, stages=kept, cells=cells, profiles=profiles, outputs=outputs, losses=losses, probes=probes,
                   data=data)


def _resolve(source: Source, keys: Mapping[str, str | None], choice: Choice) -> str | None:
    if isinstance(source, str):
        return source
    key = keys[source.select]
    option = choice(source.select, key) if key is not None else None
    return source.among[option] if option is not None else None


def _renamed(source: Source, same: Mapping[str, str]) -> Source:
    if isinstance(source, str):
        return same[source]
    return Chosen(same[source.select], {option: same[stage] for option, stage in source.among.items()})


def _renamed_phase(phase: PlannedPhase, same: Mapping[str, str]) -> PlannedPhase:
    predictions = {which: same[stage] for which, stage in phase.predictions.items()}
    return replace(phase, train=same[phase.train] if phase.train else None, predictions=predictions)


def _describe(source: Source) -> Any:
    return source if isinstance(source, str) else {"chosen_by": source.select, "among": dict(source.among)}


def stage_ids(stages: Iterable[Stage]) -> set[str]:
    """The ids of some stages."""
    return {stage.id for stage in stages}
