"""Arms that were scored on different items differ in the items too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.records.table import ItemScores
from finetrial.spec.study import Study


class UnequalItems(Rule):
    """Every cell of a task, split and metric holds the same items."""

    summary: ClassVar[str] = "arms are scored on different items"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """One threat for each task, split and metric with unequal items."""
        first: dict[tuple[str, str, str, str], ItemScores] = {}
        told: set[tuple[str, str, str]] = set()
        for scores in records.table.scores:
            if scores.statistics is None:
                continue
            other = first.setdefault((scores.cell.base, scores.task, scores.split, scores.metric), scores)
            place = (scores.task, scores.split, scores.metric)
            if place in told or scores.items is other.items or scores.items == other.items:
                continue
            apart = set(scores.items.ids) ^ set(other.items.ids)
            if apart:
                told.add(place)
                yield Found("threat", f"{scores.cell.arm} and {other.cell.arm} are scored on different {scores.split} "
                                      f"items of {scores.task} ({scores.metric}): {len(apart)} are in one only, such as "
                                      f"{min(apart)}; score all arms on the same items", f"tasks.{scores.task}")
