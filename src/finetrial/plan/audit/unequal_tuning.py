"""An arm that is tried at more learning rates than another has more chances to look good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.study import Study


class UnequalTuning(Rule):
    """Every arm gets the same number of learning rates in every phase."""

    summary: ClassVar[str] = "arms are tuned at different numbers of learning rates, or not at all"

    def check(self, study: Study) -> Iterator[Found]:
        """A threat if the numbers differ; a warning if no phase of any arm is tuned."""
        phases: dict[str, dict[str, int]] = {}
        for path in study.paths:
            for phase in path.tasks:
                phases.setdefault(phase, {}).update({arm.name: len(arm.rates(phase)) for arm in study.arms_along(path)})
        tuned = any(count > 1 for counts in phases.values() for count in counts.values())
        for phase, counts in phases.items():
            if len(set(counts.values())) > 1:
                listed = ", ".join(f"{name} {count}" for name, count in counts.items())
                where = f" for {phase}" if len(phases) > 1 else ""
                yield Found("threat", f"arms are tuned at different numbers of learning rates{where}: {listed}", "arms")
        if not tuned and len(study.arms) > 1:
            yield Found("warning", "every arm is run at one learning rate, so differences may be those of the rates",
                        "arms")
