"""A prompt that is cut at its right end loses what asks for the answer.

Rows that fit show how prompts end (a cue such as "Summary:"); rows that were cut must end so too. A task with segments
of its own cuts the document and keeps the cue; a prompt given in one piece has nothing else to cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared, TaskData, Tokens, context, is_plain
from finetrial.spec.study import Study
from finetrial.tasks.encoded import TokenDataset

LONGEST_CUE_TOKENS = 64
ROWS_TO_KNOW_A_CUE = 5
TOLERATED_SHARE = 0.01


class TruncatedCues(Rule):
    """Every prompt ends as the prompts that fit do."""

    summary: ClassVar[str] = "prompts are cut where they ask for the answer"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A threat where cut prompts lost their cue; a note where prompts without a fixed end were cut."""
        for task in data.tasks:
            splits = ["train", "test"] if task.is_learned else ["test"]
            for split in [*splits, "test-prompts"] if task.has_prompts else splits:
                if _num_cut(task, split):
                    yield from _check(task, split)


def _num_cut(task: TaskData, split: str) -> int:
    of_split, _, prompts = split.partition("-")
    return task.report(of_split)["num_prompts_cut" if prompts else "num_cut"]


def _check(task: TaskData, split: str) -> Iterator[Found]:
    if is_plain(task, split.partition("-")[0]):
        return
    whole = [one for of_split in task.splits for one, is_full in _contexts(task, of_split) if not is_full and len(one) > 1]
    cut = [one for one, is_full in _contexts(task, split) if is_full]
    if not cut:
        return
    known = len(whole) >= ROWS_TO_KNOW_A_CUE
    num_rows, where = len(task.rows(split)), f"tasks.{task.use.name}.max_tokens"
    prompts = f"of {num_rows} prompts of {task.use.name} ({split}) are cut to {task.max_tokens} tokens"
    lost = lost_ends(cut, whole, closing=int(task.is_encoder_decoder))
    if lost:
        yield Found("threat" if lost > TOLERATED_SHARE * num_rows else "warning",
                    f"{lost} {prompts} and have {'lost the end that all others have' if known else 'no end in common'}: the model "
                    "is not asked for the answer; raise max_tokens, or let the document be cut instead of the prompt", where)
    elif known and not len(common_end(whole)):
        yield Found("note", f"{len(cut)} {prompts}, and prompts have no end in common: a question that stands at the end is lost "
                            "with it; raise max_tokens, or put it first", where)


def lost_ends(cut: Sequence[Tokens], whole: Sequence[Tokens], *, closing: int) -> int:
    """How many of the prompts that were cut do not ask for the answer, as the whole ones do; where there are too few to know
    how, as the cut ones do among themselves, beside the `closing` tokens that the tokenizer puts behind every text."""
    empty = sum(len(one) <= 1 for one in cut)
    left = [one for one in cut if len(one) > 1]
    if len(whole) >= ROWS_TO_KNOW_A_CUE:
        cue = common_end(whole)
        return empty + sum(not ends_with(one, cue) for one in left)
    return len(cut) if len(left) > 1 and len(common_end(left)) <= closing else empty


def _contexts(task: TaskData, split: str) -> list[tuple[Tokens, bool]]:
    """Each prompt, and whether its row, or the prompt itself, is as long as it may be."""
    is_prompt = split.endswith("-prompts")
    room = int(task.stage.spec.get("max_new_tokens", 0)) if is_prompt and not task.is_encoder_decoder else 0
    return contexts_in(task.rows(split), task.max_tokens - room)


def contexts_in(rows: TokenDataset, max_tokens: int) -> list[tuple[Tokens, bool]]:
    """The prompt of each row, and whether what the model reads is as long as it may be."""
    offsets = rows.offsets if rows.source_offsets is None else rows.source_offsets
    full = np.diff(offsets) >= max_tokens
    return [(context(rows, row), bool(full[row])) for row in range(len(rows))]


def common_end(rows: Sequence[Tokens]) -> Tokens:
    """The longest run of tokens with which all rows end."""
    length = min(LONGEST_CUE_TOKENS, *(len(row) for row in rows))
    ends = np.stack([row[len(row) - length:] for row in rows])
    same = (ends == ends[0]).all(axis=0)[::-1]
    count = int(np.argmin(same)) if not same.all() else length
    return np.asarray(ends[0][length - count:], np.int32)


def ends_with(row: Tokens, end: Tokens) -> bool:
    """Whether these are the row's last tokens."""
    return len(row) >= len(end) and bool((row[len(row) - len(end):] == end).all())
