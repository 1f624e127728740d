"""wikitext: encyclopedia articles as plain text, every token scored but a piece's first (Merity et al. 2017, WikiText-2 raw).

From the hub (Salesforce/wikitext, configuration wikitext-2-raw-v1, splits as given) or local files of lines with `text`. A
line like ` = Title = ` opens an article; the article is the cluster. Articles are cut at line ends into pieces of up to 2,000
characters, the last of up to 2,499 (`cut_at_lines`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from finetrial.tasks.base import Example, Segment, Split
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id, cut_at_lines
from finetrial.tasks.published import PublishedTask

if TYPE_CHECKING:
    from finetrial.tasks.sources.records import Record

TITLE = re.compile(r" ?= ([^=].*?) = ?\n?")
MIN_PIECE_CHARACTERS = 100
SHORT = "piece under 100 characters"


class Wikitext(PublishedTask):
    """Plain text of articles."""

    version: ClassVar[int] = 3
    summary: ClassVar[str] = "encyclopedia articles as plain text (hub: Salesforce/wikitext, WikiText-2 raw)"
    needed: ClassVar[tuple[str, ...]] = ("text",)

    repository: str = "Salesforce/wikitext"

    def hub_files(self) -> Mapping[str, Split]:
        """WikiText-2, raw."""
        return {"wikitext-2-raw-v1/train-*.parquet": "train", "wikitext-2-raw-v1/validation-*.parquet": "val",
                "wikitext-2-raw-v1/test-*.parquet": "test"}

    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """Pieces of articles, in order."""
        dropped.update({SHORT: 0})
        for title, where, text in _articles(records):
            for piece in cut_at_lines(text):
                if len(piece) < MIN_PIECE_CHARACTERS:
                    dropped[SHORT] += 1
                else:
                    yield LocalRow(content_id(piece), title, piece, {"text": piece}, where)

    def render(self, example: Example) -> tuple[Segment, ...]:
        """One target; what exceeds the sequence length is cut off and counted as lost."""
        return (Segment(example.fields["text"], loss=True, cuttable=True),)


def _articles(records: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """(title, where it begins, text with the title); what stands before the first title is an article without one."""
    title, where, lines = "", "", list[str]()
    for record in records:
        line = str(record.values["text"] or "")
        opened = TITLE.fullmatch(line)
        if opened and any(text.strip() for text in lines):
            yield title, where, "".join(lines)
            lines = []
        if opened or not lines:
            title, where = opened[1] if opened else title, record.where
        lines.append(line if line.endswith("\n") else f"{line}\n")
    if any(text.strip() for text in lines):
        yield title, where, "".join(lines)
