"""A margin that this many seeds and items cannot resolve: "no difference" was never going to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.analysis.numbers import counted, listed
from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.records.results import Finding
from finetrial.spec.study import Study


class MarginOutOfReach(Rule):
    """What a comparison would have detected is no larger than the margin it is judged by."""

    summary: ClassVar[str] = "too few items or seeds for the margin"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """One warning for each undecided contrast whose detectable effect is above its margin."""
        for row in records.results.findings:
            if not row.contrast or row.verdict != "INCONCLUSIVE" or row.margin is None or row.detectable is None:
                continue
            margin = 1 + row.margin if row.unit == "ratio" else row.margin
            if row.detectable > margin:
                found = f"{row.detectable:.3g}"
                found = f"ratios from {found}" if row.unit == "ratio" else f"differences from {found} {row.unit}"
                yield Found("warning", f"{row.contrast}: {_size(row)} find {found} on, and the margin is {margin:.3g}: "
                                       f"{_more(row)}state a wider margin", f"hypotheses.{row.hypothesis}")


def _size(row: Finding) -> str:
    """`5 seeds and 60 clusters`: what the comparison was made of."""
    counts = ((row.n_seeds, "seed"), (row.n_repeats, "repeat"), (row.n_clusters, "cluster"))
    words = listed([counted(number, noun) for number, noun in counts if number])
    return words + (" of the profile" if row.n_repeats else "")


def _more(row: Finding) -> str:
    """What to add; nothing for profiles, whose repeats the size of the study gives."""
    words = [noun for number, noun in ((row.n_seeds, "seeds"), (row.n_clusters, "items")) if number]
    return f"add {listed(words, 'or')}, or " if words else ""
