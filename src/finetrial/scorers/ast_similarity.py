"""AST similarity: the share of the references' subtrees that the outputs have too, CodeBLEU's syntax match.

Ren et al. 2020, "CodeBLEU: a Method for Automatic Evaluation of Code Synthesis", section 3.2, computed as its
published program does: a subtree of the reference is matched if the output has an equal one anywhere, however often,
and both counts are summed over items. Comments and docstrings are left out.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.scorers.syntax import CodeScorer, subtrees


class AstSimilarity(CodeScorer):
    """Matched subtrees of the references over all subtrees of the references."""

    unit: ClassVar[str] = "share of subtrees"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    version: ClassVar[int] = 2
    summary: ClassVar[str] = "share of the reference's subtrees matched (CodeBLEU's syntax match)"

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """Matched subtrees of the reference, and its subtrees; None for a reference of comments alone."""
        output, reference = texts
        wanted, have = subtrees(reference, self.language), set(subtrees(output, self.language))
        if len(wanted) == 1 and wanted == subtrees("", self.language):
            return None
        return float(sum(subtree in have for subtree in wanted)), float(len(wanted))
