"""Exact match: the share of outputs that are the reference, character by character.

White space at both ends does not count; everything inside does.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.outputs import OutputScorer


class ExactMatch(OutputScorer):
    """Outputs equal to their reference over all outputs."""

    unit: ClassVar[str] = "share of outputs"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    summary: ClassVar[str] = "share of outputs equal to the reference"

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """(1 or 0, 1)."""
        output, reference = texts
        return float(output.strip() == reference.strip()), 1.0
