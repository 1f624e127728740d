"""Prompts and completions of one's own that touch: the last word of the one and the first of the other become one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared
from finetrial.spec.study import Study
from finetrial.tasks.touching import is_touching


class TouchingPairs(Rule):
    """A model reads where the prompt ends."""

    summary: ClassVar[str] = "prompts and completions are joined without a space or a line break"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A warning where loading noted it; an encoder-decoder reads prompts apart."""
        told: set[str] = set()
        for task in data.tasks:
            note = is_touching(task.values.get("mining", {}).get("notes", ()))
            if note and not task.is_encoder_decoder and task.use.name not in told:
                told.add(task.use.name)
                yield Found("warning", f"{task.use.name}: {note}", f"tasks.{task.use.name}")
