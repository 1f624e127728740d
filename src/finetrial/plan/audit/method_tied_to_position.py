"""A method that occurs at one place in a sequence only cannot be told from that place.

One arm trains the first task by one method and the second by another: whatever comes out may be the method's doing or
the position's. It can be told where arms differ in the method at some position, or where one of the methods stands at
another position in another sequence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import ClassVar

from finetrial.fingerprint import key_of
from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.arm import Arm
from finetrial.spec.model import plugin_identity
from finetrial.spec.study import Study

Methods = frozenset[str]


class MethodTiedToPosition(Rule):
    """Methods that change along a sequence must change between arms or sequences too."""

    summary: ClassVar[str] = "a method occurs at one position of a sequence only"

    def check(self, study: Study) -> Iterator[Found]:
        """One threat for each sequence along which methods change while nothing else tells them from positions."""
        positions: dict[Methods, set[int]] = defaultdict(set)
        for path in study.paths:
            for arm in study.arms_along(path):
                for at, phase in enumerate(path.tasks):
                    positions[_methods(arm, phase)].add(at)
        for path in study.paths:
            arms = study.arms_along(path)
            if not arms or any(len({_methods(arm, phase) for arm in arms}) > 1 for phase in path.tasks):
                continue
            arm = arms[0]
            for first, then in combinations(path.tasks, 2):
                before, after = _methods(arm, first), _methods(arm, then)
                nested = before <= after or after <= before
                if not nested and len(positions[before]) == 1 == len(positions[after]):
                    yield Found("threat", f"{arm.name} trains {first} by {_kinds(arm, first)} and {then} by "
                                          f"{_kinds(arm, then)}, and no arm does otherwise: an effect of the method "
                                          "cannot be told from one of the position; cross methods with positions",
                                f"sequences.{path.name}")
                    break


def _methods(arm: Arm, phase: str) -> Methods:
    """What a phase trains, each method with its options."""
    return frozenset(key_of(plugin_identity(method)) for method in arm.trained_methods(phase))


def _kinds(arm: Arm, phase: str) -> str:
    return " + ".join(component.method.kind for component in arm.for_task(phase) if component.method is not None)
