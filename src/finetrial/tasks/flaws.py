"""Flaws of published data handling, each an option that is off: for repeating a report as it was made, and for nothing
else. A study that switches one on is refused by the audit, which sees it in the rows, unless the threat is accepted.

| option | what becomes of the rows | the rule that sees it |
|---|---|---|
| `test_rows_from_training` | the test rows are training rows | held-out-rows-in-training |
| `target_as_input` | the prompt is the target itself | target-in-input |
| `prompt_cut_on_the_right` | a prompt that is too long loses its end, the cue | truncated-cues |
| `prompt_scored` | prompt and target are scored | prompt-in-scored-text |
| `padding_scored` | rows are filled up with end tokens, and these are scored | padding-trained-on |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from finetrial.settings import Settings
from finetrial.tasks.base import Example, Examples, Segment, Task
from finetrial.tasks.pieces import counts, stable_draw


class DataFlaws(Settings):
    """What is done wrongly to the rows of a task, on purpose. Without any, rows are what the task says."""

    first_training_rows: int | None = Field(default=None, ge=2)  # the training set is one draw, the same for every seed
    test_rows_from_training: bool = False  # drawn in the same order: the first of the training set
    target_as_input: bool = False
    prompt_cut_on_the_right: bool = False
    prompt_scored: bool = False
    padding_scored: bool = False


NO_FLAWS = DataFlaws()


def flawed(task: Task, flaws: DataFlaws) -> Task:
    """The task with the flaws that lie in its rows; the task itself without any."""
    return task if flaws == NO_FLAWS else FlawedTask(task=task, flaws=flaws)


class FlawedTask(Task):
    """A task whose rows are drawn, rendered and told as its flaws want it. The encoder scores prompts and padding."""

    task: Any  # a Task
    flaws: DataFlaws

    def source_digest(self) -> str:
        """The task's."""
        digest: str = self.task.source_digest()
        return digest

    def load(self) -> Examples:
        """The task's rows; those of the training split cut down, or offered as test rows."""
        found: Examples = self.task.load()
        train = stable_draw(found.split("train"), self.flaws.first_training_rows)
        test = found.split("test")
        if self.flaws.test_rows_from_training:
            test = [replace(row, split="test") for row in train]
        others = [row for row in found.rows if row.split not in ("train", "test")]
        rows = [*train, *others, *test]
        return replace(found, rows=rows, report=counts(rows, found.report.dropped, found.report.notes))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The task's segments, the prompt replaced by the target or open to be cut at its end."""
        segments = self.task.render(example)
        prompt = [segment for segment in segments if not segment.loss]
        targets = [segment for segment in segments if segment.loss]
        if self.flaws.target_as_input and prompt:
            cue = [segment for segment in prompt[-1:] if not segment.cuttable]  # where the input ends
            prompt = [Segment("".join(segment.text for segment in targets if not segment.markup), cuttable=True), *cue]
        if self.flaws.prompt_cut_on_the_right:
            prompt = [replace(segment, cuttable=True) for segment in prompt]
        return (*prompt, *targets)

    def texts(self, example: Example) -> Mapping[str, str]:
        """What people and metrics read: an input that is the target is shown as such."""
        texts = dict(self.task.texts(example))
        return {**texts, "input": texts["reference"]} if self.flaws.target_as_input else texts

    def floors(self, example: Example) -> Mapping[str, str]:
        """The task's; copying means copying the input that is given."""
        floors = dict(self.task.floors(example))
        return {**floors, "copy": self.texts(example)["input"]} if "copy" in floors else floors
