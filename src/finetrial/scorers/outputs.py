"""What the metrics of generated outputs share: rows of text columns, judged one by one.

A row is missing (NaN) where a text is None, where the reference is blank, or where the metric says that it cannot
judge the row; an empty output is judged like any other. Most metrics are a ratio of two sums: the judge returns a
value and 1 for a mean over items, or what was found and what there was for a share of everything.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np

from finetrial.errors import DataError
from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, ratio


class OutputScorer(Scorer):
    """A metric of outputs: `judge` gets the texts of the columns in `reads` and returns a row's statistics."""

    needs: ClassVar[Literal["losses", "outputs"]] = "outputs"
    reads: ClassVar[tuple[str, ...]] = ("output", "reference")
    num_statistics: ClassVar[int] = 2

    @abstractmethod
    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """The statistics of one row, [k]; None if the metric cannot judge it."""

    def statistics(self, predictions: Columns) -> Floats:
        """What `judge` finds in each row, [n, k]. Raises DataError for a missing column."""
        for name in self.reads:
            if name not in predictions:
                raise DataError(f"the outputs have no column {name!r} (they have: {', '.join(sorted(predictions))})",
                                "score them with a metric that needs what was written, or generate again")
        texts = list(zip(*(predictions[name] for name in self.reads), strict=True))
        table = np.full((len(texts), self.num_statistics), np.nan)
        reference = self.reads.index("reference") if "reference" in self.reads else None
        for place, row in enumerate(texts):
            if all(isinstance(text, str) for text in row) and (reference is None or row[reference].strip()):
                found = self.judge(*row)
                if found is not None:
                    table[place] = found
        return table

    def aggregate(self, sums: Floats) -> Floats:
        """Sum of the first statistic over the sum of the second."""
        return ratio(sums[..., 0], sums[..., 1])
