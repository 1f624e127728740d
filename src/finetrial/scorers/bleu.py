"""BLEU of the corpus, 0 to 1 (Papineni et al. 2002), as sacrebleu computes it (Post 2018).

Statistics are summed over items and the formula is applied once. Text: sacrebleu's signature
`nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`. Code: the lexer of `scorers/tokens.py`, then
`nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:2.6.0`.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np

from finetrial.errors import MissingPackage
from finetrial.records.table import Floats
from finetrial.scorers.outputs import OutputScorer
from finetrial.scorers.tokens import tokens

ORDERS = 4


class Bleu(OutputScorer):
    """exp(mean log precision of 1- to 4-grams) times the brevity penalty, over all items together."""

    version: ClassVar[int] = 2
    packages: ClassVar[tuple[str, ...]] = ("sacrebleu",)
    unit: ClassVar[str] = "BLEU"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    summary: ClassVar[str] = "corpus BLEU-4, 0 to 1 (text: 13a; code: tokens of a lexer)"
    num_statistics: ClassVar[int] = 2 + 2 * ORDERS

    language: str = "text"

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """Tokens of output and reference, matches by order, n-grams of the output by order, [10]; None for a reference
        without tokens (13a skips the word `<skipped>`)."""
        output, reference = (" ".join(tokens(text, self.language)) for text in texts)
        if not reference:
            return None
        found = _sacrebleu().sentence_score(output, [reference])
        return (found.sys_len, found.ref_len, *found.counts, *found.totals)

    def aggregate(self, sums: Floats) -> Floats:
        """BLEU with NIST's smoothing, `compute_bleu(smooth_method="exp")`: the m-th order without a match counts 2^-m.

        0 without any match and where all outputs together have no 4-gram; NaN without a reference.
        """
        lengths, matches, totals = np.split(np.asarray(sums, np.float64), [2, 2 + ORDERS], axis=-1)
        unmatched = matches == 0
        smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=-1), matches)  # [..., 4]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.exp(np.log(smoothed / totals).mean(axis=-1))
            brevity = np.exp(np.minimum(0.0, 1.0 - lengths[..., 1] / lengths[..., 0]))
            value = np.minimum(brevity * precision, 1.0)
        nothing = unmatched.all(axis=-1) | (totals == 0).any(axis=-1)
        score: Floats = np.where(lengths[..., 1] > 0, np.where(nothing, 0.0, value), np.nan)
        return score


@functools.cache
def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingPackage("sacrebleu", "BLEU") from error
    return BLEU(tokenize="none", force=True, effective_order=True)  # the order only matters to the unused score
