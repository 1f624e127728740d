"""Which jobs may share a process so that their first stages are computed in one pass.

A kind of stage says what stages must have in common (`StageKind.shared_by_stack`). Nothing of this is identity: every
stage has a record of its own, equal to the one that it has alone up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetrial import catalog
from finetrial.fingerprint import key_of
from finetrial.run.walk import StageState
from finetrial.stages.base import StageKind


def stacked(jobs: Iterable[list[StageState]], most: int) -> Iterator[tuple[list[StageState], tuple[str, ...]]]:
    """The jobs, of up to `most` that can share a pass one job: its members, and the ids of those that share the pass.

    The order is that of the first of each.
    """
    if most <= 1:
        for members in jobs:  # one by one: looking at a job may take time
            yield members, ()
        return
    waiting: dict[str, list[list[StageState]]] = {}
    order: list[list[list[StageState]]] = []
    for members in jobs:
        key = _stack_key(members[0])
        if key is None:
            order.append([members])
            continue
        if key not in waiting or len(waiting[key]) == most:
            waiting[key] = []
            order.append(waiting[key])
        waiting[key].append(members)
    for together in order:
        # those that share the pass first, then what follows from each
        firsts, rest = [members[0] for members in together], [state for members in together for state in members[1:]]
        yield [*firsts, *rest], tuple(state.stage.id for state in firsts) if len(firsts) > 1 else ()


def _stack_key(state: StageState) -> str | None:
    """What a stage has in common with all that it can share a pass with; None if it must be computed alone."""
    if not state.stacks or state.stage.activation_checkpointing:
        return None
    kind: type[StageKind] = catalog.find("stage", state.stage.kind)
    shared = kind.shared_by_stack(state.stage.spec)
    if shared is None:
        return None
    return key_of([state.stage.kind, shared, dict(state.stage.locations), state.micro_batch])
