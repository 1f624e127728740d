"""Choose the learning rate from which the next phase of one seed starts.

The rate with the best mean validation score over the other seeds; a rate that failed for any of them is out. The score is
the loss, or where the spec names a `metric` what that metric makes of outputs for the validation items. Of equals the first
is taken; means are rounded once, as those of `analysis.selection` are, so that both see the same equals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from finetrial.records.table import Metric
from finetrial.stages.base import StageContext, StageInput, StageKind


class Select(StageKind):
    """Returns `chosen`, one of the options, and the mean validation score of each: nats per token, or the metric's."""

    version: ClassVar[int] = 2
    tolerates_failures: ClassVar[bool] = True

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises ValueError if every rate failed: there is nothing to go on from."""
        from finetrial.stages.score import scorer_of

        spec = context.spec
        metric = scorer_of(spec["metric"]).metric() if "metric" in spec else None
        judges = [seed for seed in spec["seeds"] if seed != spec["seed"]] or [spec["seed"]]
        means: dict[str, float | None] = {}
        for option in spec["options"]:
            known = []
            for seed in judges:
                found = [context.inputs.get(f"rate={option}/seed={seed}/task={task}") for task in spec["tasks"]]
                of_tasks = [one for one in found if one is not None]
                score = _score(of_tasks, metric) if len(of_tasks) == len(found) else None
                known += [] if score is None else [score]
            means[option] = fmean(known) if len(known) == len(judges) else None
        finished = {option: mean for option, mean in means.items() if mean is not None}
        if not finished:
            raise ValueError(f"no learning rate of {spec['options']} finished on every other seed")
        best = max if metric is not None and metric.higher_is_better else min
        return {"chosen": best(finished, key=lambda option: finished[option]), "validation": means}


def _score(of_tasks: Sequence[StageInput], metric: Metric | None) -> float | None:
    """Of one model, over the items of all tasks together: nats per token of its predictions, or the metric of its outputs."""
    if metric is None:
        values = [found.record.values for found in of_tasks]
        return float(sum(v["nll"] for v in values) / sum(v["num_tokens"] for v in values))
    import numpy as np

    from finetrial.stages.score import MODEL, read_scores

    return metric.value(np.concatenate([read_scores(found.folder)[MODEL][metric.name] for found in of_tasks]))
