"""Conversations in the words of a model: the chat template of its tokenizer, where it has one.

A task of conversations tells its turns (`Task.turns`) beside its plain rendering. What a template writes around them
becomes segments of their own, whose text may spell special tokens; what people wrote may not, and is cut as in the
plain form. The prompt ends where the template asks for a reply; the reply begins with the white space that the template puts
there (Llama 2 and Mistral a space, TinyLlama a line break), and ends with the special token by which
the template closes it, or where there is none with the tokenizer's end token, as every other reply does. A template that writes the date gets always the same one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from itertools import zip_longest
from typing import Any

from finetrial.errors import DataError
from finetrial.tasks.assemble import surrounding_ids
from finetrial.tasks.base import ASSISTANT, SYSTEM, Example, Examples, Segment, Task, Turn

VERSION = 5  # of the rules above: part of the key of data that is made by them
DAY = datetime(2024, 7, 26)  # for templates that write today's date
CLOCK = ("{%- macro strftime_now(form) -%}{{ form"  # in the place of the function of this name that templates may call
         + "".join(f" | replace('{part}', '{DAY.strftime(part)}')" for part in ("%Y", "%y", "%m", "%d", "%B", "%b", "%A", "%a",
                                                                                "%H", "%M", "%S"))
         + " }}{%- endmacro -%}")
HOLDER, HOLDERS = "\ue000{}\ue001", re.compile("\ue000(\\d+)\ue001")  # private use: in no template, and no text of it
QUESTION = [{"role": "user", "content": HOLDER.format(0)}]
REPLY = {"role": ASSISTANT, "content": HOLDER.format(1)}


def in_chat_form(task: Task, tokenizer: Any) -> Task:
    """The task as rendered by the tokenizer's chat template; the task itself where one of them knows no chat."""
    return TemplatedTask(task=task, tokenizer=tokenizer) if task.is_chat and has_template(tokenizer) else task


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a template for plain conversations."""
    template = getattr(tokenizer, "chat_template", None)
    return "default" in template if isinstance(template, dict) else bool(template)


class TemplatedTask(Task):
    """A task whose conversations are rendered by a chat template; rows that are none, plainly."""

    task: Any  # a Task
    tokenizer: Any

    @cached_property
    def around_reply(self) -> tuple[str, str]:
        """What opens a reply and what closes it: the same of every row."""
        return reply_opening(self.tokenizer), closing_mark(self.tokenizer)

    def source_digest(self) -> str:
        """The task's."""
        digest: str = self.task.source_digest()
        return digest

    def load(self) -> Examples:
        """The task's rows."""
        examples: Examples = self.task.load()
        return examples

    def render(self, example: Example) -> tuple[Segment, ...]:
        """Raises DataError for a conversation that the template refuses."""
        turns = self.task.turns(example)
        if not turns:
            plain: tuple[Segment, ...] = self.task.render(example)
            return plain
        try:
            return templated(turns, self.tokenizer, *self.around_reply)
        except DataError as error:
            raise DataError(f"{example.source or example.id}: {error.problem}", error.mend) from error

    def texts(self, example: Example) -> Mapping[str, str]:
        """The task's: people and metrics read it without markup."""
        texts: Mapping[str, str] = self.task.texts(example)
        return texts

    def floors(self, example: Example) -> Mapping[str, str]:
        """The task's."""
        floors: Mapping[str, str] = self.task.floors(example)
        return floors


def templated(turns: Sequence[Turn], tokenizer: Any, opening: str, mark: str) -> tuple[Segment, ...]:
    """The prompt as the template writes it, then the segments of the last turn, which is the assistant's, between its
    `opening` and the `mark` that closes it.

    Raises DataError for turns that the template refuses or leaves out.
    """
    from jinja2 import TemplateError

    assert turns[-1].role == ASSISTANT and all(segment.loss for segment in turns[-1].segments)
    said: list[Segment] = []
    messages = []
    for turn in turns[:-1]:
        holders = [HOLDER.format(len(said) + number) for number in range(len(turn.segments))]
        messages.append({"role": turn.role, "content": "".join(holders)})
        said += turn.segments
    try:
        prompt = _rendered(messages, tokenizer, asks=True)
    except TemplateError as error:
        raise DataError(f"the tokenizer's chat template refuses the turns {', '.join(turn.role for turn in turns)}: "
                        f"{error}", "leave such rows out, or give prompts and completions instead of messages") from error
    parts = HOLDERS.split(_without_opening(prompt, tokenizer))  # markup, number, markup, number, ..., markup
    if [int(number) for number in parts[1::2]] != list(range(len(said))):
        raise DataError("the tokenizer's chat template leaves out or repeats what was said",
                        "give prompts and completions instead of messages")
    written: list[Segment] = []
    for markup, number in zip_longest(parts[::2], parts[1::2]):
        marks = markup if number is None else markup.rstrip(" ")
        if marks:  # it goes with what stands before it: what follows then stands where that began
            written.append(Segment(marks, markup=True, exchange=written[-1].exchange if written else 0))
        if number is not None:  # a space belongs to the word behind it, with which it is one token
            content = said[int(number)]
            written.append(replace(content, text=markup[len(marks):] + content.text))
    closing = (Segment(mark, loss=True, markup=True),) if mark and mark != tokenizer.eos_token else ()
    first, *others = turns[-1].segments
    return (*written, replace(first, text=opening + first.text), *others, *closing)


def reply_opening(tokenizer: Any) -> str:
    """The white space that the tokenizer's chat template writes between where it asks for a reply and the reply; '' where there is
    none, or where more than white space stands there."""
    from jinja2 import TemplateError

    try:
        asked, said = _rendered(QUESTION, tokenizer, asks=True), _rendered([*QUESTION, REPLY], tokenizer)
    except TemplateError:
        return ""
    between = said.partition(HOLDER.format(1))[0].removeprefix(asked)
    return between if between.isspace() else ""


def closing_mark(tokenizer: Any) -> str:
    """The special token by which the tokenizer's chat template closes a reply; '' where it closes with none.

    It is asked to write a question and its reply, and what stands behind the reply is read.
    """
    from jinja2 import TemplateError

    try:
        written = _rendered([*QUESTION, REPLY], tokenizer)
    except TemplateError:  # of the rows' own turns it is told what the template refuses
        return ""
    behind = written.partition(HOLDER.format(1))[2]
    special = set(tokenizer.added_tokens_encoder)
    return next((token for token in tokenizer.tokenize(behind) if token in special and token in behind), "")


def reply_ends(tokenizer: Any) -> list[int]:
    """The id of the token by which the tokenizer's chat template closes a reply; none without either."""
    mark = closing_mark(tokenizer) if has_template(tokenizer) else ""
    return [tokenizer.convert_tokens_to_ids(mark)] if mark else []


def _rendered(messages: Sequence[Mapping[str, str]], tokenizer: Any, *, asks: bool = False) -> str:
    """What the template makes of messages; `asks`: up to where a reply begins. Raises jinja2's TemplateError."""
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=CLOCK + tokenizer.get_chat_template(), tokenize=False, add_generation_prompt=asks,
        date_string=DAY.strftime("%d %b %Y"))
    return text


def _without_opening(prompt: str, tokenizer: Any) -> str:
    """A template may write the token that opens every text of the tokenizer; the encoder puts it there already."""
    opening, _ = surrounding_ids(tokenizer)
    return prompt.removeprefix(tokenizer.bos_token) if opening and tokenizer.bos_token else prompt


def as_text(turns: Sequence[tuple[str, str]]) -> str:
    """(role, what was said) of earlier turns, as a field of an example."""
    return json.dumps([list(turn) for turn in turns], ensure_ascii=False)


def conversation(earlier: str, role: str, question: str, reply: str) -> tuple[Turn, ...]:
    """The turns of a row: those before, which may be cut (`as_text`), the last question of `role`, and the reply."""
    before = [Turn(name, (segment,)) for (name, _), segment in
              zip(json.loads(earlier), earlier_segments(earlier, role), strict=True)]
    return (*before, Turn(role, (Segment(question),)), Turn(ASSISTANT, (Segment(reply, loss=True),)))


def earlier_segments(earlier: str, role: str, names: Mapping[str, str] | None = None) -> tuple[Segment, ...]:
    """What was said before the last question, each with the exchange that it belongs to: one begins wherever the `role` that
    asks it speaks. What comes before the first belongs to none; what the system is
    told is never cut. With `names` as plain text, behind the speaker's name."""
    found, exchange = [], 0
    for name, text in json.loads(earlier):
        exchange += name == role
        found.append(Segment(text if names is None else f"{names[name]}{text}\n\n", cuttable=name != SYSTEM, exchange=exchange))
    return tuple(found)
