"""chrF of the corpus, 0 to 1 (Popović 2015): F2 of character n-grams, as sacrebleu computes it.

Signature `nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0`: orders 1 to 6, white space left out. Counts are
summed over items and the formula is applied once.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetrial.errors import MissingPackage
from finetrial.records.table import Floats
from finetrial.scorers.base import ratio
from finetrial.scorers.outputs import OutputScorer

ORDERS = 6
BETA = 2  # recall weighs BETA times as much as precision


class Chrf(OutputScorer):
    """F2 of the mean precision and the mean recall of character 1- to 6-grams, over all items together."""

    packages: ClassVar[tuple[str, ...]] = ("sacrebleu",)
    unit: ClassVar[str] = "chrF"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    summary: ClassVar[str] = "corpus chrF2, 0 to 1 (character 1- to 6-grams)"
    num_statistics: ClassVar[int] = 3 * ORDERS

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """For each order: n-grams of the output, of the reference, and of both, [18].

        As in sacrebleu, an output's n-grams count only in an order that its reference has.
        """
        try:
            from sacrebleu.metrics.helpers import extract_all_char_ngrams
        except ImportError as error:
            raise MissingPackage("sacrebleu", "chrF") from error
        counts: list[float] = []
        for of_output, of_reference in zip(*(extract_all_char_ngrams(text, ORDERS) for text in texts), strict=True):
            shared = sum(min(count, of_reference[ngram]) for ngram, count in of_output.items() if ngram in of_reference)
            counts += [of_output.total() if of_reference else 0, of_reference.total(), shared]
        return tuple(counts)

    def aggregate(self, sums: Floats) -> Floats:
        """Precision and recall averaged over the orders that both sides have, then F2. NaN without a reference."""
        counts = np.asarray(sums, np.float64).reshape(*np.shape(sums)[:-1], ORDERS, 3)
        of_output, of_reference, shared = np.moveaxis(counts, -1, 0)  # each [..., 6]
        counted = (of_output > 0) & (of_reference > 0)
        orders = np.maximum(counted.sum(axis=-1), 1)
        precision = np.where(counted, shared / np.maximum(of_output, 1), 0.0).sum(axis=-1) / orders
        recall = np.where(counted, shared / np.maximum(of_reference, 1), 0.0).sum(axis=-1) / orders
        score = np.nan_to_num(ratio((1 + BETA**2) * precision * recall, BETA**2 * precision + recall))
        value: Floats = np.where(of_reference[..., 0] > 0, score, np.nan)
        return value
