"""What one unit of an arm's budget costs, by which budgets are matched: operations by config.json, seconds by profiles."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from finetrial.errors import ModelError, SpecError, UserError
from finetrial.plan.bases import ResolvedBase
from finetrial.plan.forecast.operations import training_operations
from finetrial.plan.forecast.shapes import read_shapes
from finetrial.plan.forecast.trained import trained_by
from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.spec.arm import Arm
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import Study
from finetrial.stages.base import StageInput

UnitCost = Callable[[str, Arm, str], float]  # base, arm, phase -> what one unit of the arm's budget costs


def operations_of(study: Study, arm: Arm, bases: Mapping[str, ResolvedBase]) -> UnitCost:
    """Operations of training, as the forecast counts them; rows are taken to be full. `arm` is the one that is matched."""

    def operations(base: str, one: Arm, task: str) -> float:
        config, settings = bases[base].config, study.training_of(one)
        shapes = read_shapes(config)
        trained = trained_by(one.trained_methods(task), shapes, config) if shapes is not None else None
        tokens = 1 if settings.budget.unit == "tokens" else settings.batch_sequences * settings.sequence_length * (
            2 if config.get("is_encoder_decoder") else 1)
        known = None if shapes is None or trained is None else \
            training_operations(shapes, trained, tokens, settings.sequence_length)
        if known is None:
            raise ModelError(f"arm {arm.name}: match: the operations of {one.name} on {base} cannot be told from its "
                             "config.json", "match on tokens or train_time, or set the budgets yourself")
        return known

    return operations


def seconds_of(study: Study, plan: Plan, recorded: Mapping[str, StageInput]) -> UnitCost:
    """Seconds of a step, or of a token, by the medians of the recorded profiles."""

    def seconds(base: str, arm: Arm, task: str) -> float:
        if len(joined_tasks(task)) > 1 or not study.task(task).evaluate:
            why = "trains several tasks in one phase" if len(joined_tasks(task)) > 1 else "is not evaluated"
            problem = f"match: {task} {why}, and such phases are not profiled; match on tokens or flops"
            raise SpecError(f"arm {arm.name}", [problem])
        stages = plan.profiles.get((base, arm.name, task), ())
        records = [recorded[stage].record for stage in stages if stage in recorded]
        values = [record.values for record in records if record.outcome is Outcome.OK]
        if not values:
            raise UserError(f"a match on train_time needs measured speeds, and none of {arm.name} on {base}, {task}, is "
                            f"recorded for this device", f"measure them first: finetrial profile {study.name} (the study's "
                            "name or file, with the same options and --device)")
        if study.training_of(arm).budget.unit == "steps":
            return statistics.median(float(row["step_seconds"]) for row in values)
        return 1 / statistics.median(float(row["tokens_per_second"]) for row in values)

    return seconds
