"""Bits per byte: the cross entropy of the target text per UTF-8 byte, comparable across tokenizers.

Total NLL / (ln 2 * total bytes), as in Gao et al. 2020, "The Pile", section 3.1.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, column, ratio, rows


class BitsPerByte(Scorer):
    """Total negative log-likelihood in bits over total bytes of the target text."""

    unit: ClassVar[str] = "bits/byte"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 0.0
    worst: ClassVar[float] = math.inf
    summary: ClassVar[str] = "cross entropy per UTF-8 byte of the target text"

    def statistics(self, predictions: Columns) -> Floats:
        """Loss in bits and bytes of each item, [n, 2]."""
        num_bytes = column(predictions, "num_bytes")
        return rows(column(predictions, "nll") / math.log(2), np.where(num_bytes > 0, num_bytes, np.nan))

    def aggregate(self, sums: Floats) -> Floats:
        """Sum of bits over sum of bytes."""
        return ratio(sums[..., 0], sums[..., 1])
