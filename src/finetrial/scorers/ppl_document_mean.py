"""Perplexity as many scripts publish it: exp of the mean over documents of each document's mean loss.

It differs from `perplexity` because a short document weighs as much as a long one; both stand side by side so that
published numbers can be compared with the right one.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, column, ratio, rows


class PplDocumentMean(Scorer):
    """exp(mean over documents of NLL / target tokens): one document, one vote. A document is an item."""

    unit: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = math.inf
    summary: ClassVar[str] = "exp of the mean of the documents' mean losses"

    def statistics(self, predictions: Columns) -> Floats:
        """Mean loss per target token of each document, and 1, [n, 2]."""
        mean_loss = ratio(column(predictions, "nll"), column(predictions, "num_tokens"))
        return rows(mean_loss, np.ones_like(mean_loss))

    def aggregate(self, sums: Floats) -> Floats:
        """exp of the sum of mean losses over the number of documents; infinite above exp(709)."""
        with np.errstate(over="ignore"):
            value: Floats = np.exp(ratio(sums[..., 0], sums[..., 1]))
        return value
