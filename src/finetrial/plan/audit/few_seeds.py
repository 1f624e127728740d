"""Below three seeds there is no interval, and so no verdict: noise between seeds would be read as an effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.study import FEWEST_SEEDS, Study

SEEDS_FOR_SMALL_EFFECTS = 5
DETECTABLE = {3: 3.3, 4: 2.1, 5: 1.7}  # by a paired t-test over so many seeds with a power of 80 %, in standard deviations


class FewSeeds(Rule):
    """Says what the number of seeds can show."""

    summary: ClassVar[str] = "too few seeds for a verdict"

    def check(self, study: Study) -> Iterator[Found]:
        """A warning below three seeds, a note below five."""
        count = len(study.seeds)
        if count < FEWEST_SEEDS:
            yield Found("warning", f"{count} seed{'s' * (count != 1)}: hypotheses will read NOT MEASURED; "
                                   f"give at least {FEWEST_SEEDS}", "seeds")
        elif count < SEEDS_FOR_SMALL_EFFECTS:
            yield Found("note", f"{count} seeds can show only differences of about {DETECTABLE[count]} standard deviations "
                                f"between seeds; {SEEDS_FOR_SMALL_EFFECTS} would show "
                                f"{DETECTABLE[SEEDS_FOR_SMALL_EFFECTS]}", "seeds")
