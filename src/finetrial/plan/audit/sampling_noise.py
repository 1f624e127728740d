"""One sampled output an item and few seeds: what the sampler did is read as what the arm did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Planned
from finetrial.spec.study import FEWEST_SEEDS, Study


class SamplingNoise(Rule):
    """Outputs are greedy, or sampling is averaged over samples or seeds."""

    summary: ClassVar[str] = "sampled outputs, one an item, with too few seeds to average over"

    def check(self, study: Study) -> Iterator[Found]:
        """One threat for each task with such outputs of which a claim is read from a single seed."""
        read = {claim.as_published.task for claim in study.claims
                if claim.as_published is not None and claim.seed is not None}
        for use in study.tasks:
            if use.name in read and use.sampling is not None and use.sampling.num_samples == 1:
                yield Found("threat", f"outputs of {use.name} are sampled, one an item, and a published figure is read "
                                      "from a single seed of them: it can be the sampler's", f"tasks.{use.name}")

    def check_plan(self, study: Study, plan: Planned) -> Iterator[Found]:
        """One threat if any outputs are sampled once an item and there are fewer than three seeds."""
        if len(study.seeds) >= FEWEST_SEEDS:
            return
        sampled = [stage for stage in plan.of_kind("generate") if _is_sampled_once(stage.spec.get("decoding"))]
        if sampled:
            count = len(study.seeds)
            yield Found("threat", f"outputs are sampled, one an item, with {count} seed{'s' * (count != 1)}: a "
                                  "difference between arms can be the sampler's; decode greedily, or take several "
                                  f"samples an item, or at least {FEWEST_SEEDS} seeds", "evaluation")


def _is_sampled_once(decoding: Mapping[str, Any] | None) -> bool:
    if not decoding or decoding.get("do_sample") is False:
        return False
    return int(decoding.get("num_samples", 1)) == 1
