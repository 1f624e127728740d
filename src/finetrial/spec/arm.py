"""Arms: what is done to the base in each phase, and the controls made from arms.

An arm lists components per task (`"*"` stands for every task that is not named). A component is a slot (where its
weights live, so that a later phase can refer to them), a method, and a carry: what a later phase does with what the
slot holds already.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, SerializeAsAny, field_serializer, field_validator, model_validator

from finetrial.methods.base import Method
from finetrial.spec.model import Frozen, plugin_from, plugin_identity
from finetrial.train.config import Training


class Carry(StrEnum):
    """What a phase does with the slot that the phase before left."""

    CONTINUE = "continue"  # the same weights go on training
    FRESH = "fresh"  # the old instance is unloaded, a new one starts on the base


class Component(Frozen):
    """Slot + method + carry."""

    method: SerializeAsAny[Method]
    slot: str = "main"
    carry: Carry = Carry.CONTINUE

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, (str, Method)) else value

    @field_validator("method", mode="before")
    @classmethod
    def _find_method(cls, value: Any) -> Any:
        return plugin_from("method", value)

    @field_serializer("method")
    def _write_method(self, method: Method) -> dict[str, Any]:
        return plugin_identity(method)


class Arm(Frozen):
    """One way to adapt the base."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")
    components: dict[str, tuple[Component, ...]]
    learning_rates: tuple[float, ...] = Field(min_length=1)
    training: Training | None = None  # None = the study's; anything else must be a declared factor
    label: str = ""

    @field_validator("components", mode="before")
    @classmethod
    def _for_every_task(cls, value: Any) -> Any:
        if isinstance(value, (str, Method, Component)):
            value = (value,)
        return {"*": tuple(value)} if isinstance(value, (list, tuple)) else value

    @field_validator("learning_rates")
    @classmethod
    def _positive_and_sorted(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if any(rate <= 0 for rate in rates):
            raise ValueError(f"learning rates must be positive, got {list(rates)}")
        if len(set(rates)) != len(rates):
            raise ValueError(f"learning rates must differ, got {list(rates)}")
        return tuple(sorted(rates))

    def for_task(self, task: str) -> tuple[Component, ...]:
        """The components of the phase that trains on `task`."""
        return self.components.get(task, self.components.get("*", ()))

    @property
    def centre_rate(self) -> float:
        """The middle of the learning-rate grid (the lower middle of an even one)."""
        return self.learning_rates[(len(self.learning_rates) - 1) // 2]

    @property
    def title(self) -> str:
        """What people read."""
        return self.label or self.name


class PositiveControl(Frozen):
    """An arm run so that a known effect must appear: at `rate_factor` times its grid's centre it must do harm.

    The assay passes if the control scores worse on `task` than the same arm at its centre, with an interval.
    """

    arm: str
    task: str
    rate_factor: float = Field(default=10.0, gt=1.0)


class Controls(Frozen):
    """What shows that the trial could have seen an effect, and how large no effect looks."""

    reference: str  # the arm that the A/A control repeats with other streams, at its centre rate
    positive: PositiveControl | None = None
