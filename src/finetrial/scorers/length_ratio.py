"""Length ratio: tokens of all outputs over tokens of all references, the ratio in BLEU's brevity penalty.

It describes: 1 is the length of the references, 0.5 half of it, 2 twice. Neither direction is better by itself.
"""

from __future__ import annotations

import math
from typing import ClassVar

from finetrial.scorers.outputs import OutputScorer
from finetrial.scorers.tokens import tokens


class LengthRatio(OutputScorer):
    """Sum of output tokens over sum of reference tokens (text: 13a; code: tokens of a lexer)."""

    version: ClassVar[int] = 2
    packages: ClassVar[tuple[str, ...]] = ("sacrebleu",)
    unit: ClassVar[str] = "ratio"
    higher_is_better: ClassVar[bool] = True  # up to 1
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    summary: ClassVar[str] = "tokens of outputs over tokens of references; describes, 1 is right"

    language: str = "text"

    @property
    def ends(self) -> tuple[float, float]:
        """Its best is no end: outputs may be longer."""
        return 0.0, math.inf

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """Tokens of output and reference; None for a reference without tokens."""
        output, reference = (len(tokens(text, self.language)) for text in texts)
        return (float(output), float(reference)) if reference else None
