"""What an execution tells those who watch. `at` is in seconds since the run began; a watcher needs no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finetrial.records.record import Outcome


@dataclass(frozen=True)
class PlannedStage:
    """A stage as the watcher needs it."""

    id: str
    kind: str
    label: str
    exclusive: bool = False


@dataclass(frozen=True)
class RunStarted:
    """The first event."""

    at: float
    stages: tuple[PlannedStage, ...]
    jobs: int  # processes at a time


@dataclass(frozen=True)
class StageReused:
    """Found in the store, or recorded by another runner meanwhile."""

    at: float
    stage_id: str
    outcome: Outcome
    seconds: float  # that it took when it was computed


@dataclass(frozen=True)
class StageStarted:
    """A worker has begun."""

    at: float
    stage_id: str


@dataclass(frozen=True)
class StackStarted:
    """Stages are about to be computed in one pass; each begins and ends by itself."""

    at: float
    stage_ids: tuple[str, ...]


@dataclass(frozen=True)
class StageProgress:
    """A sign of life of a running stage."""

    at: float
    stage_id: str
    fraction: float | None
    loss: float | None


@dataclass(frozen=True)
class StageRetried:
    """The attempt is over and another one follows."""

    at: float
    stage_id: str
    reason: str


@dataclass(frozen=True)
class StageFinished:
    """A record was written."""

    at: float
    stage_id: str
    outcome: Outcome
    seconds: float
    message: str  # why, where the outcome is not OK


@dataclass(frozen=True)
class StageNotRun:
    """It lacks an input."""

    at: float
    stage_id: str
    reason: str


@dataclass(frozen=True)
class EntryDamaged:
    """A store entry did not match its digests; it was moved aside and is computed again."""

    at: float
    description: str


@dataclass(frozen=True)
class RunEnded:
    """The last event, always sent."""

    at: float
    state: str  # "complete", "partial" or "interrupted"
    message: str = ""  # how to go on, where it was interrupted


Event = (RunStarted | StackStarted | StageReused | StageStarted | StageProgress | StageRetried | StageFinished | StageNotRun
         | EntryDamaged | RunEnded)
Listener = Callable[[Event], None]
