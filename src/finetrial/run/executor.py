"""What carries out jobs: processes of this machine (`local.py`), or tasks of a Ray cluster (`on_ray.py`).

An executor knows nothing of stages. It gives each job a fresh process and passes on what that says (`messages.py`); the
last message of a job is always its `exit`. What runs when, what is tried again and what is recorded is the runner's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from finetrial.run.job import Job
from finetrial.run.messages import Message


class Executor(Protocol):
    """Runs jobs. Leaving its context kills what still runs."""

    def places(self) -> int:
        """How many jobs it can run at once; at least 1. May change while it runs."""
        ...

    def start(self, job: Job) -> None:
        """Hand a job to a new process, now or as soon as there is a place. Raises UserError if none can be started."""
        ...

    def kill(self, number: int) -> None:
        """Kill the process of a job, and what it started; its exit is reported."""
        ...

    def wait(self, timeout: float) -> list[Message]:
        """Messages, those of one job in the order they were sent; waits up to `timeout` seconds for the first."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None: ...


OpenExecutor = Callable[[Job], AbstractContextManager[Executor]]  # the job has the circumstances that all jobs of a run share, and no orders
