"""What each arm costs: exact parameters and bytes, and the median of what its profile measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome, Record
from finetrial.records.results import Cost
from finetrial.spec.study import Study
from finetrial.stages.base import Lookup

MEASURED = ("tokens_per_second", "predict_tokens_per_second", "swap_seconds", "peak_host_bytes",
            "peak_device_allocated_bytes", "peak_device_reserved_bytes")  # by a profile, in each of its repeats


def costs(study: Study, plan: Plan, lookup: Lookup) -> list[Cost]:
    """What every arm costs on every task that it was profiled on."""
    return [_cost(study, plan, base, arm, task, stages, lookup)
            for (base, arm, task), stages in plan.profiles.items()]


def _cost(study: Study, plan: Plan, base: str, arm: str, task: str, stages: Any, lookup: Lookup) -> Cost:
    """Parameters and bytes are exact; speed is the median over the profile's repeats."""
    found = [lookup(stage) for stage in stages]
    every = [None if one is None or one.record.outcome is not Outcome.OK else one.record for one in found]
    profiles = [record for record in every if record is not None]
    trained = _trained(plan, base, arm, task, lookup)
    values = [record.values for record in profiles]
    rate, predicted = _median(values, "tokens_per_second"), _median(values, "predict_tokens_per_second")
    test = _test_tokens(plan, base, task, lookup)
    tokens = [record.values["tokens"] for record in trained]
    precision = study.training_of(study.arm(arm)).precision
    record = next(iter([*profiles, *trained]), None)
    return Cost(
        base=base, arm=arm, task=task, precision=precision,
        device=record.environment.device if record else None,
        params_total=_first(values, "params_total") or _first([r.values for r in trained], "params_total"),
        params_trainable=_first(values, "params_trainable") or _first([r.values for r in trained], "params_trainable"),
        stored_bytes=_first([r.values for r in trained], "stored_bytes"),
        optimizer_bytes=_first(values, "optimizer_bytes"),
        train_tokens=int(statistics.median(tokens)) if tokens else None,
        tokens_per_second=rate,
        train_seconds=statistics.median(tokens) / rate if tokens and rate else None,
        tuning_seconds=sum(tokens) / rate if tokens and rate else None,
        predict_tokens=test, predict_tokens_per_second=predicted,
        predict_seconds=test / predicted if test and predicted else None,
        swap_seconds=_median(values, "swap_seconds"),
        repeats={name: tuple(None if record is None else record.values.get(name) for record in every)
                 for name in MEASURED if any(row.get(name) is not None for row in values)},
        peak_host_bytes=_median_int(values, "peak_host_bytes"),
        peak_device_allocated_bytes=_median_int(values, "peak_device_allocated_bytes"),
        peak_device_reserved_bytes=_median_int(values, "peak_device_reserved_bytes"))


def _test_tokens(plan: Plan, base: str, task: str, lookup: Lookup) -> int | None:
    """The tokens of a task's test items, context included."""
    data = lookup(plan.data[base, task])
    splits = data.record.values.get("splits", {}) if data is not None else {}
    found: int | None = splits.get("test", {}).get("num_tokens")
    return found


def _trained(plan: Plan, base: str, arm: str, task: str, lookup: Lookup) -> list[Record]:
    """The finished training stages of one arm on one task, over rates and seeds, along the sequence that has most."""
    along: dict[str, dict[str, Record]] = {}
    for cell in (cell for cell in plan.cells if (cell.key.base, cell.key.arm) == (base, arm)):
        for stage in (phase.train for phase in cell.phases if phase.task == task and phase.train):
            if (found := lookup(stage)) is not None and found.record.outcome is Outcome.OK:
                along.setdefault(cell.key.sequence, {})[stage] = found.record
    return max((list(records.values()) for records in along.values()), key=len, default=[])


def _first(values: list[Mapping[str, Any]], name: str) -> int | None:
    return next((int(row[name]) for row in values if row.get(name) is not None), None)


def _median(values: list[Mapping[str, Any]], name: str) -> float | None:
    known = [float(row[name]) for row in values if row.get(name) is not None]
    return statistics.median(known) if known else None


def _median_int(values: list[Mapping[str, Any]], name: str) -> int | None:
    median = _median(values, name)
    return None if median is None else int(median)
