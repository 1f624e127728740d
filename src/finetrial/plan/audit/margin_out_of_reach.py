"""A margin that this many seeds and items cannot resolve: "no difference" was never going to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
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
                seeds = f"{row.n_seeds} seeds" + (f" and {row.n_clusters} clusters" if row.n_clusters else "")
                yield Found("warning", f"{row.contrast}: {seeds} find differences from {row.detectable:.3g} {row.unit} on, "
                                       f"and the margin is {margin:.3g}: add seeds or items, or state a wider margin",
                            f"hypotheses.{row.hypothesis}")
