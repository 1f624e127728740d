"""How long the stages that are not recorded will take, one at a time.

By a rate that is given: operations over rate, for training, prediction and generation. Without one, by profiles that
the store holds of the same arm on the same base: tokens over the tokens per second that were measured. What neither
tells is unknown and named; starting, loading, scoring and profiles themselves are not counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetrial.plan import specs
from finetrial.plan.forecast.operations import (
    forward_operations,
    generation_operations,
    training_operations,
)
from finetrial.plan.forecast.sizes import Sizes, prompt_tokens
from finetrial.plan.lines import arm_runs
from finetrial.plan.plan import Plan, PlannedOutputs
from finetrial.spec.arm import Arm
from finetrial.spec.slots import joined_tasks
from finetrial.spec.uses import TaskUse
from finetrial.stages.base import Stage, StageInput
from finetrial.train.config import Training

COUNTED = ("train", "predict", "generate")


@dataclass(frozen=True)
class Work:
    """One stage: its operations, and the seconds it takes. None = unknown."""

    kind: str
    operations: float | None
    seconds: float | None


@dataclass(frozen=True)
class Time:
    """Of all stages to do: `seconds` of those whose time is known, the kinds of which some is not; operations by kind,
    None where one of them is unknown."""

    seconds: float
    unknown: tuple[str, ...]
    source: str  # what the seconds come from; empty: nothing told them
    operations: Mapping[str, float | None]


def forecast_time(sizes: Sizes, plan: Plan, recorded: Mapping[str, StageInput], rate: float | None) -> Time:
    """The time of the stages that are not recorded."""
    works = list(_Works(sizes, plan, recorded, rate).of_stages())
    operations = {kind: _total([work.operations for work in works if work.kind == kind]) for kind in COUNTED}
    known = [work.seconds for work in works if work.seconds is not None]
    unknown = tuple(kind for kind in COUNTED if any(work.seconds is None for work in works if work.kind == kind))
    source = "" if not known else "the given rate" if rate is not None else "profiles in the store"
    return Time(sum(known), unknown, source, operations)


class _Works:
    """Goes through a plan."""

    def __init__(self, sizes: Sizes, plan: Plan, recorded: Mapping[str, StageInput], rate: float | None) -> None:
        self.sizes, self.plan, self.recorded, self.rate = sizes, plan, recorded, rate
        self.arms = {run.name: run.arm for run in arm_runs(sizes.study)}
        self.stages = {stage.id: stage for stage in plan.stages}
        self.speeds = _measured(plan, recorded, "tokens_per_second")
        self.predict_speeds = _measured(plan, recorded, "predict_tokens_per_second")

    def of_stages(self) -> Iterator[Work]:
        done = set(self.recorded)
        for cell in self.plan.cells:
            base, arm = cell.key.base, self.arms.get(cell.key.arm)
            for phase in cell.phases:
                if phase.train and arm is not None and phase.train not in done:
                    done.add(phase.train)
                    yield self._training(self.stages[phase.train], base, arm, phase.task)
                for of, stage in phase.predictions.items():
                    if stage not in done:
                        done.add(stage)
                        yield self._prediction(base, arm, self.sizes.study.task(of.task), of.split)
        for losses in self.plan.losses:
            if losses.predict not in done:
                done.add(losses.predict)
                yield self._prediction(losses.base, self.arms.get(losses.arm), self.sizes.study.task(losses.of.task),
                                       losses.of.split)
        for row in self.plan.outputs:
            if row.generate and row.generate not in done:
                done.add(row.generate)
                yield self._generation(row)

    def _training(self, stage: Stage, base: str, arm: Arm, task: str) -> Work:
        shapes, trained = self.sizes.shapes[base], self.sizes.trained(base, arm, task)
        training = Training.model_validate(stage.spec["training"])
        tokens = self._tokens(stage, training, base, task)
        if tokens is None:
            return Work("train", None, None)
        operations = None if shapes is None or trained is None else \
            training_operations(shapes, trained, tokens, training.sequence_length)
        speed = self.speeds.get((base, arm.name, joined_tasks(task)[0]))
        return Work("train", operations, self._seconds(operations, tokens, speed))

    def _tokens(self, stage: Stage, training: Training, base: str, task: str) -> int | None:
        """The tokens that a phase sees, at most; None where the number of rows is not known."""
        budget = training.budget
        if budget.unit == "tokens":
            return budget.amount
        sides = 2 if self.sizes.bases[base].is_encoder_decoder else 1
        if budget.unit == "steps":
            return budget.amount * training.batch_sequences * training.sequence_length * sides
        rows = [self._rows(stage, base, name, source)
                for name, source in zip(joined_tasks(task), specs.data_inputs(task), strict=True)]
        if None in rows:
            return None
        return budget.amount * sum(row for row in rows if row is not None) * training.sequence_length * sides

    def _rows(self, stage: Stage, base: str, task: str, source: str) -> int | None:
        """The training rows of one task: those asked for, or what the encoded data holds."""
        wanted: int | None = stage.spec.get("num_train", {}).get(source)
        data = self.recorded.get(self.plan.data[base, task])
        held = data.record.values["splits"]["train"]["num_rows"] if data is not None else None
        return min((number for number in (wanted, held) if number is not None), default=None)

    def _prediction(self, base: str, arm: Arm | None, use: TaskUse, split: str) -> Work:
        rows = use.num_scored(split)
        shapes = self.sizes.shapes[base]
        if rows is None:
            return Work("predict", None, None)
        length = use.max_tokens or self.sizes.study.training.sequence_length
        tokens = rows * length * (2 if self.sizes.bases[base].is_encoder_decoder else 1)
        operations = None if shapes is None else forward_operations(shapes, tokens, length)
        measured = [speed for (of_base, of_arm, _), speed in self.predict_speeds.items()
                    if of_base == base and (arm is None or of_arm == arm.name)]
        return Work("predict", operations, self._seconds(operations, tokens,
                                                         statistics.median(measured) if measured else None))

    def _generation(self, row: PlannedOutputs) -> Work:
        shapes, use = self.sizes.shapes[row.base], self.sizes.study.task(row.of.task)
        if shapes is None:
            return Work("generate", None, None)
        rows = (use.num_scored(row.of.split) or 0) * use.num_samples
        prompt = prompt_tokens(self.sizes.study, use, shapes)
        operations = generation_operations(shapes, rows, prompt, use.max_new_tokens, beams=use.num_beams)
        return Work("generate", operations, self._seconds(operations, 0, None))

    def _seconds(self, operations: float | None, tokens: int, speed: float | None) -> float | None:
        if self.rate is not None:
            return None if operations is None else operations / self.rate
        return None if speed is None else tokens / speed


def _measured(plan: Plan, recorded: Mapping[str, StageInput], name: str) -> dict[tuple[str, str, str], float]:
    """A speed by (base, arm, task): the median of the profiles that are recorded."""
    found: dict[tuple[str, str, str], float] = {}
    for place, stages in plan.profiles.items():
        values = [recorded[stage].record.values[name] for stage in stages
                  if stage in recorded and name in recorded[stage].record.values]
        if values:
            found[place] = statistics.median(values)
    return found


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
