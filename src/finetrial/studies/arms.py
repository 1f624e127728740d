"""Arms that the built-in studies share: full fine-tuning, LoRA, new layers, each with a grid centred for it.

Full fine-tuning ten times lower than LoRA (Biderman et al. 2024, "LoRA Learns Less and Forgets Less"; Schulman et al.
2025 report the same ratio; the study `perplexity` tests it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetrial.methods.base import Method
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.spec import Arm, Carry, Component

FULL_RATES = (1e-4, 3e-4, 1e-3)  # of the bundled bases, which are small
LORA_RATES = (1e-3, 3e-3, 1e-2)
WIDE_RATES = (3e-4, 1e-3, 3e-3)  # one old layer, or LoRA of a high rank: found on validation with a seed of its own


@dataclass(frozen=True)
class Rates:
    """Learning rates of a scale: low where base weights move, high for new weights that start at no effect."""

    full: tuple[float, ...]
    added: tuple[float, ...]
    unfrozen: tuple[float, ...] | None = None  # of one block of the base; None = as for full
    wide: tuple[float, ...] | None = None  # of LoRA with as many parameters as a block; None = as for other new weights

    def of(self, method: Method) -> tuple[float, ...]:
        """The grid of a method."""
        if method.kind == "unfreeze":
            return self.unfrozen or self.full
        return self.full if isinstance(method, Full) else self.added


BUNDLED = Rates(FULL_RATES, LORA_RATES, WIDE_RATES, WIDE_RATES)
HUB = Rates((1e-5, 3e-5, 1e-4), (1e-4, 3e-4, 1e-3))  # of hub models from 60M to 7B parameters


def higher(rates: tuple[float, ...]) -> tuple[float, ...]:
    """A grid in half decades, half a decade higher: for a task far from what the base has read."""
    return (*rates[1:], float(f"{10 * rates[-2]:g}")) if len(rates) > 1 else rates


def arm(name: str, label: str, *methods: Method, rates: Rates = BUNDLED, **more: object) -> Arm:
    """An arm that does the same for every task: slots main, main2, ... with one method each."""
    components = tuple(Component(method=method, slot="main" if number == 1 else f"main{number}")
                       for number, method in enumerate(methods, start=1))
    return Arm(name=name, label=label, components={"*": components}, learning_rates=rates.of(methods[0]), **more)


def path_arm(name: str, label: str, first: Method, then: Method, carry: Carry, tasks: tuple[str, str],
             slot: str = "main", rates: Rates = BUNDLED, then_rates: tuple[float, ...] | None = None) -> Arm:
    """An arm with one method for the first task and another for the second: `carry` says what becomes of the first.

    With a `slot` of its own the second stands beside the first, which stays as it is. `then_rates`: the grid of the second
    task, if not the usual one of its method.
    """
    components: Mapping[str, tuple[Component, ...]] = {
        tasks[0]: (Component(method=first, carry=carry),), tasks[1]: (Component(method=then, carry=carry, slot=slot),)}
    return Arm(name=name, label=label, components=dict(components), learning_rates=rates.of(first),
               learning_rates_for={tasks[1]: then_rates or rates.of(then)})


def lora(rank: int, targets: str = "attention") -> Lora:
    """LoRA with alpha twice the rank."""
    return Lora(rank=rank, targets=targets)
