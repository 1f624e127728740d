"""The state of a run as its events tell it: what runs, what is done, how long the rest will take.

A pure fold of events: the live view, the plain lines and `status.json` are all made from it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from finetrial.records.record import Outcome
from finetrial.run.events import (
    EntryDamaged,
    Event,
    PlannedStage,
    RunEnded,
    RunStarted,
    StackStarted,
    StageFinished,
    StageNotRun,
    StageProgress,
    StageRetried,
    StageReused,
    StageStarted,
)

NOT_RUN = "not run"  # among failures: stages that lack an input
RECENT = 8  # finished stages that the live view shows


@dataclass
class RunningStage:
    """A stage that a worker computes now."""

    stage: PlannedStage
    started: float  # seconds since the run began
    fraction: float | None = None
    loss: float | None = None
    stack: int = 1  # how many share its pass


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until the end. `at_least`: stages of some kinds have not been timed yet and are not counted."""

    seconds: float
    at_least: bool


@dataclass
class Board:
    """Feed it every event, in order."""

    stages: dict[str, PlannedStage] = field(default_factory=dict)
    jobs: int = 1
    running: dict[str, RunningStage] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by stage, recorded before or now
    stacks: dict[str, int] = field(default_factory=dict)  # stage -> how many share its pass
    reused: int = 0
    not_run: dict[str, str] = field(default_factory=dict)  # stage -> reason
    damaged: list[str] = field(default_factory=list)
    recent: deque[StageFinished] = field(default_factory=lambda: deque(maxlen=RECENT))
    ended: RunEnded | None = None
    _timed: dict[str, tuple[float, int]] = field(default_factory=dict)  # by kind: seconds, and of how many stages

    def see(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self.stages, self.jobs = {stage.id: stage for stage in event.stages}, event.jobs
            case StageReused():
                self.reused += 1
                self._settle(event.stage_id, event.outcome, event.seconds)
            case StackStarted():
                self.stacks |= dict.fromkeys(event.stage_ids, len(event.stage_ids))
            case StageStarted():
                self.running[event.stage_id] = RunningStage(self.stages[event.stage_id], event.at,
                                                            stack=self.stacks.get(event.stage_id, 1))
            case StageProgress():
                line = self.running[event.stage_id]
                line.fraction, line.loss = event.fraction, event.loss
            case StageRetried():
                self.running.pop(event.stage_id, None)
                self.stacks.pop(event.stage_id, None)
            case StageFinished():
                self._settle(event.stage_id, event.outcome, event.seconds)
                self.recent.append(event)
            case StageNotRun():
                self.not_run[event.stage_id] = event.reason
            case EntryDamaged():
                self.damaged.append(event.description)
            case RunEnded():
                self.ended = event
                self.running.clear()

    @property
    def total(self) -> int:
        """Stages in the plan."""
        return len(self.stages)

    @property
    def done(self) -> int:
        """Stages with a record."""
        return len(self.outcomes)

    def failures(self) -> Counter[str]:
        """How often each outcome but OK occurred, and how many stages were not run."""
        counts = Counter(outcome.value for outcome in self.outcomes.values() if outcome is not Outcome.OK)
        if self.not_run:
            counts[NOT_RUN] = len(self.not_run)
        return counts

    def time_left(self, at: float) -> TimeLeft | None:
        """From the mean seconds of finished stages of the same kind; None while nothing can be said."""
        alone, shared, unknown, known = 0.0, 0.0, False, False
        for stage in self.stages.values():
            if stage.id in self.outcomes or stage.id in self.not_run:
                continue
            seconds = self._expected(stage, at)
            if seconds is None:
                unknown = True
                continue
            known = True
            alone, shared = (alone + seconds, shared) if stage.exclusive else (alone, shared + seconds)
        if unknown and not known:
            return None
        return TimeLeft(alone + shared / self.jobs, unknown)

    def _expected(self, stage: PlannedStage, at: float) -> float | None:
        """Seconds that a stage still needs; None if no stage of its kind was timed and it shows no progress."""
        seconds, count = self._timed.get(stage.kind, (0.0, 0))
        mean = seconds / count if count else None
        line = self.running.get(stage.id)
        if line is None:
            return mean
        elapsed = at - line.started
        if line.fraction:
            return elapsed * (1 / line.fraction - 1)
        return None if mean is None else max(0.0, mean - elapsed)

    def _settle(self, stage_id: str, outcome: Outcome, seconds: float) -> None:
        self.running.pop(stage_id, None)
        self.outcomes[stage_id] = outcome
        if outcome is Outcome.OK:
            kind = self.stages[stage_id].kind
            before, count = self._timed.get(kind, (0.0, 0))
            self._timed[kind] = before + seconds, count + 1
