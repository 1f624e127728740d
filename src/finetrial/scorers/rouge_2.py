"""ROUGE-2: pairs of neighbouring words that output and reference share, as F1 (Lin 2004, section 2).

rouge_score `rouge2`, `use_stemmer=True`; mean over items. A reference of one word has no pair and is not judged.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.rouge import Rouge


class Rouge2(Rouge):
    """F1 of pairs of stemmed words."""

    unit: ClassVar[str] = "ROUGE-2"
    summary: ClassVar[str] = "F1 of the word pairs shared with the reference (stems)"
    kind: ClassVar[str] = "rouge2"
    fewest_words: ClassVar[int] = 2
