"""A component that is swapped in for its task has not been touched since: nothing can have been forgotten.

Under ORACLE routing the instance bound to the old task answers for it. Where later phases trained other instances, the
weights that answer are the same before and after, and forgetting is exactly zero whatever the method does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.measures.base import phase_that_trained
from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.hypothesis import MATCHED, Contrast, Side
from finetrial.spec.slots import Place, State, answering
from finetrial.spec.study import Study, slot_states

FORGETTING = ("forgetting", "forgetting-max", MATCHED)


class ZeroByConstruction(Rule):
    """A contrast of forgetting compares what can differ."""

    summary: ClassVar[str] = "forgetting is zero by construction, because the weights that answer were never touched"

    def check(self, study: Study) -> Iterator[Found]:
        """A threat if every side of a contrast is zero by construction; a warning if some are."""
        for where, contrast in _stated(study):
            zero = [side.arm for side in contrast.sides if _is_zero(study, contrast, side)]
            what = f"forgetting of {contrast.task} under {contrast.routing}"
            if len(zero) == len(contrast.sides):
                yield Found("threat", f"{what} is zero by construction for {' and '.join(zero)}: the weights that "
                                      "answer are untouched by later phases, so any difference would be noise of the "
                                      "evaluation; compare under routing latest", where)
            elif zero:
                yield Found("warning", f"{what} is zero by construction for {' and '.join(zero)}: the contrast tells "
                                       "of the routing, not of the method; compare under routing latest", where)


def _stated(study: Study) -> Iterator[tuple[str, Contrast]]:
    """The contrasts of forgetting in hypotheses, and in claims as they were published."""
    for hypothesis in study.hypotheses:
        yield from ((f"hypotheses.{hypothesis.name}", contrast) for contrast in hypothesis.contrasts
                    if contrast.quantity in FORGETTING)
    for claim in study.claims:
        if claim.as_published is not None and claim.as_published.quantity in FORGETTING:
            yield f"claims.{claim.name}", claim.as_published


def _is_zero(study: Study, contrast: Contrast, side: Side) -> bool:
    """Whether the instances that answer for the task are the same, in the same state, before and after."""
    arm = next((arm for arm in study.arms if arm.name == side.arm), None)
    if arm is None:
        return False
    path = study.path(side.sequence or study.paths[0].name)
    last = len(path.tasks) if contrast.phase is None else min(contrast.phase, len(path.tasks))
    trained = phase_that_trained(contrast.task, path.tasks, last)
    if trained in (0, last):
        return False
    try:
        reached = slot_states(arm, path)
    except ValueError:  # the carries contradict each other: planning says so, with the mend
        return False
    return _answer(reached[trained - 1], contrast) == _answer(reached[last - 1], contrast)


def _answer(state: State, contrast: Contrast) -> list[tuple[str, int, bool]]:
    """The weights that answer for the task: merged and active instances, each with the last phase that trained it."""
    instances = [*state.merged, *answering(state, contrast.routing, contrast.task)]
    return [(instance.name, instance.trained, instance.place is Place.MERGED) for instance in instances]
