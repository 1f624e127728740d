"""Choose the learning rate from which the next phase of one seed starts.

The rate with the best mean validation loss over the other seeds; a rate that failed for any of them is out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from finetrial.stages.base import StageContext, StageKind


class Select(StageKind):
    """Returns `chosen`, one of the options, and the mean validation loss of each."""

    version: ClassVar[int] = 2
    tolerates_failures: ClassVar[bool] = True

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises ValueError if every rate failed: there is nothing to go on from."""
        spec = context.spec
        judges = [seed for seed in spec["seeds"] if seed != spec["seed"]] or [spec["seed"]]
        means: dict[str, float | None] = {}
        for option in spec["options"]:
            losses = [_loss(context, [f"rate={option}/seed={seed}/task={task}" for task in spec["tasks"]])
                      for seed in judges]
            known = [loss for loss in losses if loss is not None]
            means[option] = sum(known) / len(known) if len(known) == len(judges) else None
        finished = {option: mean for option, mean in means.items() if mean is not None}
        if not finished:
            raise ValueError(f"no learning rate of {spec['options']} finished on every other seed")
        return {"chosen": min(finished, key=lambda option: finished[option]), "validation": means}


def _loss(context: StageContext, names: list[str]) -> float | None:
    """Nats per token over the predictions of one model; None if any is missing."""
    if any(name not in context.inputs for name in names):
        return None
    values = [context.inputs[name].record.values for name in names]
    return float(sum(v["nll"] for v in values) / sum(v["num_tokens"] for v in values))
