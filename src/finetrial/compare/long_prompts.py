"""Rows whose prompt does not fit, and would be cut where it asks for the answer.

A prompt that is given in one piece loses its right end where it is too long. Where prompts end alike (a cue, a closing
brace), the audit refuses training on what has lost it (`plan/audit/truncated_cues.py`); a comparison leaves such rows out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from finetrial.compare.inspect import SAMPLE_ROWS, Inspected, has_too_few, rewritten
from finetrial.errors import DataError
from finetrial.plan.audit.truncated_cues import ROWS_TO_KNOW_A_CUE, common_end, contexts_in, ends_with, lost_ends
from finetrial.tasks.assemble import Form
from finetrial.tasks.base import Example
from finetrial.tasks.chat import in_chat_form

MARKS = 8  # tokens of a row, at most, that stand for none of its bytes
MOST_LEFT_OUT = 0.5  # of the rows: beyond it a comparison would speak of short prompts only


def without_long_prompts(data: Inspected, name: str, tokenizer: Any, max_tokens: int, form: Form, folder: Path) -> Inspected:
    """The same, without the rows that would be cut to `max_tokens` and lose the end that the prompts which fit have.

    Where rows are left out, the others are written to files in `folder`, which the study then reads (`rewritten`). Raises
    DataError where more than half would be left out, or too few are left.
    """
    cut = _without_their_end(data, tokenizer, max_tokens, form)
    if not cut:
        return data
    rows = data.examples.rows
    left = [row for row in rows if row.id not in cut]
    if len(cut) > MOST_LEFT_OUT * len(rows) or has_too_few(left):
        raise DataError(f"{len(cut)} of {len(rows)} prompts of {name} are longer than {max_tokens} tokens, and cut they would "
                        "lose the end that asks for the answer", "shorten what the prompts hold, or leave the longest rows out")
    found = rewritten(data, left, name, folder, tokenizer)
    found = replace(found, long_tokens=data.long_tokens, num_shared=data.num_shared, num_long=data.num_long + len(cut))
    return without_long_prompts(found, name, tokenizer, max_tokens, form, folder)  # in one piece with its cue a prompt may be longer


def _without_their_end(data: Inspected, tokenizer: Any, max_tokens: int, form: Form) -> set[str]:
    """The ids of rows whose prompt loses the end that those of training rows which fit have."""
    from finetrial.tasks.encode import encode_examples

    task = in_chat_form(data.task, tokenizer) if form == "decoder" else data.task
    long = [row for row in data.examples.rows if "completion" in row.fields and _num_bytes(row) + MARKS > max_tokens]
    if not long:
        return set()
    candidates, _ = encode_examples(task, long, tokenizer, max_tokens, form=form)
    is_cut = dict(zip(candidates.items, contexts_in(candidates, max_tokens), strict=True))
    sample, _ = encode_examples(task, data.examples.split("train")[:SAMPLE_ROWS], tokenizer, max_tokens, form=form)
    whole = [tokens for tokens, is_full in contexts_in(sample, max_tokens) if not is_full and len(tokens) > 1]
    cut = {row: tokens for row, (tokens, is_full) in is_cut.items() if is_full}
    if len(whole) < ROWS_TO_KNOW_A_CUE:
        lost = lost_ends([*cut.values()], whole, closing=int(form == "encoder-decoder"))
        return {*cut} if lost == len(cut) else {row for row, one in cut.items() if len(one) <= 1}
    cue = common_end(whole)
    return {row for row, tokens in cut.items() if not ends_with(tokens, cue)}


def _num_bytes(row: Example) -> int:
    return sum(len(text.encode()) for text in row.fields.values())
