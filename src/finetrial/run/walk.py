"""The walk over the stages of a plan: what each one's key is, what is settled, what may run next.

Pure bookkeeping: no process, no clock. A stage is pending until it is found in the store (cached), handed to a worker
(running) and recorded (done), or cannot run (not run, with the reason). A stage's key follows from its inputs' keys;
where a `select` stage decides an input, the key is known once the selection is.

Only what a change may concern is looked at again: a stage that was settled concerns those that may read from it. So a
plan of tens of thousands of stages costs its driver milliseconds a stage.
"""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from finetrial.records.record import Outcome
from finetrial.run.job import is_final
from finetrial.stages.base import Chosen, InputKeys, Source, Stage, StageInput


class State(StrEnum):
    """Where a stage stands."""

    PENDING = "pending"
    RUNNING = "running"
    CACHED = "cached"
    DONE = "done"
    NOT_RUN = "not run"


@dataclass(eq=False)
class StageState:
    """One stage of the walk."""

    stage: Stage
    tell: Callable[[StageState], None] = field(default=lambda _: None, repr=False)  # of a change that concerns others
    state: State = State.PENDING
    key: str | None = None
    found: StageInput | None = None  # once cached or done
    reason: str = ""  # why it is not run
    looked_up: bool = False  # in the store, since its key is known
    final: bool = True  # the next run would find the same
    micro_batch: int | None = None  # for the next attempt; None = the whole batch
    stacks: bool = True  # may share a pass with stages alike; False once that has failed
    kills: int = 0  # attempts of this run that ended by SIGKILL, for no reason of ours
    losses: int = 0  # attempts of this run that ended with their machine
    attempts: list[str] = field(default_factory=list)  # what went wrong before: for the record

    @property
    def outcome(self) -> Outcome | None:
        """The recorded outcome; None without a record."""
        return self.found.record.outcome if self.found is not None else None

    @property
    def ok(self) -> bool:
        """True if others can read from it."""
        return self.outcome is Outcome.OK and self.settled

    @property
    def settled(self) -> bool:
        """True once this run will not touch it again."""
        return self.state in (State.CACHED, State.DONE, State.NOT_RUN)

    def record(self, state: State, found: StageInput) -> None:
        """Settle the stage with its record."""
        self.state, self.found, self.final = state, found, is_final(found.record)
        self.tell(self)

    def skip(self, reason: str, *, final: bool) -> None:
        """Settle the stage without a record."""
        self.state, self.reason, self.final = State.NOT_RUN, reason, final
        self.tell(self)

    def reopen(self) -> None:
        """Back from a worker without a record."""
        self.state = State.PENDING
        self.tell(self)


@dataclass(frozen=True)
class ExecutionResult:
    """How every stage ended, by id."""

    states: Mapping[str, StageState]
    corrupt: tuple[str, ...]  # damaged store entries, moved aside and computed again

    def found(self, stage_id: str) -> StageInput | None:
        """The record and files of a stage, whatever its outcome; None if it was not run."""
        return self.states[stage_id].found

    @property
    def computed(self) -> frozenset[str]:
        """The stages that were computed now, not found."""
        return frozenset(name for name, state in self.states.items() if state.state is State.DONE)

    @property
    def complete(self) -> bool:
        """True if another run would find nothing to do."""
        return all(state.settled and state.final for state in self.states.values())


class Walk:
    """All stages of one execution, by id, in the order given (which is the priority)."""

    def __init__(self, stages: Sequence[Stage], tolerates_failures: Callable[[str], bool]) -> None:
        """`tolerates_failures` says of a kind whether it runs with the inputs that there are."""
        self.states = {stage.id: StageState(stage, self._changed) for stage in stages}
        assert len(self.states) == len(stages), "two stages share an id"
        self._tolerates, self._input_keys = tolerates_failures, InputKeys()
        graph = {stage.id: set(_possible(stage)) for stage in stages}
        self._order = [self.states[name] for name in graphlib.TopologicalSorter(graph).static_order()]
        self._place = {state.stage.id: place for place, state in enumerate(self._order)}
        self._readers: dict[str, list[str]] = {}  # stage -> those that may read from it
        for reader, sources in graph.items():
            for source in sources:
                self._readers.setdefault(source, []).append(reader)
        self._groups: dict[str, list[StageState]] = {}  # by priority
        for state in self.states.values():
            self._groups.setdefault(_group(state.stage), []).append(state)
        self._priority = {name: priority for priority, name in enumerate(self._groups)}
        self._unsettled = set(self.states)
        self._due = set(range(len(self._order)))  # places in the order to look at
        self._startable = set(self._groups)  # groups that may have a job

    @property
    def finished(self) -> bool:
        """True once every stage is settled."""
        return not self._unsettled

    def settle(self, lookup: Callable[[StageState], StageInput | None]) -> list[StageState]:
        """Find keys, look up stages whose key has become known, and rule out those that cannot run.

        Returns the stages that this call has settled, inputs before their dependents.
        """
        settled = []
        waiting, self._due = self._due, set()
        queue = sorted(waiting)
        while queue:
            place = heapq.heappop(queue)
            waiting.discard(place)
            state = self._order[place]
            if state.state is not State.PENDING:
                continue
            found = self._look_at(state, lookup)
            if state.settled:
                settled.append(state)
            elif found:
                self._concerns(state)
            for later in self._due - waiting:  # readers of what has changed just now
                heapq.heappush(queue, later)
                waiting.add(later)
            self._due.clear()
        return settled

    def ready(self) -> Iterator[list[StageState]]:
        """The jobs that could start now, by priority of their groups' first stages: of each, those that can run in one process."""
        for name in sorted(self._startable, key=self._priority.__getitem__):
            job: list[StageState] = []
            for state in self._groups[name]:
                if state.state is State.PENDING and state.key is not None and self._may_join(state, job):
                    job.append(state)
            if job:
                yield job
            else:
                self._startable.discard(name)

    def inputs(self, state: StageState) -> dict[str, StageState]:
        """What a stage that is about to run reads from, by input name."""
        present = {name: source for name, source in self._sources(state.stage).items() if source is not None}
        if self._tolerates(state.stage.kind):
            return {name: source for name, source in present.items() if source.ok}
        return present

    def identity(self, state: StageState) -> dict[str, Any]:
        """What the stage's key, which must be known, is the digest of."""
        keys = self._keys(state.stage, self._sources(state.stage))
        assert keys is not None
        return state.stage.identity(keys)

    def is_provisional(self, state: StageState) -> bool:
        """True if an input that is missing may yet come: the result must not be reused then."""
        return any(source is None or not (source.ok or source.final)
                   for source in self._sources(state.stage).values()) and self._tolerates(state.stage.kind)

    def missing(self, state: StageState) -> list[str]:
        """The names of the inputs that it is computed without: none but where failures are tolerated."""
        return sorted(set(state.stage.inputs) - set(self.inputs(state)))

    def _look_at(self, state: StageState, lookup: Callable[[StageState], StageInput | None]) -> bool:
        """Find a pending stage's key, its record, or why it cannot run. True if the key is new."""
        sources, known = self._sources(state.stage), state.key is not None
        if not known and (keys := self._keys(state.stage, sources)) is not None:
            state.key = state.stage.key(keys)
        if state.key is not None and not state.looked_up and self._is_awaited(state.stage, sources):
            state.looked_up = True
            if (found := lookup(state)) is not None:
                state.record(State.CACHED, found)
        if state.state is State.PENDING:
            self._rule_out(state, sources)
        return state.key is not None and not known

    def _keys(self, reader: Stage, sources: Mapping[str, StageState | None]) -> dict[str, str] | None:
        """The keys of all inputs as a stage's own has them, if every one is known."""
        keys = {name: self._input_keys.of(reader, source.stage, source.key) for name, source in sources.items()
                if source is not None and source.key is not None}
        return keys if len(keys) == len(sources) else None

    def _is_awaited(self, stage: Stage, sources: Mapping[str, StageState | None]) -> bool:
        """True once a record of it can be judged: what was made of some inputs, when it is known which of them there are now."""
        return not self._tolerates(stage.kind) or all(source is not None and source.settled for source in sources.values())

    def _changed(self, state: StageState) -> None:
        """A stage was settled, or is pending again."""
        if state.settled:
            self._unsettled.discard(state.stage.id)
        else:
            self._due.add(self._place[state.stage.id])
            self._startable.add(_group(state.stage))
        self._concerns(state)

    def _concerns(self, state: StageState) -> None:
        """Those that may read from it are looked at again."""
        self._startable.add(_group(state.stage))
        for reader in self._readers.get(state.stage.id, ()):
            self._due.add(self._place[reader])
            self._startable.add(_group(self.states[reader].stage))

    def _may_join(self, state: StageState, job: Sequence[StageState]) -> bool:
        sources = self._sources(state.stage).values()
        if self._tolerates(state.stage.kind):
            return all(source is not None and source.settled for source in sources)
        return all(source is not None and (source.ok or source in job) for source in sources)

    def _sources(self, stage: Stage) -> dict[str, StageState | None]:
        """The stage behind each input; None while a selection is missing."""
        return {name: self._source(source) for name, source in stage.inputs.items()}

    def _source(self, source: Source) -> StageState | None:
        if isinstance(source, str):
            return self.states[source]
        select = self.states[source.select]
        if not select.ok:
            return None
        option = _choice(select)
        return self.states[source.among[option]] if option in source.among else None

    def _rule_out(self, state: StageState, sources: Mapping[str, StageState | None]) -> None:
        """Settle a stage that cannot run any more."""
        for name, source in sources.items():
            if source is None and (never := self._never(state.stage.inputs[name])) is not None:
                reason, final = never
                return state.skip(reason, final=final)
        present = [source for source in sources.values() if source is not None]
        missing = [source for source in present if source.settled and not source.ok]
        if not missing:
            return None
        if self._tolerates(state.stage.kind):
            waits = any(not source.settled for source in present) or len(present) < len(sources)
            if waits or (state.key is not None and len(missing) < len(present)):
                return None
        first = missing[0]
        return state.skip(f"needs {first.stage.id}, which is {first.outcome or 'not run'}",
                          final=all(source.final for source in missing))

    def _never(self, source: Source) -> tuple[str, bool] | None:
        """(reason, final) if a selection will never name a stage."""
        assert isinstance(source, Chosen)
        select = self.states[source.select]
        if not select.settled:
            return None
        if select.ok:
            return (f"{source.select} chose {_choice(select)!r}, which is not one of {sorted(source.among)}", True)
        return f"needs {source.select}, which is {select.outcome or 'not run'}", select.final


def _group(stage: Stage) -> str:
    return stage.group or stage.id


def _choice(select: StageState) -> Any:
    assert select.found is not None
    return select.found.record.values.get("chosen")


def _possible(stage: Stage) -> Iterable[str]:
    """Every stage that an input may come from."""
    for source in stage.inputs.values():
        if isinstance(source, str):
            yield source
        else:
            yield source.select
            yield from source.among.values()
