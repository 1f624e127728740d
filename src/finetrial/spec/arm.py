"""Arms: what is done to the base in each phase, and the controls made from arms.

An arm lists components per task (`"*"` stands for every task that is not named). A component is a slot (where its
weights live, so that a later phase can refer to them), a method, and a carry: what a later phase does with what the
slot holds already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_serializer, field_validator, model_validator

from finetrial import catalog
from finetrial.errors import unknown
from finetrial.methods.base import Method
from finetrial.models.shapes import Quantization
from finetrial.spec.match import VALUE, Match
from finetrial.spec.model import Frozen, plugin_from, plugin_identity, plugin_of_spec
from finetrial.spec.slots import Carry
from finetrial.train.config import Training

ARM_NAME = r"^[a-z0-9][a-z0-9.+-]*$"


class Component(Frozen):
    """Slot + method + carry. `method` is left out where the phase only merges or freezes what the slot holds."""

    method: SerializeAsAny[Method] | None = None
    slot: str = "main"
    carry: Carry = Carry.CONTINUE

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        is_method = isinstance(value, (str, Method)) or (isinstance(value, Mapping) and "kind" in value)
        return {"method": value} if is_method else value

    @field_validator("method", mode="before")
    @classmethod
    def _find_method(cls, value: Any) -> Any:
        return None if value is None else plugin_from("method", value)

    @field_serializer("method")
    def _write_method(self, method: Method | None) -> dict[str, Any] | None:
        return None if method is None else plugin_identity(method)

    @model_validator(mode="after")
    def _method_or_carry(self) -> Component:
        if self.method is None and self.carry not in (Carry.MERGE, Carry.FREEZE):
            raise ValueError(f"slot {self.slot!r}: carry {self.carry.value} needs a method")
        return self

    @property
    def trained(self) -> Method | None:
        """The method that a phase trains here; None where what the slot holds is only frozen or merged."""
        return None if self.carry is Carry.FREEZE else self.method

    def beyond_quantized(self) -> str:
        """Why it cannot be had on a base whose matrices are held in 4 bits; empty if it can."""
        if self.carry is Carry.MERGE:
            return (f"slot {self.slot!r} is to be merged into them, which would quantise its effect away; use carry stack, "
                    "or leave quantization out")
        if self.method is None or self.method.takes_quantized:
            return ""
        return f"{self.method.kind} trains or rewrites them; use lora or layer, or leave quantization out"

    def spec(self) -> dict[str, Any]:
        """What a stage's spec holds of it."""
        method = None
        if self.method is not None:
            method = {**plugin_identity(self.method), **catalog.code_of(type(self.method))}
        return {"slot": self.slot, "carry": self.carry.value, "method": method}


def read_method(written: Mapping[str, Any]) -> Method:
    """The method of a stage's spec, as `Component.spec` writes it."""
    method: Method = plugin_of_spec("method", written)
    return method


def _listed(components: Any) -> Any:
    return tuple(components) if isinstance(components, (list, tuple)) else (components,)


class Arm(Frozen):
    """One way to adapt the base."""

    name: str = Field(pattern=ARM_NAME)
    components: dict[str, tuple[Component, ...]]
    learning_rates: tuple[float, ...] = Field(min_length=1)
    learning_rates_for: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # another grid for the phases of some tasks
    quantization: Quantization | None = None  # how the base's matrices are held, in training and answering; None: in fp32
    training: Training | None = None  # None = the study's; anything else must be a declared factor
    num_train: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)  # training rows by task; a factor
    sequences: tuple[str, ...] = ()  # the study's sequences that this arm goes along; empty = all
    factors: dict[str, int | float | str] = Field(default_factory=dict)  # levels of crossed factors, for interactions and heat maps
    label: str = ""  # {value} in it stands for what `match` solved
    match: Match | None = None  # an option or the budget is solved for at planning

    @field_validator("components", mode="before")
    @classmethod
    def _for_every_task(cls, value: Any) -> Any:
        """One component, a list of them, or either by task."""
        if isinstance(value, Mapping) and not {"kind", "method"} & set(value):
            return {task: _listed(components) for task, components in value.items()}
        return {"*": _listed(value)}

    @field_validator("num_train", mode="before")
    @classmethod
    def _rows_of_every_task(cls, value: Any) -> Any:
        return {"*": value} if isinstance(value, int) else value or {}

    @field_validator("learning_rates_for")
    @classmethod
    def _each_sorted(cls, grids: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        return {task: cls._positive_and_sorted(rates) for task, rates in grids.items()}

    @field_validator("learning_rates")
    @classmethod
    def _positive_and_sorted(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates:
            raise ValueError("a grid of learning rates has at least one")
        if any(rate <= 0 for rate in rates):
            raise ValueError(f"learning rates must be positive, got {list(rates)}")
        if len(set(rates)) != len(rates):
            raise ValueError(f"learning rates must differ, got {list(rates)}")
        rates = tuple(sorted(rates))
        for lower, higher in pairwise(rates):
            if f"{lower:g}" == f"{higher:g}":  # they name the stages
                raise ValueError(f"learning rates must differ in their first 6 digits, and {lower!r} and {higher!r} do not")
        return rates

    @model_validator(mode="after")
    def _leaves_quantized_weights_alone(self) -> Arm:
        problems = dict.fromkeys(problem for components in self.components.values() for component in components
                                 if (problem := component.beyond_quantized()))
        if self.quantization is not None and problems:
            raise ValueError(f"quantization {self.quantization} holds the base's matrices in 4 bits, and {'; '.join(problems)}")
        return self

    def for_task(self, phase: str) -> tuple[Component, ...]:
        """The components of the phase that trains on a task; a joint phase `a+b` takes those of its first task."""
        named = self.components.get(phase) or self.components.get(phase.partition("+")[0])
        return named or self.components.get("*", ())

    def trained_methods(self, phase: str) -> list[Method]:
        """What is trained in the phase that trains on a task: the methods of components that do not only freeze or merge."""
        return [method for component in self.for_task(phase) if (method := component.trained) is not None]

    def rows(self, task: str) -> int | None:
        """The training rows that this arm is given of a task; None = as the task says."""
        return self.num_train.get(task, self.num_train.get("*"))

    def rates(self, phase: str) -> tuple[float, ...]:
        """The learning-rate grid of the phase that trains on a task."""
        return self.learning_rates_for.get(phase.partition("+")[0], self.learning_rates)

    def centre_rate(self, phase: str) -> float:
        """The middle of a phase's grid (the lower middle of an even one)."""
        rates = self.rates(phase)
        return rates[(len(rates) - 1) // 2]

    @property
    def title(self) -> str:
        """What people read."""
        value = self.match.solved.value if self.match and self.match.solved else "?"
        return self.label.replace(VALUE, str(value)) or self.name


def unmatchable(arm: Arm, arms: Iterable[Arm]) -> Iterator[str]:
    """Why an arm cannot be matched to the one that it names, among a study's arms."""
    if arm.match is None:
        return
    matches = {other.name: other.match for other in arms if other.name != arm.name}
    if arm.match.arm not in matches:
        yield f"arm {arm.name}: match: " + unknown("arm", arm.match.arm, matches)
    elif (itself := matches[arm.match.arm]) is not None:
        yield (f"arm {arm.name}: match: {arm.match.arm} is matched itself, to {itself.arm}; name an arm that is not "
               "matched")


class PositiveControl(Frozen):
    """An arm run so that a known effect must appear: at `rate_factor` times its grid's centre it must do harm, or, with a
    factor below 1, learn less.

    The assay passes if the control scores worse on `task` than the same arm at its centre, with an interval.
    """

    arm: str
    task: str
    rate_factor: float = Field(default=10.0, gt=0.0)

    @field_validator("rate_factor")
    @classmethod
    def _another_rate(cls, value: float) -> float:
        if value == 1.0:
            raise ValueError("the control's rate must differ from the arm's: 10 does harm, 0.01 learns less")
        return value


class Controls(Frozen):
    """What shows that the trial could have seen an effect, and how large no effect looks."""

    reference: str  # the arm that the A/A control repeats with other streams, at its centre rate
    positive: PositiveControl | None = None
    single_task: bool = False  # also train every later task alone, from the untouched base
    joint: bool = False  # also train on all tasks of a sequence at once, with their budgets added

    @property
    def aa_name(self) -> str:
        """`<reference>-aa`: the reference arm again, with every random stream drawn anew."""
        return f"{self.reference}-aa"

    @property
    def positive_name(self) -> str:
        """`<arm>-x10`: the arm at `rate_factor` times the centre of its grid; empty without a positive control."""
        return "" if self.positive is None else f"{self.positive.arm}-x{self.positive.rate_factor:g}"
