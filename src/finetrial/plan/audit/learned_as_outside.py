"""Text from outside shows what is forgotten; the same data as a task that is learned shows what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.hypothesis import SCORE
from finetrial.spec.study import Study
from finetrial.tasks.flaws import NO_FLAWS


class LearnedAsOutside(Rule):
    """No task of role `outside` reads the data of one that is learned."""

    summary: ClassVar[str] = "text from outside is the data of a task that is learned"

    def check(self, study: Study) -> Iterator[Found]:
        """A note for each such task (it may be there for its scores alone). None for one whose score is asked for, nor for one that repeats a flaw, which
        says so itself."""
        learned = [use for use in study.tasks if use.role == "learn"]
        contrasts = [one for hypothesis in study.hypotheses for one in hypothesis.contrasts]
        contrasts += [one for claim in study.claims for one in claim.contrasts]
        for_its_score = {one.task for one in contrasts if one.quantity == SCORE}
        for use in study.tasks:
            same = next((other for other in learned if other.task == use.task), None)
            if use.role == "outside" and use.flaws == NO_FLAWS and same is not None and use.name not in for_its_score:
                yield Found("note", f"{use.name} is from outside, and its data are those of {same.name}, which is learned: it shows "
                                       "no forgetting; give other text, or leave it out", f"tasks.{use.name}")
