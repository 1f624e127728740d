"""pass@k: the chance that at least one of k samples passes its tests (Chen et al. 2021, equation 1), mean over items.

Of n samples of an item c passed; the unbiased estimate is 1 - C(n - c, k) / C(n, k). Running the samples is the
sandbox's part; this reads the counts.
"""

from __future__ import annotations

from math import comb
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from finetrial.errors import DataError
from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer, column, ratio, rows


class PassAtK(Scorer):
    """Mean of the unbiased estimates. An item with fewer than k samples is not judged."""

    unit: ClassVar[str] = "share of items"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    needs: ClassVar[Literal["losses", "outputs"]] = "outputs"
    executes: ClassVar[bool] = True
    summary: ClassVar[str] = "chance that one of k samples passes its tests (unbiased)"

    k: int = Field(default=1, ge=1)

    def statistics(self, predictions: Columns) -> Floats:
        """(estimate, 1) of each item from the columns `num_samples` and `num_passed`, [n, 2].

        Raises DataError for a missing column and where more passed than there were.
        """
        samples, passed = column(predictions, "num_samples"), column(predictions, "num_passed")
        known = np.isfinite(samples) & np.isfinite(passed) & (samples >= self.k)
        estimates = np.full(len(samples), np.nan)
        for place in np.flatnonzero(known):
            n, c = int(samples[place]), int(passed[place])
            if c > n:
                raise DataError(f"{c} of {n} samples passed (row {place})", "num_passed is at most num_samples")
            estimates[place] = 1.0 - comb(n - c, self.k) / comb(n, self.k)
        return rows(estimates, np.ones_like(estimates))

    def aggregate(self, sums: Floats) -> Floats:
        """Mean of the estimates."""
        return ratio(sums[..., 0], sums[..., 1])
