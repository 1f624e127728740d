"""ROUGE-L: the longest common subsequence of words, as F1 (Lin 2004, section 3.1).

rouge_score `rougeL`, `use_stemmer=True`; mean over items. The whole text is one sequence.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.rouge import Rouge


class RougeL(Rouge):
    """F1 of the longest common subsequence of stemmed words."""

    unit: ClassVar[str] = "ROUGE-L"
    summary: ClassVar[str] = "F1 of the longest common subsequence of words (stems)"
    kind: ClassVar[str] = "rougeL"
