"""From records to the table that the analysis reads: item scores, learning curves, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrial.plan import specs
from finetrial.plan.plan import (
    AtChosen,
    Plan,
    PlannedCell,
    PlannedLosses,
    PlannedOutputs,
    PlannedPhase,
    PlannedProbe,
    PredictionOf,
)
from finetrial.records.parquet import numbers_of, read_table
from finetrial.records.record import Outcome
from finetrial.records.results import NATS_PER_TOKEN, Point, WeightChange
from finetrial.records.table import CellKey, CurvePoint, Items, ItemScores, Metric, Outputs, Table
from finetrial.run.costs import costs
from finetrial.run.outcomes import standing_outcomes
from finetrial.scorers.base import Scorer
from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.study import Study
from finetrial.spec.uses import TaskUse
from finetrial.stages.base import Lookup, StageInput
from finetrial.stages.generate import OUTPUTS
from finetrial.stages.predict import PREDICTIONS
from finetrial.stages.probe import PROBE
from finetrial.stages.score import MODEL, joined, read_columns, read_scores, read_texts, scorer_of


@dataclass
class _Reader:
    """Reads each predictions file once, and shares the item lists of one task and split among all cells."""

    lookup: Lookup
    items: dict[tuple[str, str, str], Items]
    columns: dict[Path, Mapping[str, Any]]

    def read(self, folder: Path) -> Mapping[str, Any]:
        if folder not in self.columns:
            table = read_table(folder / PREDICTIONS)
            self.columns[folder] = {name: table[name].to_pylist() if name in ("item", "cluster")
                                    else numbers_of(table[name]) for name in table.column_names}
        return self.columns[folder]

    def output_items(self, plan: Plan, row: PlannedOutputs) -> Items:
        """The items of a task's outputs: those of its data, in that order."""
        place = (row.base, row.of.task, f"{row.of.split} outputs")
        if place not in self.items:
            data = self.lookup(plan.data[row.base, row.of.task])
            assert data is not None, "outputs without data"
            texts = read_texts(data.folder, row.of.split)
            self.items[place] = Items(tuple(texts["item"]), tuple(texts["cluster"]))
        return self.items[place]

    def items_of(self, base: str, which: PredictionOf, predictions: Mapping[str, Any]) -> Items:
        place = (base, which.task, which.split)
        found = Items(tuple(predictions["item"]), tuple(predictions["cluster"]))
        return self.items.setdefault(place, found) if self.items.get(place, found) == found else found


def collect(study: Study, plan: Plan, lookup: Lookup, provenance: Mapping[str, Any]) -> Table:
    """The table of everything recorded so far. What is missing is absent; what failed carries its outcome."""
    ended = standing_outcomes(plan.stages, lookup)
    reader = _Reader(lookup, {}, {})
    scorers = {use.name: scorers_of(use) for use in study.tasks}
    metrics = {name: scorer.metric() for task in scorers.values() for name, scorer in task.items()}
    of_losses = {use.name: {name: scorers[use.name][name] for name in specs.loss_metrics(use)} for use in study.tasks}
    scores = [score for cell in plan.cells for phase in cell.phases
              for score in _scores(cell, phase, of_losses, reader, ended)]
    scores += [score for row in plan.losses for score in _loss_scores(row, of_losses, reader)]
    scores += [score for row in plan.outputs for score in _output_scores(plan, row, scorers, reader, ended)]
    outputs = [one for row in plan.outputs for one in _written(plan, row, scorers, reader)]
    scores += [score for row in plan.probes for score in _probe_scores(row, scorers, reader)]
    curves = [point for cell in plan.cells for phase in cell.phases for point in _curve(cell, phase, reader.lookup)]
    done = sum(stage.id in ended or lookup(stage.id) is not None for stage in plan.stages)
    return Table(scores, _ordered(metrics), curves, costs(study, plan, lookup), len(plan.stages), done, provenance,
                 outputs=outputs, weight_changes=[change for row in plan.probes for change in _changes(row, lookup)])


def scorers_of(use: TaskUse) -> dict[str, Scorer]:
    """The scorers of a task by name, those of losses and those of outputs."""
    with_options = {row["kind"]: row for row in specs.scored(use)}
    plain = {*specs.loss_metrics(use), *specs.probe_metrics(use)}
    return {name: scorer_of(with_options.get(name, {"kind": name})) for name in specs.metrics(use)
            if name in with_options or name in plain}


def _ordered(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: metrics[name] for name in sorted(metrics)}


def _scores(cell: PlannedCell, phase: PlannedPhase, scorers: Mapping[str, Mapping[str, Scorer]],
            reader: _Reader, ended: Mapping[str, Outcome]) -> Iterator[ItemScores]:
    for which, stage in phase.predictions.items():
        outcome = ended.get(stage) or _outcome(phase, stage, reader.lookup)
        if outcome is not None:
            yield from _scored(cell.key, phase.index, which, outcome, reader.lookup(stage), scorers, reader)


def _loss_scores(row: PlannedLosses, scorers: Mapping[str, Mapping[str, Scorer]],
                 reader: _Reader) -> Iterator[ItemScores]:
    """The losses at the point that was chosen."""
    found = reader.lookup(row.predict)
    if found is not None:
        cell = CellKey(row.base, row.arm, row.sequence, row.seed, _chosen_point(row, reader.lookup))
        yield from _scored(cell, row.phase, row.of, found.record.outcome, found, scorers, reader)


def _scored(cell: CellKey, phase: int, which: PredictionOf, outcome: Outcome, found: StageInput | None,
            scorers: Mapping[str, Mapping[str, Scorer]], reader: _Reader) -> Iterator[ItemScores]:
    """The scores of one prediction, by every metric of losses."""
    predictions = reader.read(found.folder) if found is not None and outcome is Outcome.OK else None
    answered = found.record.values.get("answer_digest") if found is not None else None
    for metric, scorer in scorers[which.task].items():
        items = Items((), ()) if predictions is None else reader.items_of(cell.base, which, predictions)
        statistic = None if predictions is None else np.asarray(scorer.statistics(predictions), np.float64)
        yield ItemScores(cell, phase, which.task, which.split, metric, items, statistic, which.routing, outcome,
                         answered)


def _output_scores(plan: Plan, row: PlannedOutputs, scorers: Mapping[str, Mapping[str, Scorer]],
                   reader: _Reader, ended: Mapping[str, Outcome]) -> Iterator[ItemScores]:
    """The scores of generated outputs: of the point that was chosen, of every floor, for validation of every point; the outcome
    of what failed on the way."""
    found = reader.lookup(row.score)
    if found is None or found.record.outcome is not Outcome.OK:
        return (yield from _failed_outputs(plan, row, scorers[row.of.task], reader.lookup, ended))
    point = _chosen_point(row, reader.lookup)
    items = reader.output_items(plan, row)
    generated = reader.lookup(row.generate) if row.generate else None
    answered = generated.record.values.get("answer_digest") if generated is not None else None
    for who, metrics in read_scores(found.folder).items():
        cell = CellKey(row.base, row.arm if who == MODEL else who, row.sequence, row.seed, point)
        for metric, columns in metrics.items():
            if metric in scorers[row.of.task]:
                yield ItemScores(cell, row.phase, row.of.task, row.of.split, metric, items, columns,
                                 row.of.routing, answer_digest=answered)


def _failed_outputs(plan: Plan, row: PlannedOutputs, scorers: Mapping[str, Scorer], lookup: Lookup,
                    ended: Mapping[str, Outcome]) -> Iterator[ItemScores]:
    ran = [stage.id for stage in plan.stages if stage.kind == "execute" and row.generate in stage.inputs.values()]
    found = [lookup(stage) for stage in (row.generate, *ran, row.score) if stage]
    failed: list[Outcome] = [stage.record.outcome for stage in found if stage is not None and stage.record.outcome is not Outcome.OK]
    if row.of.split == "val":  # the outcome of its training
        failed += [ended[row.score]] if row.score in ended else _of_training(plan, row, lookup)
    if row.generate and failed:
        cell = CellKey(row.base, row.arm, row.sequence, row.seed, _chosen_point(row, lookup))
        for metric in (name for name, scorer in scorers.items() if scorer.needs == "outputs"):
            yield ItemScores(cell, row.phase, row.of.task, row.of.split, metric, Items((), ()), None, row.of.routing, failed[0])


def _of_training(plan: Plan, row: PlannedOutputs, lookup: Lookup) -> list[Outcome]:
    """How the training whose model was to be asked has failed, as it may not fail again: out of time, say."""
    asked = [stage.inputs["model"] for stage in plan.stages if stage.id == row.generate and "model" in stage.inputs]
    found = [lookup(train) for train in asked if isinstance(train, str)]
    return [one.record.outcome for one in found if one is not None and one.record.outcome is not Outcome.OK]


def _written(plan: Plan, row: PlannedOutputs, scorers: Mapping[str, Mapping[str, Scorer]],
             reader: _Reader) -> Iterator[Outputs]:
    """What a model wrote, or what every floor says, with its texts and the value of every metric item by item."""
    found, generated = reader.lookup(row.score), reader.lookup(row.generate) if row.generate else None
    if found is None or found.record.outcome is not Outcome.OK or row.of.split != "test" or (row.generate and generated is None):
        return
    data = reader.lookup(plan.data[row.base, row.of.task])
    assert data is not None, "outputs without data"
    texts = read_texts(data.folder, row.of.split)
    written = {name: column for name, column in texts.items() if name.startswith(FLOOR)} if generated is None else {
        MODEL: joined(texts, read_columns(generated.folder / OUTPUTS))["output"]}
    point, items = _chosen_point(row, reader.lookup), reader.output_items(plan, row)
    for who, metrics in read_scores(found.folder).items():
        values = {metric: scorers[row.of.task][metric].aggregate(statistics).tolist()
                  for metric, statistics in metrics.items() if metric in scorers[row.of.task]}
        cell = CellKey(row.base, row.arm if who == MODEL else who, row.sequence, row.seed, point)
        yield Outputs(cell, row.phase, row.of.task, items, texts["input"], texts["reference"], written[who], values,
                      row.of.routing)


def _probe_scores(row: PlannedProbe, scorers: Mapping[str, Mapping[str, Scorer]], reader: _Reader) -> Iterator[ItemScores]:
    """The divergence from the base of the point that was chosen."""
    found = reader.lookup(row.probe)
    if found is None or found.record.outcome is not Outcome.OK:
        return
    columns = read_columns(found.folder / PROBE)
    cell = CellKey(row.base, row.arm, row.sequence, row.seed, _chosen_point(row, reader.lookup))
    items = reader.items_of(row.base, row.of, columns)
    for metric, scorer in scorers[row.of.task].items():
        if scorer.needs == "probe":
            statistic = np.asarray(scorer.statistics(columns), np.float64)
            yield ItemScores(cell, row.phase, row.of.task, row.of.split, metric, items, statistic,
                             answer_digest=found.record.values["answer_digest"])


def _changes(row: PlannedProbe, lookup: Lookup) -> Iterator[WeightChange]:
    """How far each part of the weights has moved, where the probe looked at them."""
    found = lookup(row.probe)
    if found is not None and found.record.outcome is Outcome.OK:
        for part, change in (found.record.values.get("weight_changes") or {}).items():
            yield WeightChange(base=row.base, arm=row.arm, sequence=row.sequence, seed=row.seed, phase=row.phase,
                               part=part, relative_change=change)


def _chosen_point(row: AtChosen, lookup: Lookup) -> Point:
    """The point that was chosen; an empty one for the base and the floors."""
    select = lookup(row.select) if row.select else None
    if select is not None:
        return row.points[select.record.values["chosen"]]
    return next(iter(row.points.values()), Point())


def _outcome(phase: PlannedPhase, stage: str, lookup: Lookup) -> Outcome | None:
    """The outcome of a prediction: that of its training if that failed; None if it has not been tried."""
    found = lookup(stage)
    if found is not None:
        return found.record.outcome
    trained = lookup(phase.train) if phase.train else None
    if trained is not None and trained.record.outcome is not Outcome.OK:
        return trained.record.outcome
    return None


def _curve(cell: PlannedCell, phase: PlannedPhase, lookup: Lookup) -> Iterator[CurvePoint]:
    found = lookup(phase.train) if phase.train else None
    if found is None:
        return
    for point in found.record.values.get("curve", ()):
        for split in ("train", "val"):
            if point.get(split) is not None:
                yield CurvePoint(cell.key, phase.index, int(point["step"]), phase.task, split, NATS_PER_TOKEN,
                                 float(point[split]), int(point.get("n", 0)))
