"""What is known of an arm's limits before it is run: parameters follow from config.json, memory from the timing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetrial.analysis.limits import judge_numbers, standing, why_not
from finetrial.compare.arms import Way
from finetrial.compare.design import Timed
from finetrial.errors import UserError
from finetrial.models.shapes import count_parameters
from finetrial.spec.study import Limits


def beyond_limits(ways: Mapping[str, Way], config: Mapping[str, Any], limits: Limits,
                  timed: Mapping[str, Timed] | None = None) -> dict[str, str]:
    """The arms that are beyond a limit already, and why. `timed`: what has been measured of them; None = nothing yet.

    Raises UserError where that is so of every arm: none could be recommended, however long they are trained.
    """
    base = count_parameters(config)
    beyond: dict[str, str] = {}
    for name, way in ways.items():
        trained = way.method.count_trainable(config)
        peak = timed[name].peak_bytes if timed is not None and name in timed else None
        known = limits.model_copy(update={
            **({"max_trainable": None} if trained is None else {}),
            **({"max_trainable_share": None} if trained is None or base is None else {}),
            **({"max_memory_bytes": None} if peak is None else {})})
        judged = list(judge_numbers(known, trained, base, peak))
        if standing(judged) == "beyond":
            beyond[name] = why_not(judged)
    if ways and len(beyond) == len(ways):
        why = "; ".join(f"{name}: {reason}" for name, reason in beyond.items())
        raise UserError(f"no arm stays within the limits ({why})", "raise the limit, or choose smaller arms: --arms")
    return beyond
