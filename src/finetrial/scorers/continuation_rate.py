"""Continuation rate: the share of outputs that go on with the document instead of summarising it.

A base that was never taught the task treats its prompt as text to continue. Two signs of that can be read without a
model, both relative to the reference of the item:

- *It begins inside a sentence*: its first character is a lower-case letter or a mark that cannot open a sentence
  (`,` `;` `:` `.` `!` `?` `)` `]` `}` `%`), and that of the reference is not.
- *It runs on*: it has more than twice the words of the reference, and either was still being written when it reached
  the limit of new tokens (`finished` is false), or starts a paragraph more than the reference has.

An output that begins with the first words of the document copies it, and an empty one continues nothing: neither
counts, whatever its length. Texts without the column `finished` (the floors) count as finished.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from finetrial.catalog import name_of
from finetrial.errors import UserError
from finetrial.records.table import Floats
from finetrial.scorers.base import Columns
from finetrial.scorers.outputs import OutputScorer

if TYPE_CHECKING:
    from finetrial.tasks.base import Task

OPENS_NO_SENTENCE = ",;:.!?)]}%"
RUNS_ON = 2.0  # times the words of the reference
OPENING_WORDS = 5  # of output and document, by which a copy is known
PARAGRAPH = re.compile(r"\n\s*\n")


class ContinuationRate(OutputScorer):
    """Outputs that show a sign of continuing over all outputs."""

    unit: ClassVar[str] = "share of outputs"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 0.0
    worst: ClassVar[float] = 1.0
    reads: ClassVar[tuple[str, ...]] = ("output", "reference", "input")
    summary: ClassVar[str] = "share of outputs that go on with the document instead of summarising it"

    @classmethod
    def check(cls, task: Task) -> None:
        """Raise UserError if the task generates nothing, or code."""
        super().check(task)
        if task.target_language != "text":
            raise UserError(f"the metric {name_of(cls)} reads summaries, and the task {name_of(type(task))} generates "
                            f"{task.target_language}", "leave it out; repetition and length-ratio see outputs that run on",
                            code="metric")

    def statistics(self, predictions: Columns) -> Floats:
        """(1 or 0, 1) of each row, [n, 2]."""
        found = super().statistics(predictions)
        finished = predictions.get("finished", [True] * len(found))
        texts = zip(*(predictions[name] for name in self.reads), strict=True)
        for row, (output, reference, document), ended in zip(found, texts, finished, strict=True):
            if np.isfinite(row).all() and ended is not None and not ended:
                row[0] = max(row[0], runs_on(output, reference) and not copies(output, document))
        return found

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """(1 or 0, 1), from the texts alone."""
        output, reference, document = texts
        inside = begins_inside_a_sentence(output) and not begins_inside_a_sentence(reference)
        more_paragraphs = num_paragraphs(output) > num_paragraphs(reference)
        continues = inside or (runs_on(output, reference) and more_paragraphs)
        return float(continues and not copies(output, document)), 1.0


def begins_inside_a_sentence(text: str) -> bool:
    """Whether the first character that is no space is lower case or a mark that no sentence opens with."""
    first = text.lstrip()[:1]
    return first.islower() or (first != "" and first in OPENS_NO_SENTENCE)


def runs_on(output: str, reference: str) -> bool:
    """Whether the output has more than `RUNS_ON` times the words of the reference."""
    return len(output.split()) > RUNS_ON * len(reference.split())


def num_paragraphs(text: str) -> int:
    """Blocks of text between blank lines."""
    return len(PARAGRAPH.split(text.strip()))


def copies(output: str, document: str) -> bool:
    """Whether the output begins with the first words of the document."""
    opening = output.split()[:OPENING_WORDS]
    return bool(opening) and document.split()[:len(opening)] == opening
