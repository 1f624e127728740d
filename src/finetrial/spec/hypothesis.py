"""Hypotheses: stated before the run, as contrasts that the analysis answers.

A contrast is left minus right in one quantity, signed so that higher is better for scores and so that positive is
worse for forgetting. Its arms are arms of the study, the untouched base (`base`) or a floor (`floor:lead-1`). `expect`
states the claim:

- `greater` / `less`: the difference lies above / below 0;
- `equal`: the difference lies within +- `margin`;
- `within`: the quantity lies inside `bounds` (for ratios: bounds on the ratio itself).

Ratios, left over right, are the quantities `learning-rate-ratio` and a measured cost (seconds, peak memory); 1 means no
difference there, and a margin of 0.1 means up to 1.1 times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from finetrial import catalog
from finetrial.errors import unknown
from finetrial.records.results import Routing
from finetrial.spec.model import Frozen

Expectation = Literal["greater", "less", "equal", "within"]

FLOOR = "floor:"  # of the names of pseudo-arms whose outputs need no model, and of their columns of texts
SCORE, MATCHED, RATE_RATIO, COST = "score", "forgetting-at-matched-plasticity", "learning-rate-ratio", "cost"
EXACT_COSTS = ("params_total", "params_trainable", "stored_bytes", "optimizer_bytes", "train_tokens", "predict_tokens")
MEASURED_COSTS = ("train_seconds", "tuning_seconds", "predict_seconds", "swap_seconds", "tokens_per_second",
                  "predict_tokens_per_second", "peak_host_bytes", "peak_device_allocated_bytes", "peak_device_reserved_bytes")
OF_ONE_TASK = (SCORE, MATCHED, "plasticity", "forgetting", "forgetting-max")


@dataclass(frozen=True)
class Side:
    """One arm of a contrast: its coefficient, and where it is found (empty = the study's only one)."""

    coefficient: float
    arm: str
    base: str
    sequence: str


class Contrast(Frozen):
    """One comparison of two arms, or (with `interaction`) of two differences."""

    left: str
    right: str
    interaction: tuple[str, str] | None = None  # (left - right) - (first - second): of a 2x2 factorial
    quantity: str = SCORE  # a score, any measure, forgetting-at-matched-plasticity, learning-rate-ratio or cost
    task: str = ""  # scored on; for forgetting: what is forgotten. Empty where the quantity is a mean over tasks
    learned: str = ""  # for forgetting-at-matched-plasticity: the task whose plasticity is matched
    metric: str = ""  # empty = the task's primary metric
    cost: str = ""  # for quantity cost: a column of `costs`, such as params_trainable
    base: str = ""  # empty = the study's only base
    sequence: str = ""  # empty = the study's only sequence
    left_base: str = ""  # empty = `base`; the same for the next three
    right_base: str = ""
    left_sequence: str = ""  # such as b-then-a, against a-then-b on the right
    right_sequence: str = ""
    phase: int | None = Field(default=None, ge=0)  # None = after the last phase of each side's sequence
    routing: Routing = "latest"
    expect: Expectation = "greater"
    margin: float | None = Field(default=None, gt=0)  # equivalence margin, in the metric's unit
    bounds: tuple[float, float] | None = None

    @field_validator("quantity")
    @classmethod
    def _known_quantity(cls, quantity: str) -> str:
        known = [SCORE, *catalog.names("measure"), MATCHED, RATE_RATIO, COST]
        if quantity not in known:
            raise ValueError(unknown("quantity", quantity, known))
        return quantity

    @model_validator(mode="after")
    def _complete(self) -> Contrast:
        for problem in (*self._missing(), *self._contradictions()):
            raise ValueError(problem)
        return self

    def _missing(self) -> Iterable[str]:
        if self.expect == "within" and self.bounds is None:
            yield "expect: within needs bounds: [low, high]"
        if self.expect == "equal" and self.margin is None:
            yield "expect: equal needs a margin, in the metric's unit"
        if self.quantity in OF_ONE_TASK and not self.task:
            yield f"a contrast of {self.quantity} needs the task it is measured on"
        if self.quantity == MATCHED and not self.learned:
            yield "forgetting-at-matched-plasticity needs `learned`, the task whose plasticity is matched"
        if self.quantity == COST and not self.cost:
            yield "a contrast of cost needs `cost`, such as params_trainable"

    def _contradictions(self) -> Iterable[str]:
        left, right = self.sides[:2]
        low, high = self.bounds or (-math.inf, math.inf)
        if not low < high:
            yield f"bounds are [low, high] with low below high, got [{low:g}, {high:g}]"
        if self.bounds is not None and self.is_ratio and low <= 0:
            yield f"bounds on a ratio are positive, got [{low:g}, {high:g}]"
        if self.quantity == COST and self.cost and self.cost not in (*EXACT_COSTS, *MEASURED_COSTS):
            yield unknown("cost", self.cost, (*EXACT_COSTS, *MEASURED_COSTS))
        if (left.arm, left.base, left.sequence) == (right.arm, right.base, right.sequence):
            yield f"left and right are both {self.left!r}"
        if self.interaction is not None and self.quantity in (MATCHED, RATE_RATIO, COST):
            yield f"an interaction is of scores or measures, not of {self.quantity}"
        if self.quantity not in (SCORE, MATCHED, RATE_RATIO, COST):
            measure = catalog.find("measure", self.quantity)
            if measure.is_ratio:  # type: ignore[attr-defined]
                yield f"{self.quantity} is a ratio, whose differences have no interval; compare forgetting instead"

    @property
    def is_ratio(self) -> bool:
        """Whether the estimate is left over right, not left minus right."""
        return self.quantity == RATE_RATIO or (self.quantity == COST and self.cost not in EXACT_COSTS)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Left, right and, for an interaction, the two arms of the second difference."""
        found = [Side(1.0, self.left, self.left_base or self.base, self.left_sequence or self.sequence),
                 Side(-1.0, self.right, self.right_base or self.base, self.right_sequence or self.sequence)]
        if self.interaction is not None:
            first, second = self.interaction
            found += [Side(-1.0, first, self.base, self.sequence), Side(1.0, second, self.base, self.sequence)]
        return tuple(found)

    @property
    def is_tested(self) -> bool:
        """Whether noise is in it: exact costs are told without a test."""
        return self.is_ratio or self.quantity != COST

    @property
    def flipped(self) -> Contrast:
        """Right minus left."""
        swapped = {f"{one}{what}": getattr(self, f"{other}{what}") for what in ("", "_base", "_sequence")
                   for one, other in (("left", "right"), ("right", "left"))}
        return self.model_copy(update=swapped)

    @property
    def test(self) -> Contrast:
        """The two-sided test behind a claimed direction, whichever it is: the same for left - right and right - left."""
        if self.expect not in ("greater", "less"):
            return self
        turn = self.interaction is None and (self.left, self.left_base, self.left_sequence) > (
            self.right, self.right_base, self.right_sequence)
        return (self.flipped if turn else self).model_copy(update={"expect": "greater", "margin": None})


class Hypothesis(Frozen):
    """A claim in words, and the contrast, or combination of contrasts, that answers it.

    A member of `any_of` is a contrast or a list of contrasts that must all hold: `any_of: [[a, b], [c, d]]`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")
    statement: str
    contrast: Contrast | None = None
    all_of: tuple[Contrast, ...] = ()
    any_of: tuple[Contrast | tuple[Contrast, ...], ...] = ()
    primary: bool = True  # primary contrasts share one Holm family

    @model_validator(mode="after")
    def _one_form(self) -> Hypothesis:
        forms = [self.contrast is not None, bool(self.all_of), bool(self.any_of)]
        if sum(forms) != 1:
            raise ValueError("a hypothesis has exactly one of contrast, all_of, any_of")
        return self

    @property
    def groups(self) -> tuple[tuple[Contrast, ...], ...]:
        """The claim holds if, in any of these groups, all contrasts hold."""
        if self.contrast is not None:
            return ((self.contrast,),)
        if self.all_of:
            return (self.all_of,)
        return tuple((member,) if isinstance(member, Contrast) else member for member in self.any_of)

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """All contrasts, in order."""
        return tuple(contrast for group in self.groups for contrast in group)
