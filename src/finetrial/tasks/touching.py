"""Prompts and completions that touch: used as they are written, they would be one word to the model.

A space or a line break belongs between them, at the end of the prompt or the beginning of the completion. Where prompts end
in an opening bracket, or completions begin with a comma, and in scripts that write no spaces (wide characters), none is missing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from finetrial.tasks.base import Example

TOUCH = "prompt and completion touch"  # how the note begins
NEARLY_ALL, FEWEST_ROWS = 0.95, 10
SHOWN_CHARACTERS = 30
PROMPT_ENDS, COMPLETION_GOES_ON = ".,;:?!", ".,;:?!)]}'\""
MEND = "end the prompt, or begin the completion, with a space or a line break"


def touching_note(examples: Sequence[Example]) -> tuple[str, ...]:
    """A note, with an example, where the prompt and completion of nearly all pairs touch; nothing otherwise. Conversations and
    texts line by line have marks or a line break between."""
    pairs = [(row.fields["prompt"], row.fields["completion"]) for row in examples
             if not {"cue", "history"} & row.fields.keys()]
    touching = [pair for pair in pairs if _touch(*pair)]
    if len(pairs) < FEWEST_ROWS or len(touching) < NEARLY_ALL * len(pairs):
        return ()
    prompt, completion = touching[0]
    shown = f"{_cut(prompt, at_end=True)!r} + {_cut(completion, at_end=False)!r}"
    return (f"{TOUCH} in {len(touching)} of {len(pairs)} rows ({shown}), and are joined as they are written; {MEND}",)


def is_touching(notes: Iterable[str]) -> str:
    """The note of it among those of a data set; '' if there is none."""
    return next((note for note in notes if note.startswith(TOUCH)), "")


def _touch(prompt: str, completion: str) -> bool:
    last, first = prompt[-1:], completion[:1]
    if not last or not first or first.isspace() or first in COMPLETION_GOES_ON:
        return False
    return (last.isalnum() or last in PROMPT_ENDS) and not any(unicodedata.east_asian_width(sign) in "WF" for sign in (last, first))


def _cut(text: str, *, at_end: bool) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"...{text[-SHOWN_CHARACTERS:]}" if at_end else f"{text[:SHOWN_CHARACTERS]}..."
