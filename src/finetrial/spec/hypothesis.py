"""Hypotheses: stated before the run, as contrasts that the analysis answers.

A contrast is left minus right in one quantity, signed so that higher is better for scores and so that positive is
worse for forgetting. `expect` states the claim:

- `greater` / `less`: the difference lies above / below 0;
- `equal`: the difference lies within +- `margin`;
- `within`: the quantity lies inside `bounds` (for ratios: bounds on the ratio itself).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from finetrial.spec.model import Frozen

Quantity = Literal["score", "forgetting", "forgetting-at-matched-plasticity", "learning-rate-ratio", "cost"]
Expectation = Literal["greater", "less", "equal", "within"]


class Contrast(Frozen):
    """One comparison of two arms (or of an arm with the untouched base, named `base`)."""

    left: str
    right: str
    quantity: Quantity = "score"
    task: str = ""  # scored on; for forgetting: what is forgotten. Empty only for learning-rate-ratio and cost
    learned: str = ""  # for forgetting-at-matched-plasticity: the task whose plasticity is matched
    metric: str = ""  # empty = the task's primary metric
    cost: str = ""  # for quantity cost: a column of `costs`, such as params_trainable
    base: str = ""  # empty = the study's only base
    sequence: str = ""  # empty = the study's only sequence
    phase: int | None = None  # None = after the last phase
    routing: Literal["latest", "oracle"] = "latest"
    expect: Expectation = "greater"
    margin: float | None = Field(default=None, gt=0)  # equivalence margin, in the metric's unit
    bounds: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Contrast:
        if self.expect == "within" and self.bounds is None:
            raise ValueError("expect: within needs bounds: [low, high]")
        if self.expect == "equal" and self.margin is None:
            raise ValueError("expect: equal needs a margin, in the metric's unit")
        if self.quantity in ("score", "forgetting", "forgetting-at-matched-plasticity") and not self.task:
            raise ValueError(f"a contrast of {self.quantity} needs the task it is measured on")
        if self.quantity == "forgetting-at-matched-plasticity" and not self.learned:
            raise ValueError("forgetting-at-matched-plasticity needs `learned`, the task whose plasticity is matched")
        if self.quantity == "cost" and not self.cost:
            raise ValueError("a contrast of cost needs `cost`, such as params_trainable")
        if self.left == self.right:
            raise ValueError(f"left and right are both {self.left!r}")
        return self


class Hypothesis(Frozen):
    """A claim in words, and the contrast, or combination of contrasts, that answers it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")
    statement: str
    contrast: Contrast | None = None
    all_of: tuple[Contrast, ...] = ()
    any_of: tuple[Contrast, ...] = ()
    primary: bool = True  # primary contrasts share one Holm family

    @model_validator(mode="after")
    def _one_form(self) -> Hypothesis:
        forms = [self.contrast is not None, bool(self.all_of), bool(self.any_of)]
        if sum(forms) != 1:
            raise ValueError("a hypothesis has exactly one of contrast, all_of, any_of")
        return self

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """All contrasts, in order."""
        return (self.contrast,) if self.contrast is not None else self.all_of or self.any_of
