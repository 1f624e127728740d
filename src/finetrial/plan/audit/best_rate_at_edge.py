"""A best learning rate at the edge of its grid: a better one may lie outside, for this arm and not for others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.records.results import Selection
from finetrial.spec.study import Study


class BestRateAtEdge(Rule):
    """The chosen rates lie inside their grids."""

    summary: ClassVar[str] = "the best learning rate lies at the edge of its grid"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """One warning for each arm and phase with a choice at an edge."""
        seen: dict[tuple[str, str, str, int], list[Selection]] = {}
        for row in records.results.tuning:
            if row.at_edge:
                seen.setdefault((row.base, row.arm, row.sequence, row.phase), []).append(row)
        for (base, arm, sequence, phase), rows in seen.items():
            rates = ", ".join(f"{rate:g}" for rate in sorted({row.chosen for row in rows if row.chosen is not None}))
            title = records.results.arms.get(arm, arm)
            along = f"/{sequence}" if len(study.paths) > 1 else ""
            yield Found("warning", f"{title}: the chosen learning rate {rates} lies at the edge of its grid for "
                                   f"{len(rows)} of the seeds; a better one may lie outside: extend the grid",
                        f"{base}/{arm}{along}/phase {phase}")
