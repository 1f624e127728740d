"""Targets that do not fit: rows dropped for it leave the short ones, plain text cut for it is never read to its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule, Severity
from finetrial.plan.audit.views import Prepared, TaskData, is_plain
from finetrial.spec.study import Study

DROPPED_WARNING, DROPPED_THREAT = 0.1, 0.5  # shares of the rows
LOST_WARNING = 0.25  # share of the target tokens of plain text


class TruncatedTargets(Rule):
    """What is scored and trained on is all of what the task names."""

    summary: ClassVar[str] = "targets are cut off, or rows with long targets dropped"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """Shares of rows and tokens that did not fit, for each task and split."""
        for task in data.tasks:
            for split in ("train", "test") if task.is_learned else ("test",):
                yield from _dropped(task, split)
                if is_plain(task, split):
                    yield from _lost(task, split)


def _dropped(task: TaskData, split: str) -> Iterator[Found]:
    report = task.report(split)
    share = report["num_dropped"] / max(1, report["num_dropped"] + report["num_rows"])
    prompts = report.get("num_dropped_prompts", 0)
    if share > DROPPED_WARNING:
        severity: Severity = "threat" if share > DROPPED_THREAT else "warning"
        dropped = f"{share:.0%} of the {split} rows of {task.use.name} are dropped because"
        if 2 * prompts > report["num_dropped"]:
            yield Found(severity, f"{dropped}, for most of them, what may not be cut of their prompt leaves no room for {task.use.max_new_tokens} "
                                  f"new tokens in {task.max_tokens}: results speak of short prompts only; lower max_new_tokens, or raise "
                                  "max_tokens", f"tasks.{task.use.name}.max_new_tokens")
        else:
            yield Found(severity, f"{dropped} their target does not fit into {task.max_tokens} tokens: results speak of short targets only; "
                                  "raise max_tokens", f"tasks.{task.use.name}.max_tokens")


def _lost(task: TaskData, split: str) -> Iterator[Found]:
    report = task.report(split)
    share = report["num_lost_target_tokens"] / max(1, report["num_lost_target_tokens"] + report["num_target_tokens"])
    if share > LOST_WARNING:
        verb = "trained on" if split == "train" else "scored"
        yield Found("warning" if task.is_learned else "note",
                    f"{share:.0%} of the {split} text of {task.use.name} lies beyond {task.max_tokens} tokens a row and "
                    f"is not {verb}; cut the text into shorter rows, or raise max_tokens",
                    f"tasks.{task.use.name}.max_tokens")
