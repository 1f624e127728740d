"""Padding as target: the model is praised for writing filler.

Batches pad outside the targets, always. Filler that is in the data itself shows as targets that end in one and the same
few tokens, over and over, in many rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared, TaskData, Tokens, target
from finetrial.spec.study import Study

REPEATS = 4
LONGEST_FILLER_TOKENS = 8
FILLED_SHARE = 0.2  # of rows
MOST_ROWS = 1_000


class PaddingTrainedOn(Rule):
    """Targets end where the text ends."""

    summary: ClassVar[str] = "targets end in filler"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A threat where more than a fifth of the rows end in four or more repeats of one filler."""
        for task in data.once:
            for split in ("train", "test") if task.is_learned else ("test",):
                share = filled_share(task, split)
                if share > FILLED_SHARE:
                    yield Found("threat", f"{share:.0%} of the {split} targets of {task.use.name} end in the same "
                                          "filler, repeated: padding is trained on and scored; strip it from the data",
                                f"tasks.{task.use.name}")
                    break


def filled_share(task: TaskData, split: str) -> float:
    """The share of rows whose target ends in the commonest filler."""
    rows = task.rows(split)
    count = min(len(rows), MOST_ROWS)
    fillers = Counter(filler for row in range(count) if (filler := _filler(target(rows, row))) is not None)
    return max(fillers.values(), default=0) / max(1, count)


def _filler(tokens: Tokens) -> tuple[int, ...] | None:
    """The shortest run of tokens that a target ends with at least four times, the closing token aside."""
    tail = tokens[-(REPEATS * LONGEST_FILLER_TOKENS + 1):].tolist()
    for kept in (tail, tail[:-1]):
        for width in range(1, min(LONGEST_FILLER_TOKENS, len(kept) // REPEATS) + 1):
            end = kept[-width:]
            if kept[-REPEATS * width:] == end * REPEATS:
                return min(tuple(end[at:] + end[:at]) for at in range(width))  # where it begins does not matter
    return None
