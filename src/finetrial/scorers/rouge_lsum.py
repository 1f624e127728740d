"""ROUGE-Lsum: ROUGE-L of summaries of several sentences, one a line (Lin 2004, section 3.2).

rouge_score `rougeLsum`, `use_stemmer=True`: for each line of the reference the union of its longest common
subsequences with the lines of the output; mean over items. Of single lines it is ROUGE-L.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.rouge import Rouge


class RougeLsum(Rouge):
    """F1 of the union of longest common subsequences, line by line."""

    unit: ClassVar[str] = "ROUGE-Lsum"
    summary: ClassVar[str] = "ROUGE-L line by line (union of common subsequences, stems)"
    kind: ClassVar[str] = "rougeLsum"
