"""Test rows that a phase trains on, or that its learning rate is chosen by, measure memory.

Equal rows and near-duplicates (runs of 5 tokens, Jaccard at least 0.7) are looked for in the training rows of every task
that is learned, whichever task the test rows belong to, and between a task's own validation and test rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule, Severity
from finetrial.plan.audit.overlap import Index, Twin
from finetrial.plan.audit.views import Prepared, TaskData, sequences
from finetrial.spec.study import Study
from finetrial.tasks.local import HELD_OUT_ELSEWHERE  # how tasks of local files count the rows that they left out

HELD_OUT = ("val", "test")
TOLERATED_SHARE = 0.01  # of near-duplicates, above which they are a threat; an equal row always is


class HeldOutRowsInTraining(Rule):
    """No held-out row is trained on, or nearly."""

    summary: ClassVar[str] = "test rows, or near-duplicates of them, are in training or validation"

    def check(self, study: Study) -> Iterator[Found]:
        """A threat for each task that names one file for two splits."""
        for use in study.tasks:
            files = {split: getattr(use.task, split, None) for split in ("train", *HELD_OUT)}
            given = {split: str(Path(name)) for split, name in files.items() if isinstance(name, str)}
            for split in HELD_OUT:
                same = [other for other in given if other != split and given[other] == given.get(split)]
                if same:
                    yield Found("threat", f"{use.name} takes {split} and {same[0]} from one file, {given[split]}; give "
                                          "one `path` and let splits be made", f"tasks.{use.name}")
                    break

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """Threats and warnings for each task with held-out rows in training."""
        for task in data.once:
            yield from _left_out(task)
            yield from _between_held_out(task)
        for trained in (task for task in data.once if task.is_learned):
            training = Index(sequences(trained.rows("train")))
            for task in data.once:
                for split in HELD_OUT:
                    if split not in task.splits or (split == "test" and not task.use.evaluate):
                        continue
                    held_out = sequences(task.rows(split))
                    yield from _found(training.twins(held_out), task, split, trained, "train", len(held_out))


def _left_out(task: TaskData) -> Iterator[Found]:
    """The files of two splits had rows in common. The task left them out of one, but the files' author meant otherwise."""
    dropped = task.values.get("mining", {}).get("dropped", {}).get(HELD_OUT_ELSEWHERE, 0)
    if dropped:
        yield Found("warning", f"{dropped} rows of {task.use.name} have a prompt or document that test, or for training rows "
                               "validation, holds out; they are left out, but the files were cut from one another: check "
                               "that no other rows were", f"tasks.{task.use.name}")


def _between_held_out(task: TaskData) -> Iterator[Found]:
    if task.is_learned:
        val, test = (sequences(task.rows(split)) for split in HELD_OUT)
        yield from _found(Index(val).twins(test), task, "test", task, "val", len(test))


def _found(pairs: Sequence[Twin], task: TaskData, split: str, other: TaskData, there: str,
           num_rows: int) -> Iterator[Found]:
    if not pairs:
        return
    exact = sum(pair.is_exact for pair in pairs)
    serious = split == "test" and there == "train" and (exact or len(pairs) > TOLERATED_SHARE * num_rows)
    severity: Severity = "threat" if serious else "warning"
    rows, others = task.rows(split), other.rows(there)
    first = pairs[0]
    counted = f"{exact} equal, {len(pairs) - exact} nearly" if exact else "nearly equal"
    yield Found(severity, f"{len(pairs)} of {num_rows} {split} rows of {task.use.name} are in {there} of "
                          f"{other.use.name} ({counted}); such as {rows.items[first.held_out]} and "
                          f"{others.items[first.other]}; put rows that belong together into one cluster",
                f"tasks.{task.use.name}")
