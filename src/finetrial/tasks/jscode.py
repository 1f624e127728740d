"""jscode: the comment above a JavaScript function, and its signature -> its body, body tokens only.

Functions are mined from the sources of npm and of Node itself (`tasks/sources/javascript_corpus.py`); no bundled base
has seen JavaScript. As in pycode the prompt ends with the signature on one line, and the body stands at the left margin.
The comment's tags stay, a line each; comments may be cut, and a body of more than `max_body_characters` is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from finetrial.fingerprint import key_of
from finetrial.tasks.base import Example, Examples, Segment, Task
from finetrial.tasks.pieces import USED_SPLITS, at_margin, counts

INSTRUCTION = "Write the body of this JavaScript function.\n\n"
CUE = "\n\nBody:\n"
MAX_SIGNATURE_CHARACTERS = 200


class Jscode(Task):
    """Comment and signature -> body of a JavaScript function."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "comment and signature -> body of a JavaScript function"
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "chrf"
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "meteor", "ast-similarity", "syntax-pass-rate", "exact-match",
                                          "length-ratio", "repetition")
    language: ClassVar[str] = "javascript"

    max_body_characters: int = Field(default=600, ge=40)

    def source_digest(self) -> str:
        """The corpus's identity: lock, miner, grammar. Raises MissingPackage without the grammar."""
        from finetrial.tasks.sources.javascript_corpus import javascript_digest

        return javascript_digest()

    def load(self) -> Examples:
        """All functions that are short enough. Raises DataError where Node's wheel cannot be had."""
        from finetrial.tasks.sources.javascript_corpus import javascript_corpus

        corpus = javascript_corpus()
        examples = []
        dropped = {"signature over 200 characters": 0, "body too long": 0}
        for row in corpus.rows("functions", USED_SPLITS):
            body = at_margin(row["body"])
            if len(row["signature"]) > MAX_SIGNATURE_CHARACTERS:
                dropped["signature over 200 characters"] += 1
            elif len(body) > self.max_body_characters:
                dropped["body too long"] += 1
            else:
                examples.append(Example(row["code_key"], row["cluster"], row["split"],
                                        {"comment": row["comment"], "signature": row["signature"], "body": body},
                                        f"{row['path']}:{row['line']} {row['name']}"))
        return Examples(examples, key_of([corpus.digest, self.version, self.model_dump(mode="json")]),
                        counts(examples, {**corpus.report.dropped, **dropped}, corpus.report.notes))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The comment is what may be cut."""
        return (Segment(INSTRUCTION), Segment(example.fields["comment"], cuttable=True),
                Segment(f"\n\n{example.fields['signature']}{CUE}"), Segment(example.fields["body"], loss=True))

    def texts(self, example: Example) -> Mapping[str, str]:
        """The signature belongs to what a person reads."""
        return {"input": f"{example.fields['comment']}\n\n{example.fields['signature']}",
                "reference": example.fields["body"]}
