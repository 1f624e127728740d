"""Syntax pass rate: the share of outputs that parse, without running anything.

Python: `ast.parse` of the running interpreter. An output whose first line is indented is the body of the function that
its prompt began, and is judged as one. JavaScript: tree-sitter finds neither an error nor anything missing, in the
output as a program or as one method of a class. An output without a statement (empty, or comments only) does not pass.
"""

from __future__ import annotations

import ast
import warnings
from typing import ClassVar

from finetrial.scorers.syntax import CodeScorer, parsed

NO_STATEMENTS = ("comment", "hash_bang_line")


class SyntaxPassRate(CodeScorer):
    """Outputs that parse over all outputs."""

    packages: ClassVar[tuple[str, ...]] = (*CodeScorer.packages, "python")  # whose grammar grows from version to version
    unit: ClassVar[str] = "share of outputs"
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float] = 1.0
    worst: ClassVar[float] = 0.0
    reads: ClassVar[tuple[str, ...]] = ("output",)
    summary: ClassVar[str] = "share of outputs that parse (nothing is run)"

    def judge(self, *texts: str) -> tuple[float, ...] | None:
        """(1 or 0, 1)."""
        (output,) = texts
        passes = python_parses(output) if self.language == "python" else javascript_parses(output)
        return float(passes), 1.0


def python_parses(code: str) -> bool:
    """Whether `ast.parse` takes the code and finds a statement in it."""
    first = next((line for line in code.splitlines() if line.strip()), "")
    indented = first[:1] in (" ", "\t")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes and comparisons are no errors
            module = ast.parse(f"def function():\n{code}" if indented else code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last three: null bytes, too deep a nesting
        return False
    return bool(module.body)


def javascript_parses(code: str) -> bool:
    """Whether tree-sitter parses the code as a program with a statement, or as one method of a class."""
    _, top = parsed(code, "javascript")
    return not top.has_error and any(child.type not in NO_STATEMENTS for child in top.named_children)
