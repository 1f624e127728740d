"""oasst1: a conversation with an assistant -> the assistant's next reply, reply tokens only (Köpf et al. 2023).

From the hub (OpenAssistant/oasst1: its train split, whose trees lend val, and its validation split as test) or local
files of messages. A reply becomes a row if

- nothing on the path from it to the root of its tree is deleted, missing, refused in review, or blank;
- the reply itself passed review (where the file has a column for it), and follows a prompter's message;
- reply and path are in `lang`; and, with `replies: best`, no sibling has a lower rank (an unranked one comes last).

The cluster is the tree. Earlier turns may be cut; the last question and the reply are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from finetrial.errors import DataError
from finetrial.tasks.base import ASSISTANT, Example, Segment, Split, Turn
from finetrial.tasks.chat import as_text, conversation, earlier_segments
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id
from finetrial.tasks.published import PublishedTask

if TYPE_CHECKING:
    from finetrial.tasks.sources.records import Record

NAMES = {"prompter": "User: ", "assistant": "Assistant:\n"}
CUE = "\n\nAssistant:\n"
REPLY, QUESTION = "assistant", "prompter"
ROLES = {QUESTION: "user", REPLY: ASSISTANT}  # as chat templates call them
RULES = ("deleted on the path", "path broken", "refused in review", "another language", "blank text",
         "does not follow a prompter", "a sibling ranks higher")


class Oasst1(PublishedTask):
    """Conversation -> the next reply."""

    version: ClassVar[int] = 4
    summary: ClassVar[str] = "conversation -> the assistant's reply (hub: OpenAssistant/oasst1)"
    is_chat: ClassVar[bool] = True
    needed: ClassVar[tuple[str, ...]] = ("message_id", "parent_id", "text", "role", "lang", "message_tree_id")
    perhaps: ClassVar[tuple[str, ...]] = ("rank", "review_result", "deleted")

    repository: str = "OpenAssistant/oasst1"
    lang: str = "en"
    replies: Literal["best", "all"] = "best"

    def hub_files(self) -> Mapping[str, Split]:
        """There is no third split: val is lent by train's trees."""
        return {"data/train-*.parquet": "train", "data/validation-*.parquet": "test"}

    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """The replies that keep the rules, in the order of the messages."""
        dropped.update(dict.fromkeys(RULES, 0))
        by_id = {record.text("message_id"): record for record in records}
        column = self.columns.get("review_result", "review_result")
        reviewed = any(column in record.there for record in records)
        paths: list[list[Record]] = []
        for record in records:
            if record.values["role"] == REPLY:
                path, is_whole = _path(record, by_id)
                broken = self._broken_rule(path, is_whole, reviewed)
                if broken:
                    dropped[broken] += 1
                else:
                    paths.append(path)
        kept = paths if self.replies == "all" else _best(paths)
        dropped["a sibling ranks higher"] += len(paths) - len(kept)
        for path in kept:
            yield _row(path)

    def _broken_rule(self, path: Sequence[Record], is_whole: bool, reviewed: bool) -> str:
        reply = path[-1]
        if any(message.truth("deleted") for message in path):
            return "deleted on the path"
        if not is_whole:
            return "path broken"
        if (reviewed and not reply.truth("review_result")) or any(m.truth("review_result") is False for m in path):
            return "refused in review"
        if any(message.values["lang"] != self.lang for message in path):
            return "another language"
        if not all(str(message.values["text"] or "").strip() for message in path):
            return "blank text"
        if len(path) < 2 or path[-2].values["role"] != QUESTION:
            return "does not follow a prompter"
        return ""

    def render(self, example: Example) -> tuple[Segment, ...]:
        """Earlier exchanges are what may be cut."""
        names = {ROLES[role]: name for role, name in NAMES.items()}
        return (*earlier_segments(example.fields["earlier"], ROLES[QUESTION], names),
                Segment(f"{NAMES[QUESTION]}{example.fields['question']}{CUE}"),
                Segment(example.fields["reply"], loss=True))

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """The whole conversation."""
        fields = example.fields
        return conversation(fields["earlier"], "user", fields["question"], fields["reply"])

    def texts(self, example: Example) -> Mapping[str, str]:
        """A person reads the whole conversation."""
        return {"input": f"{example.fields['history']}{NAMES[QUESTION]}{example.fields['question']}",
                "reference": example.fields["reply"]}


def _path(reply: Record, by_id: Mapping[str, Record]) -> tuple[list[Record], bool]:
    """The messages from the root (or the last one that is there) to the reply, and whether the root is there. Raises
    DataError for a message of neither side."""
    path = [reply]
    while (parent := path[0].optional_text("parent_id")) in by_id and by_id[parent] not in path:
        path.insert(0, by_id[parent])
    for message in path:
        if (role := message.text("role")) not in ROLES:
            raise DataError(f"{message.where}: a message of role {role!r}", f"expected {' or '.join(ROLES)}; leave the others out")
    return path, not parent


def _best(paths: Sequence[list[Record]]) -> list[list[Record]]:
    """For each question the reply of the lowest rank, of equals the first by id."""
    best: dict[str, tuple[tuple[bool, int, str], list[Record]]] = {}
    for path in paths:
        rank = path[-1].integer("rank")
        order = (rank is None, rank or 0, path[-1].text("message_id"))
        question = path[-2].text("message_id")
        if question not in best or order < best[question][0]:
            best[question] = (order, path)
    return [path for _, path in best.values()]


def _row(path: Sequence[Record]) -> LocalRow:
    history = "".join(f"{NAMES[m.text('role')]}{m.text('text').strip()}\n\n" for m in path[:-2])
    earlier = as_text([(ROLES[m.text("role")], m.text("text").strip()) for m in path[:-2]])
    question, reply = path[-2].text("text").strip(), path[-1].text("text").strip()
    return LocalRow(content_id(history, question, reply), path[-1].text("message_tree_id"), history + question,
                    {"history": history, "question": question, "reply": reply, "earlier": earlier},
                    f"{path[-1].where} {path[-1].text('message_id')}")
