"""An arm whose size or budget is solved for at planning, so that it costs what another arm costs (`plan/matched.py`).

    match: {arm: layer, quantity: parameters, option: rank}     the rank at which as many parameters are trained
    match: {arm: full, quantity: flops}                         the budget that takes as many operations

`parameters`: an integer option of one of the arm's methods is solved for. `tokens`, `flops`, `train_time`: the arm's own
budget is. What was solved is written into the study of the run, so that a run's study is never solved again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from finetrial.spec.model import Frozen

Quantity = Literal["parameters", "tokens", "flops", "train_time"]
UNITS: Mapping[Quantity, str] = {"parameters": "parameters", "tokens": "tokens", "flops": "operations",
                                 "train_time": "seconds"}
VALUE = "{value}"  # in an arm's label: what was solved


class Solved(Frozen):
    """What a match came to. Amounts by base, in the unit of the quantity: parameters, tokens, operations or seconds of a run."""

    value: int  # of the option, or the amount of the budget in its own unit
    own: dict[str, int | float]
    other: dict[str, int | float]

    def off(self, base: str) -> float:
        """What the match left over on a base, as a share of the other arm's amount: +0.01 is one per cent too much."""
        return self.own[base] / self.other[base] - 1


class Match(Frozen):
    """What is made equal, and to which arm."""

    arm: str
    quantity: Quantity = "parameters"
    option: str = ""  # `rank`; `options.r` for one inside a mapping
    slot: str = ""  # which component has the option, where several have
    solved: Solved | None = None  # written by planning

    @model_validator(mode="after")
    def _option_of_parameters(self) -> Match:
        if self.quantity == "parameters" and not self.option:
            raise ValueError("a match on parameters needs the option to solve for, such as option: rank")
        if self.quantity != "parameters" and (self.option or self.slot):
            raise ValueError(f"a match on {self.quantity} solves for the arm's budget; leave option and slot out, or write "
                             "quantity: parameters")
        return self

    @property
    def sentence(self) -> str:
        """`to layer on parameters: rank 48, 786,432 against 789,760 (-0.4 %)`; one pair a base."""
        said = f"to {self.arm} on {self.quantity}"
        if self.solved is None:
            return said
        pairs = [f"{own:,.7g} against {self.solved.other[base]:,.7g} {UNITS[self.quantity]} ({self.solved.off(base):+.1%})"
                 for base, own in self.solved.own.items()]
        return f"{said}: {self.option or 'budget'} {self.solved.value:,}, {'; '.join(pairs)}"
