"""A tokenizer that loses what it is given: line breaks, runs of spaces, characters that it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared
from finetrial.spec.study import Study

TOLERATED_SHARE = 0.01  # of the bytes


class LossyTokenizer(Rule):
    """What is scored can be written."""

    summary: ClassVar[str] = "the base's tokenizer loses a part of the targets"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A warning where tokens give back less than 99 % of the bytes of test targets."""
        for task in data.tasks:
            if not task.use.evaluate:
                continue
            report = task.report("test")
            num_bytes, num_lost = report.get("num_checked_bytes", 0), report.get("num_lost_bytes", 0)
            if num_lost > TOLERATED_SHARE * num_bytes:
                yield Found("warning", f"the tokenizer of {task.base.name} loses {num_lost / num_bytes:.0%} of the bytes of {task.use.name}'s "
                                       "test targets (line breaks, runs of spaces, characters that it does not know): no output can hold "
                                       "them, perplexity leaves them out, and bits per byte count them though nobody predicts them; take "
                                       "a base that was made for such text, or compare these scores among arms of this base only",
                            f"tasks.{task.use.name}")
