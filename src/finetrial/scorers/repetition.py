"""Repetition: the share of 4-grams that were already in the same output (Welleck et al. 2020, seq-rep-4).

1 - distinct 4-grams / 4-grams, with both counts summed over outputs, so that a long output weighs more.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.outputs import OutputScorer
from finetrial.scorers.tokens import tokens

ORDER = 4


class Repetition(OutputScorer):
    """Repeated 4-grams over 4-grams. An output of fewer than four tokens has none, and no weight."""

    packages: ClassVar[tuple[str, ...]] = ("sacrebleu",)
    unit: ClassVar[str] = "share of 4-grams"
    higher_is_better: ClassVar[bool] = False
    best: ClassVar[float] = 0.0
    worst: ClassVar[float] = 1.0
    reads: ClassVar[tuple[str, ...]] = ("output",)
    summary: ClassVar[str] = "share of 4-grams that repeat one of the same output"

    language: str = "text"

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """4-grams that were there before, and 4-grams."""
        (output,) = texts
        words = tokens(output, self.language)
        ngrams = [tuple(words[at:at + ORDER]) for at in range(len(words) - ORDER + 1)]
        return float(len(ngrams) - len(set(ngrams))), float(len(ngrams))
