"""Rows of a user's data file, known by its columns: plain text, prompts with completions, or conversations.

    text                    plain text, one document a row
    prompt, completion      the completion, given the prompt
    messages                a list of {role, content}: the last assistant message, given those before it
    two files, no tables    each line of the first the prompt, the same line of the second its completion

Any of them may have `id`, and `cluster` for what must stay in one split, answers that are programs `test`. A file holds one kind of rows. `columns` says
how the file calls a column: {prompt: question, completion: answer}.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from finetrial.errors import DataError, unknown
from finetrial.tasks.sources.records import (
    UNREADABLE,
    Record,
    columns_of,
    is_table,
    iterate_records,
    missing_column,
    place_of_columns,
    text_lines,
    whole_texts,
)

Kind = Literal["text", "pairs", "messages"]
COLUMNS: Mapping[Kind, tuple[str, ...]] = {"pairs": ("prompt", "completion"), "messages": ("messages",), "text": ("text",)}
READ_BY: Mapping[Kind, str] = {"pairs": "prompt-completion", "messages": "prompt-completion", "text": "text"}  # kinds of tasks
BESIDE = ("id", "cluster")
TEST = "test"  # code that tells whether an answer is right
OTHER_TABLES = (".tsv", ".xlsx", ".xls", ".ods", ".arrow", ".feather")  # which nothing here reads
CALLED = ("`columns: {prompt: question, completion: answer}` of the task in the study, or --columns "
          "prompt=question,completion=answer of compare")
EXPECTED = '"text", or "prompt" and "completion", or "messages"'
ROLES = {"system": "System: ", "user": "User: ", "assistant": "Assistant:\n"}
REPLY = "assistant"
CUE = f"\n\n{ROLES[REPLY]}"


@dataclass(frozen=True)
class Turns:
    """A conversation: what was said before, the last message before the reply, and the reply; and who said what."""

    history: str
    prompt: str
    reply: str
    earlier: tuple[tuple[str, str], ...]  # (role, content)
    role: str  # of the last message before the reply
    question: str


def kind_of(path: Path, columns: Mapping[str, str]) -> Kind:
    """What a file's first row holds. Raises DataError, with the columns that are there, for one that nothing reads."""
    try:
        check_columns(columns, tuple(COLUMNS))
    except ValueError as error:
        raise DataError(f"{path}: {error}", f"for example {CALLED}") from error
    there, where = columns_of(path)
    found = _kind_in(there, columns)
    if found is not None:
        return found
    for kind in _meant(there, columns):
        lacking = next(name for name in COLUMNS[kind] if columns.get(name, name) not in there)
        wanted = " and ".join(f'"{name}"' for name in COLUMNS[kind])
        raise DataError(missing_column(lacking, columns.get(lacking, lacking), there, where).problem,
                        f"expected {wanted}; say what it is called: `columns: {{{lacking}: NAME}}` in the study, or --columns {lacking}=NAME of compare")
    if SHARE_GPT in there:
        raise DataError(f"{where} has {_listed(there)}; expected {EXPECTED}", SHARE_GPT_FORM)
    raise DataError(f"{where} has {_listed(there)}; expected {EXPECTED}",
                    f"rename the columns, or say what they are called: {CALLED}")


def check_columns(columns: Mapping[str, str], kinds: Sequence[Kind]) -> None:
    """Raises ValueError for a mapping of a column that these kinds of rows do not have."""
    known = [*(name for kind in kinds for name in COLUMNS[kind]), *BESIDE, *([] if {*kinds} == {"text"} else [TEST])]
    for name in columns:
        if name not in known:
            raise ValueError(unknown("column", name, known))


def read_rows(path: Path, kind: Kind, columns: Mapping[str, str], beside: Sequence[str] = BESIDE) -> Iterator[Record]:
    """Every row, with the columns of its kind, and those `beside` that are there. Raises DataError for a row of another kind, or without its columns."""
    named = {name: columns.get(name, name) for name in COLUMNS[kind]}
    for number, record in enumerate(iterate_records(path, (), (*COLUMNS[kind], *beside), columns)):
        for column, name in named.items():
            if name not in record.there:
                where, other = place_of_columns(path, record.where), _kind_in(record.there, columns)
                if other is not None and number == 0:
                    raise DataError(f"{where} has {_listed(record.there)}, expected {_listed(named.values())}",
                                    f"a task of kind {READ_BY[other]} reads it")
                if other is not None:
                    raise DataError(f"{record.where} has {_listed(record.there)}, and the rows before it "
                                    f"{_listed(named.values())}: mixed kinds of rows", "a file holds one kind; make two")
                raise missing_column(column, name, record.there, where)
        yield record


def are_parallel(paths: Sequence[Path]) -> bool:
    """Whether these files are two texts that belong together line by line: two, and neither is a table, of a format that
    is read or not."""
    return len(paths) == 2 and not any(is_table(path) or path.suffix.lower() in OTHER_TABLES for path in paths)


def parallel_lines(prompts: Path, completions: Path) -> Iterator[Record]:
    """Line n of one file as the prompt of line n of the other; lines that are empty in both are left out. Raises DataError
    where one file is longer."""
    lines = zip_longest(text_lines(prompts), text_lines(completions))
    for number, (prompt, completion) in enumerate(lines, start=1):
        if prompt is None or completion is None:
            shorter, longer = (prompts, completions) if prompt is None else (completions, prompts)
            raise DataError(f"{shorter} ends before line {number} of {longer}",
                            "two texts are read line by line, as prompts and completions; to read both as plain text, "
                            "put them into one file")
        if prompt.strip() or completion.strip():
            values = {"prompt": prompt, "completion": completion}
            yield Record(values, f"{prompts} and {completions.name}, line {number}", values)


def row_id(record: Record) -> str:
    """The row's own id, or ''."""
    return _name(record, "id")


def row_cluster(record: Record) -> str:
    """The name of what must stay in one split, or ''."""
    return _name(record, "cluster")


def turns_of(record: Record) -> Turns:
    """The last assistant message of a conversation, and what came before it; what comes after is not used.

    Raises DataError for messages that are none, and for a conversation without a reply or without a question.
    """
    messages = [_message(value, number, record.where) for number, value in enumerate(_messages(record), start=1)]
    replies = [place for place, (role, _) in enumerate(messages) if role == REPLY]
    if not replies:
        raise DataError(f"{record.where}: no message has the role {REPLY!r}, so there is nothing to learn",
                        "leave the row out, or add the reply")
    last = replies[-1]
    if last == 0:
        raise DataError(f"{record.where}: the reply is the first message, so nothing asks for it",
                        "leave the row out, or add the question")
    history = "".join(f"{ROLES[role]}{content}\n\n" for role, content in messages[:last - 1])
    role, content = messages[last - 1]
    return Turns(history, f"{ROLES[role]}{content}{CUE}", messages[last][1], tuple(messages[:last - 1]), role, content)


def _kind_in(there: Collection[str], columns: Mapping[str, str]) -> Kind | None:
    """The first kind all of whose columns are there; one that the mapping speaks of comes before the others."""
    mapped = [kind for kind, wanted in COLUMNS.items() if any(name in columns for name in wanted)]
    for kind in mapped or COLUMNS:
        if all(columns.get(name, name) in there for name in COLUMNS[kind]):
            return kind
    return None


def _meant(there: Collection[str], columns: Mapping[str, str]) -> list[Kind]:
    """The kinds that the mapping speaks of, or of which some columns are there."""
    return [kind for kind, wanted in COLUMNS.items() if any(name in columns or name in there for name in wanted)]


def _messages(record: Record) -> list[Any]:
    value = record.values["messages"]
    if isinstance(value, str):  # as a .csv has it
        try:
            value = whole_texts(json.loads(value), record.where)
        except UNREADABLE as error:
            raise DataError(f'{record.where}: "messages" is a text that is not JSON', _MESSAGE_FORM) from error
    if not isinstance(value, list) or not value:
        raise DataError(f'{record.where}: "messages" is {_short(value)}, expected a list of messages', _MESSAGE_FORM)
    return value


def _message(value: Any, number: int, where: str) -> tuple[str, str]:
    if isinstance(value, Mapping) and {"from", "value"} <= value.keys():
        raise DataError(f'{where}: message {number} is {_short(value)}, expected "role" and "content"', SHARE_GPT_FORM)
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise DataError(f'{where}: message {number} is {_short(value)}, expected "role" and "content"', _MESSAGE_FORM)
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise DataError(f"{where}: message {number} has " + unknown("role", str(role), ROLES), "rename the role")
    if not isinstance(content, str) or not content.strip():
        raise DataError(f'{where}: message {number}: "content" is {_short(content)}, expected a text', _MESSAGE_FORM)
    return role, content.replace("\r\n", "\n").strip()


def _name(record: Record, column: str) -> str:
    value = record.values.get(column)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f'{record.where}: "{column}" is {_short(value)}, expected a text or a whole number', "mend the row")
    return str(value)


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "no columns"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


SHARE_GPT = "conversations"  # the column of ShareGPT's files
SHARE_GPT_FORM = ('rows of ShareGPT are to be rewritten: "conversations" as "messages", in each of them "from" as "role" (human: user, gpt: '
                  'assistant) and "value" as "content"')
_MESSAGE_FORM = 'for example {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
