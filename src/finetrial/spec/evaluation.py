"""How a study evaluates: what is predicted at which learning rates, and what picks them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from finetrial import catalog
from finetrial.records.results import Routing
from finetrial.spec.model import Frozen


class Evaluation(Frozen):
    """How predictions are made; the same for every arm.

    `routings`: `latest` evaluates the newest instance of every slot; `oracle`, beside it, the one bound to the task.
    `rates`: at which learning rates the losses on every task are taken. With `chosen`, only validation on what was just
    trained, which picks the rate, is taken at all of them, and of the controls' arms everything; what needs the whole
    grid, forgetting at matched plasticity, cannot be asked for then.
    `select_by`: what validation picks a rate by: the `loss` of what was just trained, or the primary `metric` of its task, for
    which outputs for validation items are generated at every rate (`Study.selection_metric`).
    `seed_variance`: how far seeds vary is told by the comparison's `own` seeds, or `moderated` by those of the other arms,
    or by whichever gives the wider interval (`cautious`; see analysis/moderation.py).
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")
    routings: tuple[Routing, ...] = ("latest",)
    rates: Literal["all", "chosen"] = "all"
    select_by: Literal["loss", "metric"] = "loss"
    seed_variance: Literal["cautious", "own", "moderated"] = "cautious"
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)

    @field_validator("select_by", mode="before")
    @classmethod
    def _no_metric_by_name(cls, value: Any) -> Any:
        if value in catalog.names("scorer"):
            raise ValueError(f"write `metric`: it is the primary metric of the task just trained, as {value} is of a task with "
                             f"`metrics: [{value}]`")
        return value
