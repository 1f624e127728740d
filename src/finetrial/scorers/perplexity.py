"""Perplexity: exp of the total negative log-likelihood over all target tokens (Jelinek et al. 1977)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, column, ratio, rows


class Perplexity(Scorer):
    """exp(total NLL / target tokens): one token, one vote."""

    unit: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = math.inf
    summary: ClassVar[str] = "exp of the mean loss over all target tokens"

    def statistics(self, predictions: Columns) -> Floats:
        """Loss and target tokens of each item, [n, 2]."""
        tokens = column(predictions, "num_tokens")
        return rows(column(predictions, "nll"), np.where(tokens > 0, tokens, np.nan))

    def aggregate(self, sums: Floats) -> Floats:
        """exp of the sum of losses over the sum of target tokens; infinite above exp(709)."""
        with np.errstate(over="ignore"):
            value: Floats = np.exp(ratio(sums[..., 0], sums[..., 1]))
        return value
