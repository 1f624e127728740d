"""Inputs that contain their target: the task is to copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared, TaskData, Tokens, context, target
from finetrial.spec.study import Study

SHORTEST_TARGET_TOKENS = 5
WARNING_SHARE, THREAT_SHARE = 0.2, 0.5


class TargetInInput(Rule):
    """The answer is not in the question."""

    summary: ClassVar[str] = "inputs contain their targets word for word"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """The share of test rows whose whole target stands in the input."""
        for task in data.once:
            share = copied_share(task)
            if share > WARNING_SHARE:
                yield Found("threat" if share > THREAT_SHARE else "warning",
                            f"{share:.0%} of the test inputs of {task.use.name} contain the target word for word: what "
                            "is learned is to copy; take the target out of the input", f"tasks.{task.use.name}")


def copied_share(task: TaskData) -> float:
    """The share of test rows with a target of some length that is found in the input."""
    rows = task.rows("test")
    pairs = [(context(rows, row), target(rows, row)) for row in range(len(rows))]
    judged = [(given, wanted[1:-1]) for given, wanted in pairs  # at its ends a target may be cut into other tokens
              if len(wanted) >= SHORTEST_TARGET_TOKENS + 2 and len(given) > 1]
    return sum(_contains(given, wanted) for given, wanted in judged) / max(1, len(rows))


def _contains(tokens: Tokens, part: Tokens) -> bool:
    text, wanted, width = tokens.tobytes(), part.tobytes(), part.itemsize
    at = text.find(wanted)
    while at % width and at >= 0:
        at = text.find(wanted, at + 1)
    return at >= 0
