"""A method that occurs at one place in a sequence only cannot be told from that place.

One arm trains the first task by one method and the second by another: whatever comes out may be the method's doing or
the position's. Two arms that differ in the method at some position can be compared there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.fingerprint import key_of
from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.arm import Arm
from finetrial.spec.model import plugin_identity
from finetrial.spec.slots import Carry
from finetrial.spec.study import Sequence, Study


class MethodTiedToPosition(Rule):
    """Methods that change along a sequence must change between arms too."""

    summary: ClassVar[str] = "a method occurs at one position of a sequence only"

    def check(self, study: Study) -> Iterator[Found]:
        """One threat for each sequence along which methods change while all arms agree at every position."""
        for path in study.paths:
            arms = study.arms_along(path)
            if not arms or any(len({_methods(arm, phase) for arm in arms}) > 1 for phase in path.tasks):
                continue
            arm = arms[0]
            changed = _change(arm, path)
            if changed is not None:
                first, then = changed
                yield Found("threat", f"{arm.name} trains {first} by {_kinds(arm, first)} and {then} by "
                                      f"{_kinds(arm, then)}, and no arm does otherwise: an effect of the method cannot "
                                      "be told from one of the position; cross methods with positions",
                            f"sequences.{path.name}")


def _change(arm: Arm, path: Sequence) -> tuple[str, str] | None:
    """Two phases of an arm with methods of which neither are all found in the other."""
    for earlier, first in enumerate(path.tasks):
        for then in path.tasks[earlier + 1:]:
            before, after = _methods(arm, first), _methods(arm, then)
            if not (before <= after or after <= before):
                return first, then
    return None


def _methods(arm: Arm, phase: str) -> frozenset[str]:
    """What a phase trains, each method with its options."""
    return frozenset(key_of(plugin_identity(component.method)) for component in arm.for_task(phase)
                     if component.method is not None and component.carry is not Carry.FREEZE)


def _kinds(arm: Arm, phase: str) -> str:
    return " + ".join(component.method.kind for component in arm.for_task(phase) if component.method is not None)
