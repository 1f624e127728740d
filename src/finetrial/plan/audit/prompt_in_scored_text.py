"""Prompts that are scored as if the model had to write them.

A task says which text is the target, so the encoder never scores a prompt. But rows of plain text may be prompts and
replies in one piece, and an output may begin with the prompt it answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared, Recorded, TaskData, is_plain
from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.study import Study
from finetrial.tasks.sources.minhash import run_hashes

PHRASE_TOKENS = 3
PHRASE_SHARE = 0.95  # of rows in which a phrase occurs, once, here or there: only templates have that
MOST_ROWS = 500
FEWEST_ROWS = 20
REPEATED_SHARE = 0.5  # of outputs that begin with the whole input


class PromptInScoredText(Rule):
    """What is scored is the reply, not the prompt."""

    summary: ClassVar[str] = "prompts are part of the text that is trained on or scored"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A warning for plain text in which every row has one and the same phrase once, inside."""
        for task in data.once:
            if not task.is_encoder_decoder and is_plain(task, "test") and _has_template(task):
                yield Found("warning", f"rows of {task.use.name} look like prompt and reply in one piece (one phrase "
                                       "occurs once in nearly every row), and all of it is scored; give `prompt` and "
                                       "`completion` apart (task prompt-completion)", f"tasks.{task.use.name}")

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """A threat where most outputs of an arm begin with their whole input, and references do not."""
        seen: set[tuple[str, str]] = set()
        for outputs in (one for one in records.table.outputs if not one.cell.arm.startswith(FLOOR)):
            place = (outputs.cell.arm, outputs.task)
            written = [(given, output) for given, output in zip(outputs.inputs, outputs.outputs, strict=True)
                       if output and given]
            repeated, right = (_begin_with_input(pairs) for pairs in (written, zip(outputs.inputs, outputs.references, strict=True)))
            if place not in seen and repeated > max(right, REPEATED_SHARE * len(written)):
                seen.add(place)
                yield Found("threat", f"{repeated} of {len(written)} outputs of {place[0]} on {place[1]} begin with their whole input, "
                                      f"and {right} of the references: the model repeats what it is asked, and is scored for it",
                            f"tasks.{place[1]}")


def _begin_with_input(pairs: Iterable[tuple[str, str]]) -> int:
    return sum(bool(given) and text.lstrip().startswith(given.strip()) for given, text in pairs)


def _has_template(task: TaskData) -> bool:
    """Whether some phrase occurs exactly once in nearly every row, at no fixed distance from its beginning or end.

    A header or a footer is at a fixed place; a cue comes after one text and before another.
    """
    rows = task.rows("test")
    count = min(len(rows), MOST_ROWS)
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # phrase -> distances from beginning and end
    for row in range(count if count >= FEWEST_ROWS else 0):
        tokens = rows.ids[rows.offsets[row]:rows.offsets[row + 1]].astype(np.uint64)
        hashes = run_hashes(tokens, PHRASE_TOKENS)
        values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        for phrase, at in zip(values[counts == 1].tolist(), first[counts == 1].tolist(), strict=True):
            places[phrase].append((at, len(hashes) - at))
    return any(len(found) >= PHRASE_SHARE * count and all(len(set(side)) > 1 for side in zip(*found, strict=True))
               for found in places.values())
