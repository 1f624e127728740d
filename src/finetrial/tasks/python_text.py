"""python-text: held-out Python source as plain text, every token scored but a piece's first.

Whole files of the corpus's train, val and test clusters (licence headers removed), cut at line ends into pieces of up
to 2,000 characters, the last of up to 2,499 (`cut_at_lines`). `max_rows` keeps that many pieces of each split by a draw
that depends on their content only.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetrial.fingerprint import key_of
from finetrial.tasks.base import Example, Examples, Segment, Task
from finetrial.tasks.pieces import USED_SPLITS, content_id, counts, cut_at_lines, stable_draw

MIN_PIECE_CHARACTERS = 100


class PythonText(Task):
    """Plain Python source text."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "Python source files no base has seen, as plain text"

    max_rows: int | None = Field(default=1_000, ge=1)

    def source_digest(self) -> str:
        """The corpus's identity: lock, miner, grammar."""
        from finetrial.tasks.sources.corpus import corpus_digest

        return corpus_digest()

    def load(self) -> Examples:
        """Pieces of every split, each text once."""
        from finetrial.tasks.sources.corpus import embedded_corpus

        corpus = embedded_corpus()
        pieces: dict[str, Example] = {}
        num_all = num_short = 0
        for row in corpus.rows("files", USED_SPLITS):
            for piece in cut_at_lines(row["text"]):
                num_all += 1
                if len(piece) < MIN_PIECE_CHARACTERS:
                    num_short += 1
                else:
                    example = Example(content_id(piece), row["cluster"], row["split"], {"text": piece}, row["path"])
                    pieces.setdefault(example.id, example)
        unique = list(pieces.values())
        examples = [example for split in USED_SPLITS
                    for example in stable_draw((e for e in unique if e.split == split), self.max_rows)]
        dropped = {"piece under 100 characters": num_short, "same text": num_all - num_short - len(unique),
                   "above max_rows": len(unique) - len(examples)}
        return Examples(examples, key_of([corpus.digest, self.version, self.model_dump(mode="json")]),
                        counts(examples, dropped, corpus.report.notes))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """One target; what exceeds the sequence length is cut off and counted as lost."""
        return (Segment(example.fields["text"], loss=True, cuttable=True),)
