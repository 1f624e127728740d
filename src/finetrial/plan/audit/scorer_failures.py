"""Items that a metric could not score, and metrics that say the same of everything.

A failure is missing, never 0. Comparisons are made on the items that all arms have, so items that one arm lacks more
often than others are a choice that nobody made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.records.table import Floats
from finetrial.spec.study import Study

MISSING_WARNING, MISSING_THREAT = 0.01, 0.1  # shares of the items
APART = 0.05  # arms whose shares differ by more are compared on a choice of items
ARMS_FOR_CONSTANT = 2


class ScorerFailures(Rule):
    """Every metric has a value for nearly every item, and not always the same."""

    summary: ClassVar[str] = "a metric could not score some items, or gives all of them the same value"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """Missing shares of each task and metric, and metrics without any spread on one task only."""
        missing, values = _read(records)
        for (task, metric), by_arm in missing.items():
            worst = max(by_arm, key=lambda arm: by_arm[arm])
            apart = by_arm[worst] - min(by_arm.values())
            if by_arm[worst] > MISSING_WARNING:
                serious = by_arm[worst] > MISSING_THREAT or apart > APART
                yield Found("threat" if serious else "warning",
                            f"{metric} could not score {by_arm[worst]:.0%} of the test items of {task} for {worst} (and "
                            f"{min(by_arm.values()):.0%} at best): arms are compared on the rest; look into the scorer",
                            f"tasks.{task}")
        flat = {place for place, by_arm in values.items()
                if len(by_arm) >= ARMS_FOR_CONSTANT and len({value for pair in by_arm.values() for value in pair}) == 1}
        for task, metric in sorted(flat):
            elsewhere = [other for other, name in values if name == metric and (other, name) not in flat]
            value = next(iter(values[task, metric].values()))[0]
            yield Found("warning" if elsewhere else "note",
                        f"{metric} is {value:g} for every test item of {task} in every arm"
                        + (f", and not on {elsewhere[0]}: the scorer may have failed without a word" if elsewhere else
                           ": it cannot tell the arms apart"), f"tasks.{task}")


Place = tuple[str, str]  # task, metric


def _read(records: Recorded) -> tuple[dict[Place, dict[str, float]], dict[Place, dict[str, tuple[float, float]]]]:
    """By task and metric: the largest missing share of each arm, and the smallest and largest value of any item."""
    missing: dict[Place, dict[str, float]] = defaultdict(dict)
    values: dict[Place, dict[str, tuple[float, float]]] = defaultdict(dict)
    for scores in records.table.scores:
        if scores.statistics is None or scores.split != "test" or not len(scores.items):
            continue
        place, arm = (scores.task, scores.metric), scores.cell.arm
        scored = np.isfinite(scores.statistics).all(axis=1)
        missing[place][arm] = max(missing[place].get(arm, 0.0), 1 - float(scored.mean()))
        if scored.any():
            low, high = _ends(records.table.metrics[scores.metric].aggregate(scores.statistics[scored]))
            before = values[place].get(arm, (low, high))
            values[place][arm] = (min(low, before[0]), max(high, before[1]))
    return missing, values


def _ends(values: Floats) -> tuple[float, float]:
    return float(values.min()), float(values.max())
