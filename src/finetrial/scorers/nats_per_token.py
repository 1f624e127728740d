"""Nats per target token: the cross entropy of the target text under the model, in units of the model's tokens."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, column, ratio, rows


class NatsPerToken(Scorer):
    """Total negative log-likelihood over total target tokens: long items weigh more than short ones."""

    unit: ClassVar[str] = "nats/token"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 0.0
    worst: ClassVar[float] = math.inf
    summary: ClassVar[str] = "cross entropy per target token"

    def statistics(self, predictions: Columns) -> Floats:
        """Loss and target tokens of each item, [n, 2]."""
        tokens = column(predictions, "num_tokens")
        return rows(column(predictions, "nll"), np.where(tokens > 0, tokens, np.nan))

    def aggregate(self, sums: Floats) -> Floats:
        """Sum of losses over sum of target tokens."""
        return ratio(sums[..., 0], sums[..., 1])
