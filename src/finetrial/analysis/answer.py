"""What a contrast came to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetrial.analysis.estimate import Estimate
from finetrial.spec.study import FEWEST_SEEDS


@dataclass(frozen=True)
class Answer:
    """The estimate of a contrast. Without one, `reason` says why; ratios are estimated in log."""

    estimate: Estimate | None = None
    unit: str = ""
    metric: str = ""
    reason: str = ""
    exact: bool = False  # no sampling error: the sign of the estimate decides
    by_construction: bool = False  # exactly 0: equal weights answered on both sides of every difference
    over_items: bool = False  # the interval speaks of other items too
    over_repeats: bool = False  # the interval is over repeats of the profile, not over seeds
    is_log: bool = False
    notes: tuple[str, ...] = ()

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval to judge by."""
        return self.estimate is not None and self.estimate.low is not None

    def with_reason(self) -> Answer:
        """The answer, with the reason where its estimate has no interval."""
        if self.estimate is None or self.has_interval:
            return self
        mend = f"run at least {FEWEST_SEEDS}" if self.estimate.num_seeds else "add test items"
        return replace(self, reason=f"{self.estimate.reason}, no verdict: {mend}")


def exactly(value: float, unit: str, confidence: float) -> Answer:
    """A value without sampling error."""
    return Answer(Estimate(value, None, None, None, None, confidence, None, 0, 0), unit, exact=True)
