"""Which jobs may share a process so that their first stages are computed in one pass, and how many of them.

A kind of stage says what stages must have in common (`StageKind.shared_by_stack`). How many are taken is a number that
somebody has set, or what pays on the device (`plan/forecast/stacking.py`). Nothing of this is identity: every stage has
a record of its own, equal to the one that it has alone up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from finetrial import catalog
from finetrial.fingerprint import key_of
from finetrial.plan.forecast.stacking import stack_size_of
from finetrial.run.walk import StageState
from finetrial.stages.base import StageKind

Automatic = Callable[[StageState], int]  # how many stages like this one are worth a pass


def automatic(device: str, available_bytes: int | None) -> int | Automatic:
    """Stacks of the size that pays on `device`, of which so much memory is free; 1 where none pays."""
    if device.partition(":")[0] != "cuda" or available_bytes is None:
        return 1
    return lambda state: stack_size_of(state.stage.spec, Path(state.stage.locations["base"]), state.micro_batch,
                                       device=device, available_bytes=available_bytes)


class Stacks:
    """Puts jobs together. Stages that have been out of memory together are put into smaller stacks from then on."""

    def __init__(self, size: int | Automatic) -> None:
        self._size = size
        self._most: dict[str, int] = {}  # by what the members of a stack have in common

    def jobs(self, ready: Iterable[list[StageState]], places: int) -> Iterator[tuple[list[StageState], tuple[str, ...]]]:
        """The jobs to start on `places` free places, those that share a pass as one job: its members, and the ids of
        those that share the pass. The order is that of the first of each.
        """
        if self._size == 1:
            for members in ready:  # one by one: looking at a job may take time
                yield members, ()
            return
        alone: list[tuple[int, list[list[StageState]]]] = []
        alike: dict[str, list[tuple[int, list[StageState]]]] = {}
        for place, members in enumerate(ready):
            if (key := _key(members[0])) is None:
                alone.append((place, [members]))
            else:
                alike.setdefault(key, []).append((place, members))
        stacks = [(part[0][0], [members for _, members in part]) for key, jobs in alike.items()
                  for part in self._parts(key, jobs, places)]
        for _, together in sorted([*alone, *stacks], key=lambda one: one[0]):
            # those that share the pass first, then what follows from each
            firsts, rest = [members[0] for members in together], [state for members in together for state in members[1:]]
            yield [*firsts, *rest], tuple(state.stage.id for state in firsts) if len(firsts) > 1 else ()

    def apart(self, state: StageState, cells: int, reason: str, *, memory: bool) -> str:
        """Have a stage computed otherwise that failed among `cells` in one pass: in stacks of half as many where memory was
        lacking, else by itself. What is done, for the record."""
        key, half = _key(state), cells // 2
        if memory and key is not None:
            self._most[key] = half = max(1, min(half, self._most.get(key, half)))
            if half > 1:
                return f"out of memory in a stack of {cells}; next in stacks of {half}: {reason}"
        state.stacks = False
        return f"not stacked: {reason}"

    def _parts(self, key: str, jobs: list[tuple[int, list[StageState]]],
               places: int) -> list[list[tuple[int, list[StageState]]]]:
        """Stacks as large as may be; of automatic ones as many as there are places, and of equal size."""
        if callable(self._size):
            if key not in self._most:
                self._most[key] = min(self._size(members[0]) for _, members in jobs)  # their ranks may differ
            most = self._most[key]
            passes = max(math.ceil(len(jobs) / most), min(places, len(jobs)))
            size = math.ceil(len(jobs) / passes)
        else:
            size = min(self._size, self._most.get(key, self._size))
        return [jobs[first:first + size] for first in range(0, len(jobs), size)]


def _key(state: StageState) -> str | None:
    """What a stage has in common with all that it can share a pass with; None if it must be computed alone."""
    if not state.stacks or state.stage.activation_checkpointing:
        return None
    kind: type[StageKind] = catalog.find("stage", state.stage.kind)
    shared = kind.shared_by_stack(state.stage.spec)
    if shared is None:
        return None
    return key_of([state.stage.kind, shared, dict(state.stage.locations), state.micro_batch])
