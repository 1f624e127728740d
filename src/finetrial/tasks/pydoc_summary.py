"""pydoc-summary: the long description in a docstring -> its one-line summary, summary tokens only.

Pairs are mined from the embedded corpus (`tasks/sources/`): the docstring of a module, class or function without its
first paragraph, on one line, and that paragraph. Clusters are files that share nothing with another split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from finetrial.fingerprint import key_of
from finetrial.tasks.base import Example, Examples, Segment, Task
from finetrial.tasks.pieces import USED_SPLITS, content_id, counts, lead_floors

INSTRUCTION = "Summarize this documentation in one line.\n\n"
CUE = "\n\nSummary:\n"
NAMED_CUE = "\n\nSummary of {name}:\n"


class PydocSummary(Task):
    """Long description -> one-line summary. `named`: the cue says what is documented, as whoever writes a docstring knows it;
    without it a summary has often to name what the text nowhere says."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "documentation without its first paragraph -> that paragraph, one line"
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "rouge-l"
    metrics: ClassVar[tuple[str, ...]] = ("rouge-1", "rouge-2", "bleu", "chrf", "meteor", "continuation-rate",
                                          "length-ratio", "repetition")

    max_summary_characters: int = Field(default=200, ge=20)
    named: bool = False

    def source_digest(self) -> str:
        """The corpus's identity: lock, miner, grammar."""
        from finetrial.tasks.sources.corpus import corpus_digest

        return corpus_digest()

    def load(self) -> Examples:
        """All pairs of train, val and test clusters whose summary is short enough."""
        from finetrial.tasks.sources.corpus import embedded_corpus

        corpus = embedded_corpus()
        rows = corpus.rows("documents", USED_SPLITS)
        kept = [row for row in rows if len(row["summary"]) <= self.max_summary_characters]
        examples = [Example(content_id(row["long_description"], row["summary"]), row["cluster"], row["split"],
                            {"document": row["long_description"], "summary": row["summary"],
                             **({"name": row["name"]} if self.named else {})},
                            f"{row['path']}:{row['line']} {row['name']}") for row in kept]
        dropped = {rule: number for rule, number in corpus.report.dropped.items() if rule.startswith(("file", "document"))}
        dropped["summary too long"] = len(rows) - len(kept)
        options = self.model_dump(mode="json", exclude=set() if self.named else {"named"})
        return Examples(examples, key_of([corpus.digest, self.version, options]),
                        counts(examples, dropped, corpus.report.notes))

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The documentation is what may be cut."""
        cue = NAMED_CUE.format(name=example.fields["name"]) if self.named else CUE
        return (Segment(INSTRUCTION), Segment(example.fields["document"], cuttable=True), Segment(cue),
                Segment(example.fields["summary"], loss=True))

    def floors(self, example: Example) -> Mapping[str, str]:
        """The documentation, its first sentence, its first three."""
        return lead_floors(example.fields["document"])
