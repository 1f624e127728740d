"""ROUGE-1: words that output and reference share, as F1 (Lin 2004, section 2).

rouge_score `rouge1`, `use_stemmer=True`; mean over items.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.rouge import Rouge


class Rouge1(Rouge):
    """F1 of stemmed words."""

    unit: ClassVar[str] = "ROUGE-1"
    summary: ClassVar[str] = "F1 of the words shared with the reference (stems)"
    kind: ClassVar[str] = "rouge1"
