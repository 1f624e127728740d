"""An arm that is tried at more learning rates than another has more chances to look good."""

from __future__ import annotations

from collections.abc import Iterator

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.study import Study


class UnequalTuning(Rule):
    """Every arm gets the same number of learning rates."""

    def check(self, study: Study) -> Iterator[Found]:
        """A threat if the numbers differ; a warning if no arm is tuned at all."""
        counts = {arm.name: len(arm.learning_rates) for arm in study.arms}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            yield Found("threat", f"arms are tuned at different numbers of learning rates: {listed}", "arms")
        elif set(counts.values()) == {1} and len(study.arms) > 1:
            yield Found("warning", "every arm is run at one learning rate, so differences may be those of the rates",
                        "arms")
