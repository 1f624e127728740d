"""How far the model's predictions have moved from the untouched base's, on the same text."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, column, ratio, rows


class KlFromBase(Scorer):
    """Mean over target tokens of KL(base || adapted), the divergence of the next-token distributions.

    A task that names it is probed (`stages/probe.py`) at the selected rate, on its test items. On the task being learned
    distance is what is wanted; on old text it is drift, of which the loss sees only the part that the true tokens show.
    """

    unit: ClassVar[str] = "nats/token"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 0.0
    worst: ClassVar[float] = math.inf
    needs: ClassVar[Literal["losses", "outputs", "probe"]] = "probe"
    summary: ClassVar[str] = "divergence of the predictions from the untouched base's"

    def statistics(self, predictions: Columns) -> Floats:
        """Divergence and target tokens of each item, [n, 2]."""
        tokens = column(predictions, "num_tokens")
        return rows(column(predictions, "kl"), np.where(tokens > 0, tokens, np.nan))

    def aggregate(self, sums: Floats) -> Floats:
        """Sum of divergences over sum of target tokens."""
        return ratio(sums[..., 0], sums[..., 1])
