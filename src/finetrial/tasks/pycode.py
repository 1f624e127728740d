"""pycode: what a Python function does, and its signature -> its body, body tokens only.

Functions are mined from the embedded corpus (`tasks/sources/`), docstrings removed. The prompt ends with the signature
on one line, as in HumanEval: what is learned and scored is the code that the description asks for, not copying a name.
The body is written at the left margin, where it is a text that Python parses. Descriptions may be cut; a function whose
body has more than `max_body_characters` is left out, with a count, since a target is never cut.
"""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from finetrial.fingerprint import key_of
from finetrial.tasks.base import Example, Examples, Segment, Task
from finetrial.tasks.pieces import USED_SPLITS, at_margin, counts

INSTRUCTION = "Write the body of this Python function.\n\n"
CUE = "\n\nBody:\n"
MAX_SIGNATURE_CHARACTERS = 200


class Pycode(Task):
    """Description and signature -> body of a Python function."""

    version: ClassVar[int] = 2  # 2: comments in a signature left out
    summary: ClassVar[str] = "description and signature -> body of a Python function"
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "chrf"
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "meteor", "ast-similarity", "syntax-pass-rate", "exact-match",
                                          "length-ratio", "repetition")
    language: ClassVar[str] = "python"

    max_body_characters: int = Field(default=400, ge=40)

    def source_digest(self) -> str:
        """The corpus's identity: lock, miner, grammar."""
        from finetrial.tasks.sources.corpus import corpus_digest

        return corpus_digest()

    def load(self) -> Examples:
        """All functions of train, val and test clusters that are short enough."""
        from finetrial.tasks.sources.corpus import embedded_corpus

        corpus = embedded_corpus()
        dropped = Counter(dict.fromkeys(("body in the line of its signature", "signature over 200 characters",
                                         "body too long"), 0))
        examples = []
        for row in corpus.rows("functions", USED_SPLITS):
            signature, body = parts(row["code"], row["signature"])
            if not body:
                dropped["body in the line of its signature"] += 1
            elif len(signature) > MAX_SIGNATURE_CHARACTERS:
                dropped["signature over 200 characters"] += 1
            elif len(body) > self.max_body_characters:
                dropped["body too long"] += 1
            else:
                said = "\n\n".join(filter(None, (row["description"], row["prose"])))
                examples.append(Example(row["code_key"], row["cluster"], row["split"],
                                        {"description": said, "signature": signature, "body": body},
                                        f"{row['path']}:{row['line']} {row['name']}"))
        return Examples(examples, key_of([corpus.digest, self.version, self.model_dump(mode="json")]),
                        counts(examples, {**corpus.report.dropped, **dropped}, corpus.report.notes))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The description is what may be cut."""
        return (Segment(INSTRUCTION), Segment(example.fields["description"], cuttable=True),
                Segment(f"\n\n{example.fields['signature']}{CUE}"), Segment(example.fields["body"], loss=True))

    def texts(self, example: Example) -> Mapping[str, str]:
        """The signature belongs to what a person reads."""
        return {"input": f"{example.fields['description']}\n\n{example.fields['signature']}",
                "reference": example.fields["body"]}


def parts(code: str, head: str) -> tuple[str, str]:
    """A function's signature on one line, and its lines below that, at the left margin; the latter '' if the body begins
    in the signature's line.

    `head` is the signature as mined: with its whitespace joined, so that a comment in it would swallow what follows.
    """
    lines = code.split("\n")
    for end in range(1, len(lines)):
        if _joined("\n".join(lines[:end])) == head:
            signature = _joined(_without_comments("\n".join(lines[:end])))
            while end < len(lines) and lines[end].startswith("#"):  # a comment that stood behind the docstring
                end += 1
            return signature, at_margin("\n".join(lines[end:]))
    return head, ""


def _joined(text: str) -> str:
    return " ".join(text.split())


def _without_comments(head: str) -> str:
    """`head`, a function's lines up to its colon, without comments: each reaches to the end of its line."""
    if "#" not in head:
        return head
    lines = head.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(f"{head}\n    pass\n").readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(lines)
