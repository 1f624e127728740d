"""Matching a budget of trainable parameters: the value of a method's option (a rank, an inner width, a number of blocks)
that comes nearest to a target. Pure arithmetic on config.json.

    nearest_values(Lora(), "rank", target=Layer().count_trainable(config), config=config)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetrial.errors import ModelError, SpecError, unknown
from finetrial.methods.base import Method

TOLERANCE = 0.02  # within this share of the target a budget counts as matched


@dataclass(frozen=True)
class Tried:
    """A method with the option set, and what it trains."""

    method: Method
    option: str
    value: int
    trainable: int
    target: int

    @property
    def off(self) -> float:
        """What the value leaves over, as a share of the target: +0.01 is one per cent too many."""
        return self.trainable / self.target - 1


def nearest_values(method: Method, option: str, target: int, config: Mapping[str, Any], *,
                   beside: int = 0) -> tuple[Tried, ...]:
    """The best value of `option` (an integer; `options.r` for one inside a mapping), for a model with this config.json.

    `beside` other parameters are trained with those of the method, and count.

    One if it is within TOLERANCE of the target; else the nearest below and the nearest above, so that both are
    run, or only one where the option has no value beyond. Relies on the number growing with the option. Raises
    SpecError for an option that the method does not have, and ModelError if its numbers are not known for this model,
    if no value of it is possible, or if they are the same at every value.
    """
    if target <= 0:
        raise SpecError("match", [f"target: {target} parameters; expected a positive number"])
    search = _Search(method, option, target, config, beside)
    above = search.first_reaching()
    found = [tried for tried in (search.at(above - 1), search.at(above)) if tried is not None]
    if not found:
        raise ModelError(f"no value of {option} of {method.kind} is possible for this model", "match another option")
    best = min(found, key=lambda tried: (abs(tried.off), tried.value))
    return (best,) if abs(best.off) <= TOLERANCE else tuple(found)


@dataclass(frozen=True)
class _Search:
    """One method and option, tried at values; `beside` parameters are trained with the method's."""

    method: Method
    option: str
    target: int
    config: Mapping[str, Any]
    beside: int

    def first_reaching(self) -> int:
        """The smallest value that trains at least the target, or that is not possible any more."""
        one, two = self.at(1), self.at(2)
        if one is not None and two is not None and one.trainable == two.trainable:
            raise ModelError(f"{self.option} of {self.method.kind} does not change the number of trained parameters",
                             "match an option that does")
        low, high = 0, 1
        while not self._reached(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._reached(middle) else (middle, high)
        return high

    def at(self, value: int) -> Tried | None:
        """The method with the option at `value`; None if that is not possible for the model."""
        if value < 1:
            return None
        try:
            changed = _with(self.method, self.option, value)
            trainable = changed.count_trainable(self.config)
        except (ModelError, ValidationError):
            if value == 1:
                raise
            return None
        if trainable is None:
            raise ModelError(f"the number of parameters that {self.method.kind} trains is not known for this "
                             f"{self.config.get('model_type')} model", "set the options yourself")
        return Tried(changed, self.option, value, trainable + self.beside, self.target)

    def _reached(self, value: int) -> bool:
        tried = self.at(value)
        return tried is None or tried.trainable >= self.target


def _with(method: Method, option: str, value: int) -> Method:
    name, _, inner = option.partition(".")
    if name not in type(method).model_fields:
        raise SpecError("match", [unknown(f"option of {method.kind}", name, type(method).model_fields)])
    given = {field: getattr(method, field) for field in method.model_fields_set}
    given[name] = {**getattr(method, name), inner: value} if inner else value
    return type(method)(**given)
