"""Choose the learning rate from which the next phase of one seed starts.

The rate with the best mean validation loss over the other seeds; a rate that failed for any of them is out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from finetrial.stages.base import StageContext, StageKind


class Select(StageKind):
    """Returns `chosen`, one of the options, and the mean validation loss of each."""

    version: ClassVar[int] = 1
    tolerates_failures: ClassVar[bool] = True

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises ValueError if every rate failed: there is nothing to go on from."""
        spec = context.spec
        judges = [seed for seed in spec["seeds"] if seed != spec["seed"]] or [spec["seed"]]
        means: dict[str, float | None] = {}
        for option in spec["options"]:
            found = [context.inputs[name].record.values for seed in judges
                     if (name := f"rate={option}/seed={seed}") in context.inputs]
            complete = len(found) == len(judges)
            means[option] = sum(v["nll"] / v["num_tokens"] for v in found) / len(found) if complete else None
        finished = {option: mean for option, mean in means.items() if mean is not None}
        if not finished:
            raise ValueError(f"no learning rate of {spec['options']} finished on every other seed")
        return {"chosen": min(finished, key=lambda option: finished[option]), "validation": means}
