"""Slots: which instances of which methods a model holds after each phase, and which of them answer for a task.

A slot is a place in an arm where weights live; an instance is what one attachment put there. This file knows no
tensors: it follows the rules of carry and routing, so that a plan can be checked, and predictions that must be equal be
told, before anything runs. `stages/adapted.py` builds the model that a `State` describes.

    state = State()
    state, trained = advance(state, 1, "docs", components)   # the instances that phase 1 trains
    answering(state, "oracle", "docs")                       # the instances that answer for "docs", in order of birth
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from finetrial import catalog
from finetrial.records.results import Routing

BLOCKS = "layer"  # the method that inserts blocks: their order is that of birth
JOINT = "+"  # "docs+code": one phase on the rows of both tasks, with the budgets of both


def joined_tasks(phase: str) -> tuple[str, ...]:
    """The tasks that a phase trains on: one, or several of joint training."""
    return tuple(phase.split(JOINT))


class Carry(StrEnum):
    """What a phase does with the slot that the phase before left. In an empty slot every one starts an instance."""

    CONTINUE = "continue"  # the same weights go on training
    FRESH = "fresh"  # the old instance is unloaded, a new one starts on the base
    STACK = "stack"  # the old instance is frozen and active below the new one
    MERGE = "merge"  # the old instances are folded into the base; a new one starts if a method is given
    FREEZE = "freeze"  # the same weights, active, not trained; what a slot that is not listed does


class Place(StrEnum):
    """Where an instance stands."""

    NEWEST = "newest"  # the top of its slot
    BELOW = "below"  # frozen under a stacked one, active with it
    UNLOADED = "unloaded"  # replaced by a fresh one; kept for the tasks it is bound to
    MERGED = "merged"  # part of the base; bound to no task any more


@dataclass(frozen=True)
class Instance:
    """One attachment of a method. `method` is its identity as written in a stage's spec."""

    slot: str
    number: int  # 1, 2, ... within the slot
    method: Mapping[str, Any]
    born: int  # the phase that made it
    trained: int  # the last phase that trained it
    tasks: tuple[str, ...]  # that it was trained on, in order
    place: Place = Place.NEWEST
    below: int | None = None  # the instance it is stacked on

    @property
    def name(self) -> str:
        """`main@2`: unique in the model."""
        return f"{self.slot}@{self.number}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "tasks": list(self.tasks), "place": self.place.value, "method": dict(self.method)}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Instance:
        """The inverse of `as_dict`."""
        return cls(**{**written, "tasks": tuple(written["tasks"]), "place": Place(written["place"])})


@dataclass(frozen=True)
class State:
    """All instances of a model in order of birth; merged ones in the order in which they were folded."""

    instances: tuple[Instance, ...] = ()

    def newest(self, slot: str) -> Instance | None:
        """The top of a slot; None if nothing is there (any more)."""
        return next((i for i in reversed(self.instances) if i.slot == slot and i.place is Place.NEWEST), None)

    def chain(self, instance: Instance) -> list[Instance]:
        """The instance and all that it is stacked on, lowest first."""
        found = [instance]
        while (number := found[0].below) is not None:
            found.insert(0, next(i for i in self.instances if i.slot == instance.slot and i.number == number))
        return found

    @property
    def learned(self) -> tuple[str, ...]:
        """The tasks that the instances were trained on, in order."""
        ordered = sorted(self.instances, key=lambda instance: instance.born)
        return tuple(dict.fromkeys(task for instance in ordered for task in instance.tasks))

    @property
    def merged(self) -> list[Instance]:
        """What has become part of the base, in the order of folding."""
        return [instance for instance in self.instances if instance.place is Place.MERGED]

    @property
    def slots(self) -> list[str]:
        """The slots that hold anything, in order of first use."""
        return list(dict.fromkeys(i.slot for i in self.instances if i.place is not Place.MERGED))


def advance(state: State, phase: int, task: str, components: Sequence[Mapping[str, Any]],
            ) -> tuple[State, list[Instance]]:
    """The state after a phase that trains on `task` (`a+b`: on both), and the instances that it trains.

    `components` are `{"slot", "carry", "method"}`, method None where only merging or freezing is asked for. Raises
    ValueError for a rule that is broken: the message names slot, phase and mend.
    """
    trained: list[Instance] = []
    for component in components:
        slot, carry, method = component["slot"], Carry(component["carry"]), component["method"]
        old = state.newest(slot)
        if old is None:
            if method is None:
                raise ValueError(f"slot {slot!r} is empty before phase {phase}, and no method is given for it")
            if carry is Carry.FREEZE:
                raise ValueError(f"slot {slot!r} is empty before phase {phase}, so there is nothing to freeze")
            state, instance = _born(state, slot, method, phase, task)
            trained.append(instance)
        else:
            state, changed = _carried(state, old, carry, method, phase, task)
            trained += changed
    if not trained:
        raise ValueError(f"phase {phase} ({task}) trains nothing: every slot is frozen")
    return state, trained


def answering(state: State, routing: Routing, task: str = "") -> list[Instance]:
    """The instances, besides merged ones, that are active when `task` is evaluated, in order of birth."""
    active: list[Instance] = []
    for slot in state.slots:
        newest = state.newest(slot)
        chosen = newest
        if routing == "oracle":
            bound = [i for i in state.instances
                     if i.slot == slot and task in i.tasks and i.place is not Place.MERGED]
            chosen = max(bound, key=lambda i: i.trained) if bound else newest
        if chosen is not None:
            active += state.chain(chosen)
    return [instance for instance in state.instances if instance in active]


def _born(state: State, slot: str, method: Mapping[str, Any], phase: int, task: str,
          below: int | None = None) -> tuple[State, Instance]:
    number = 1 + sum(instance.slot == slot for instance in state.instances)
    instance = Instance(slot, number, method, phase, phase, joined_tasks(task), below=below)
    return State((*state.instances, instance)), instance


def _carried(state: State, old: Instance, carry: Carry, method: Mapping[str, Any] | None, phase: int, task: str,
             ) -> tuple[State, list[Instance]]:
    if method is None and carry not in (Carry.MERGE, Carry.FREEZE):
        raise ValueError(f"slot {old.slot!r}: carry {carry.value} needs a method")
    if carry in (Carry.CONTINUE, Carry.FREEZE) and method is not None and dict(method) != dict(old.method):
        raise ValueError(f"slot {old.slot!r} holds {_words(old.method)} when phase {phase} ({task}) begins, and "
                         f"{carry.value} keeps it; give the same method, or carry fresh, stack or merge for "
                         f"{_words(method)}")
    if carry is Carry.FREEZE:
        return state, []
    if carry is Carry.CONTINUE:
        changed = replace(old, trained=phase, tasks=(*(t for t in old.tasks if t not in joined_tasks(task)), *joined_tasks(task)))
        return _swapped(state, {old.name: changed}), [changed]
    if carry is Carry.MERGE:
        _refuse_merge_beside(state, old)
        state = _folded(state, old)
        if method is None:
            return state, []
        state, new = _born(state, old.slot, method, phase, task)
        return state, [new]
    moved = Place.BELOW if carry is Carry.STACK else Place.UNLOADED
    gone = state.chain(old) if carry is Carry.FRESH else [old]
    state = _swapped(state, {i.name: replace(i, place=moved) for i in gone})
    assert method is not None
    state, new = _born(state, old.slot, method, phase, task, below=old.number if carry is Carry.STACK else None)
    return state, [new]


def _folded(state: State, old: Instance) -> State:
    """The chain of `old` becomes part of the base, after what was merged before."""
    chain = {instance.name for instance in state.chain(old)}
    merged = [replace(i, place=Place.MERGED, below=None) for i in state.instances if i.name in chain]
    rest = [i for i in state.instances if i.name not in chain]
    before = [i for i in rest if i.place is Place.MERGED]
    return State((*before, *merged, *(i for i in rest if i.place is not Place.MERGED)))


def _refuse_merge_beside(state: State, old: Instance) -> None:
    """Folding changes base weights, and an instance in another slot that owns them would overwrite the fold; folded blocks
    lie below all others, and one in another slot that was there first would come to lie above them."""
    for instance in (i for i in state.instances if i.slot != old.slot and i.place is not Place.MERGED):
        if old.method["kind"] == instance.method["kind"] == BLOCKS and instance.born <= old.born:
            raise ValueError(f"slot {old.slot!r} cannot be merged while the new blocks of slot {instance.slot!r} were there before its "
                             "own: merged ones lie below all others; merge both, or put both in one slot")
        if catalog.find("method", instance.method["kind"]).in_place:  # type: ignore[attr-defined]
            raise ValueError(f"slot {old.slot!r} cannot be merged into the base while slot {instance.slot!r} "
                             f"({_words(instance.method)}) trains the base itself; put both in one slot")


def _swapped(state: State, changed: Mapping[str, Instance]) -> State:
    return State(tuple(changed.get(instance.name, instance) for instance in state.instances))


def _words(method: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name}={value}" for name, value in method.items() if name not in ("kind", *catalog.CODE))
    return f"{method['kind']}:{options}" if options else str(method["kind"])
