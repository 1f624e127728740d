"""A job in a worker, as the runner follows it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from finetrial.run.job import Job, utc_now
from finetrial.run.walk import StageState, State

GRACE = 1.1  # a stage that does not heed its deadline is killed at this multiple of it, ...
GRACE_SECONDS = 10.0  # ... and this much later


@dataclass
class Running:
    """The job, the stages that are its members, and the one that it is at."""

    job: Job
    members: list[StageState]
    current: StageState | None = None
    started: str = ""  # of the current stage, UTC
    clock: float = 0.0  # the same, monotonic
    rows: int | None = None  # micro-batch of the current stage
    timed_out: bool = False  # killed by us

    def begin(self, state: StageState, rows: int | None) -> None:
        """The worker is at this stage now."""
        self.current, self.started, self.clock, self.rows = state, utc_now(), time.monotonic(), rows

    def leave(self, state: StageState) -> None:
        """The stage is tried again by another job, perhaps before this one has ended: its end says nothing of it."""
        self.current = None
        self.members.remove(state)

    def is_late(self, limit_seconds: float) -> bool:
        """Whether the current stage has passed its deadline so far that it will not heed it any more."""
        limit = limit_seconds * max(1, len(self.job.stack))
        return self.current is not None and time.monotonic() - self.clock > limit * GRACE + GRACE_SECONDS

    @property
    def unfinished_stack(self) -> list[StageState]:
        """The stages that were computed in one pass and have no record."""
        return [state for state in self.members if state.stage.id in self.job.stack and state.state is State.RUNNING]
