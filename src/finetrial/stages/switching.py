"""The parts of several tasks on one base in one process: adapters and layers side by side, one task's active at a time.

    parts = TaskSwitch.open(base, folder)
    parts.to("code")                # under ORACLE routing: the instances that learned it
    parts.model.generate(...)

The base is in memory once. An adapter or a layer that is switched off stays beside it; of weights of the base that were
trained in place (`full`, `unfreeze`) a copy is kept, and switching copies.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrial.errors import ModelError, UserError, unknown
from finetrial.spec.slots import Instance, State, answering
from finetrial.stages.adapted import attach, instance_folder, read_state
from finetrial.streams import Streams

if TYPE_CHECKING:
    from finetrial.methods.base import Component
    from finetrial.models.load import LoadedBase


class TaskSwitch:
    """A base with everything that an arm trained on it, beside each other. Made by `open`."""

    def __init__(self, base: LoadedBase, state: State, components: dict[str, Component]) -> None:
        self.base, self._state, self._components = base, state, components
        self._active: list[str] = []
        self.task = ""  # the one that was switched to; empty: the base, with what was merged into it

    @classmethod
    def open(cls, base: LoadedBase, folder: Path) -> TaskSwitch:
        """What a phase left in `folder` (`state.json`, a folder an instance), on a freshly loaded base. The last task
        that was learned answers. Raises ModelError for methods that cannot stand side by side."""
        from finetrial.models import params

        state = read_state(folder)
        components: dict[str, Component] = {}
        of_base = {id(parameter) for parameter in base.model.parameters()}
        kept = [instance for instance in state.instances if instance not in state.merged]
        for instance in (*state.merged, *kept):
            component = _attached(base, instance)
            if instance in kept:
                component.remember()  # all others are off: what is there now is the base's
            component.load(folder / instance_folder(instance))
            if instance in kept:
                component.set_active(False)
                components[instance.name] = component
            else:
                component.merge()
        for task in state.learned:
            _refuse_shared([components[instance.name] for instance in answering(state, "oracle", task)], of_base)
        params.own(base.model, [])
        base.model.eval()
        made = cls(base, state, components)
        made.to(made.tasks[-1])
        return made

    @property
    def model(self) -> Any:
        """The model in memory, as it answers for `task`."""
        return self.base.model

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self.base.tokenizer

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were learned, in order."""
        return self._state.learned

    def to(self, task: str) -> float:
        """Let the parts that learned `task` answer, or with an empty one the base alone; returns the seconds that it
        took. Raises UserError for a task that was not learned."""
        if task and task not in self.tasks:
            raise UserError(unknown("task", task, self.tasks), "those that this arm learned can be switched to")
        wanted = [instance.name for instance in answering(self._state, "oracle", task)] if task else []
        started = time.perf_counter()
        switch([self._components[name] for name in self._active if name not in wanted],
               [self._components[name] for name in wanted if name not in self._active])
        seconds = time.perf_counter() - started
        self._active, self.task = wanted, task
        return seconds


def switch(off: Sequence[Component], on: Sequence[Component]) -> None:
    """Switch components off, the newest first, then others on, the oldest first."""
    for component in reversed(off):
        component.set_active(False)
    for component in on:
        component.set_active(True)


def _refuse_shared(together: Sequence[Component], of_base: Collection[int]) -> None:
    """Of two that answer together, only one may have changed a weight of the base: switching it off puts back what was there
    before either."""
    owners: dict[int, str] = {}
    for component in together:
        for parameter in (*component.parameters().values(), *component.rewritten().values()):
            if id(parameter) in of_base and owners.setdefault(id(parameter), component.name) != component.name:
                raise ModelError(f"{owners[id(parameter)]} and {component.name} changed the same weights of the base, and answer "
                                 "together", "open the tasks one at a time: run.model(arm, task=...)")


def _attached(base: LoadedBase, instance: Instance) -> Component:
    try:
        return attach(base, instance, Streams(0))
    except ModelError as error:
        raise ModelError(f"{instance.name} cannot stand beside what other tasks have trained: {error.problem}",
                         "open the tasks one at a time: run.model(arm, task=...)") from error
