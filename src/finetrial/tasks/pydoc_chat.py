"""pydoc-chat: an instruction and a Python function -> its documentation, reply tokens only.

Functions are mined from the embedded corpus (`tasks/sources/`), docstrings removed; the reply is the docstring's first
paragraph and as much of the prose after it as fits into `max_reply_characters`, whole paragraphs never cut inside a
sentence. Clusters are files that share no code and no descriptions with another split. The prompt's framing occurs in
no text that a bundled base was trained on.
"""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field

from finetrial.fingerprint import key_of
from finetrial.tasks.base import ASSISTANT, Example, Examples, Segment, Task, Turn
from finetrial.tasks.pieces import USED_SPLITS, counts

QUESTION = "What does this Python function do? Answer with its documentation.\n\n"
INSTRUCTION = f"User: {QUESTION}"
CUE = "\n\nAssistant:\n"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")


class PydocChat(Task):
    """Instruction -> documentation text."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "instruction + Python function -> its documentation (reply tokens only)"

    is_chat: ClassVar[bool] = True

    max_reply_characters: int = Field(default=400, ge=40)

    def source_digest(self) -> str:
        """The corpus's identity: lock, miner, grammar."""
        from finetrial.tasks.sources.corpus import corpus_digest

        return corpus_digest()

    def load(self) -> Examples:
        """All functions of train, val and test clusters whose summary fits into the reply."""
        from finetrial.tasks.sources.corpus import embedded_corpus

        corpus = embedded_corpus()
        rows = corpus.rows("functions", USED_SPLITS)
        kept = [row for row in rows if len(row["description"]) <= self.max_reply_characters]
        examples = [Example(row["code_key"], row["cluster"], row["split"],
                            {"code": row["code"], "reply": reply(row["description"], row["prose"],
                                                                 self.max_reply_characters)},
                            f"{row['path']}:{row['line']} {row['name']}") for row in kept]
        dropped = {**corpus.report.dropped, "description too long for the reply": len(rows) - len(kept)}
        return Examples(examples, key_of([corpus.digest, self.version, self.model_dump(mode="json")]),
                        counts(examples, dropped, corpus.report.notes))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The function is what may be cut."""
        return (Segment(INSTRUCTION), Segment(example.fields["code"], cuttable=True), Segment(CUE),
                Segment(example.fields["reply"], loss=True))

    def turns(self, example: Example) -> tuple[Turn, ...]:
        """Question and reply."""
        return (Turn("user", (Segment(QUESTION), Segment(example.fields["code"], cuttable=True))),
                Turn(ASSISTANT, (Segment(example.fields["reply"], loss=True),)))


def reply(description: str, prose: str, limit: int) -> str:
    """The summary, and below it as many whole sentences of the prose as fit into `limit` characters."""
    room = limit - len(description) - 2
    taken = ""
    for sentence in SENTENCE_END.split(prose) if prose else ():
        if len(taken) + len(sentence) + bool(taken) > room:
            break
        taken = f"{taken} {sentence}" if taken else sentence
    return f"{description}\n\n{taken}" if taken else description
