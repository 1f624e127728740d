"""Matching a budget of trainable parameters: the value of a method's option (a rank, an inner width, a number of blocks)
that comes nearest to a target. Pure arithmetic on config.json.

    match(Lora(), "rank", target=Layer().count_trainable(config), config=config)
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
class Match:
    """A method with the option set, and what it trains."""

    method: Method
    option: str
    value: int
    trainable: int
    target: int

    @property
    def off(self) -> float:
        """What the match left over, as a share of the target: +0.01 is one per cent too many."""
        return self.trainable / self.target - 1


def match(method: Method, option: str, target: int, config: Mapping[str, Any], *, tolerance: float = TOLERANCE,
          ) -> tuple[Match, ...]:
    """The best value of `option` (an integer; `options.r` for one inside a mapping), for a model with this config.json.

    One match if it is within `tolerance` of the target; else the nearest below and the nearest above, so that both are
    run, or only one where the option has no value beyond. Relies on the number growing with the option. Raises
    SpecError for an option that the method does not have, and ModelError if its numbers are not known for this model,
    if no value of it is possible, or if they are the same at every value.
    """
    if target <= 0:
        raise SpecError("match", [f"target: {target} parameters; expected a positive number"])
    above = _first_reaching(method, option, target, config)
    found = [m for m in (_at(method, option, value, target, config) for value in (above - 1, above)) if m is not None]
    if not found:
        raise ModelError(f"no value of {option} of {method.kind} is possible for this model", "match another option")
    best = min(found, key=lambda m: (abs(m.off), m.value))
    return (best,) if abs(best.off) <= tolerance else tuple(found)


def _first_reaching(method: Method, option: str, target: int, config: Mapping[str, Any]) -> int:
    """The smallest value that trains at least `target` parameters, or that is not possible any more."""

    def reached(value: int) -> bool:
        tried = _at(method, option, value, target, config)
        return tried is None or tried.trainable >= target

    one, two = (_at(method, option, value, target, config) for value in (1, 2))
    if one is not None and two is not None and one.trainable == two.trainable:
        raise ModelError(f"{option} of {method.kind} does not change the number of trained parameters",
                         "match an option that does")
    low, high = 0, 1
    while not reached(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _at(method: Method, option: str, value: int, target: int, config: Mapping[str, Any]) -> Match | None:
    """The method with the option at `value`; None if that is not possible for the model."""
    if value < 1:
        return None
    try:
        changed = _with(method, option, value)
        trainable = changed.count_trainable(config)
    except (ModelError, ValidationError):
        if value == 1:
            raise
        return None
    if trainable is None:
        raise ModelError(f"the number of parameters that {method.kind} trains is not known for this "
                         f"{config.get('model_type')} model", "set the options yourself")
    return Match(changed, option, value, trainable, target)


def _with(method: Method, option: str, value: int) -> Method:
    name, _, inner = option.partition(".")
    if name not in type(method).model_fields:
        raise SpecError("match", [unknown(f"option of {method.kind}", name, type(method).model_fields)])
    given = {field: getattr(method, field) for field in method.model_fields_set}
    given[name] = {**getattr(method, name), inner: value} if inner else value
    return type(method)(**given)
