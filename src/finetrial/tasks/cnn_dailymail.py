"""cnn_dailymail: a news article -> its highlights, highlight tokens only (See et al. 2017, non-anonymised, 3.0.0).

From the hub (abisee/cnn_dailymail, splits as given) or local files with `article` and `highlights`, perhaps `id`. The
highlights are sentences, a line each; the article may be cut.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from finetrial.tasks.base import Example, Segment, Split
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id, lead_floors
from finetrial.tasks.published import PublishedTask
from finetrial.tasks.user_rows import row_id

if TYPE_CHECKING:
    from finetrial.tasks.sources.records import Record

INSTRUCTION = "Summarize this article.\n\n"
CUE = "\n\nSummary:\n"
ABBREVIATED = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Rev|Gen|Col|Maj|Capt|Cmdr|Lt|Sgt|Sen|Rep|Gov|Pres|Jr|Sr|No|vs|Jan|Feb|Aug|Sept|Oct|"
                         r"Nov|Dec|[A-Z])\.$")  # titles, months and initials, which news is full of
BLANK = "no article, or no highlights"


class CnnDailymail(PublishedTask):
    """Article -> highlights."""

    version: ClassVar[int] = 3
    summary: ClassVar[str] = "news article -> highlights (hub: abisee/cnn_dailymail)"
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "rouge-l"
    metrics: ClassVar[tuple[str, ...]] = ("rouge-1", "rouge-2", "bleu", "chrf", "meteor", "continuation-rate",
                                          "length-ratio", "repetition")
    needed: ClassVar[tuple[str, ...]] = ("article", "highlights")
    perhaps: ClassVar[tuple[str, ...]] = ("id",)

    repository: str = "abisee/cnn_dailymail"
    max_rows: int | None = Field(default=20_000, ge=1)

    def hub_files(self) -> Mapping[str, Split]:
        """Configuration 3.0.0."""
        return {"3.0.0/train*.parquet": "train", "3.0.0/validation*.parquet": "val", "3.0.0/test*.parquet": "test"}

    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """Every article is a cluster of its own. Some rows of the published data have no article: they are left out."""
        dropped.update({BLANK: 0})
        for record in records:
            article, highlights = self.text_of(record, "article"), self.text_of(record, "highlights")
            if not article or not highlights:
                dropped[BLANK] += 1
                continue
            name = row_id(record)
            yield LocalRow(content_id(article, highlights), name, article,
                           {"article": article, "highlights": highlights}, f"{record.where} {name}".rstrip())

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The article is what may be cut."""
        return (Segment(INSTRUCTION), Segment(example.fields["article"], cuttable=True), Segment(CUE),
                Segment(example.fields["highlights"], loss=True))

    def floors(self, example: Example) -> Mapping[str, str]:
        """The article, its first sentence, its first three."""
        return lead_floors(example.fields["article"], ABBREVIATED)
