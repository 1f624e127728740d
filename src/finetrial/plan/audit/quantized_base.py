"""An arm whose base is held in 4 bits adapts other weights than the arms beside it.

Whether that is a declared factor is the business of `undeclared-difference`. Here it is said what such an arm's numbers
mean: the untouched base, from which plasticity, forgetting and divergence are measured, is in full precision for every
arm, so what quantising costs by itself is part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.study import Study


class QuantizedBase(Rule):
    """Arms on a quantised base are named, and what they are measured against."""

    summary: ClassVar[str] = "arms whose base is held in 4 bits, and what they are measured against"

    def check(self, study: Study) -> Iterator[Found]:
        """One note for all of them."""
        named = [f"{arm.name} ({arm.quantization})" for arm in study.arms if arm.quantization is not None]
        if named:
            yield Found("note", f"{', '.join(named)}: the matrices of the base are held in 4 bits, in training and in "
                                "answering, so it is another base than the other arms'; what is learned and forgotten is "
                                "measured against the base in full precision, and what quantising loses is part of it")
