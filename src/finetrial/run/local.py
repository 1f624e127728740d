"""Workers on this machine: a pool of processes, each the fork of one server that has the libraries imported.

The server is started with the first job, so that a run in which everything is recorded starts none. If it dies, its
workers die with it; their jobs are reported as killed, and the next job starts another server.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from finetrial import catalog
from finetrial.catalog import KINDS
from finetrial.errors import UserError
from finetrial.run.crash import oom_killed_since, oom_kills
from finetrial.run.disk import explained
from finetrial.run.job import Job
from finetrial.run.machine import worker_environment
from finetrial.run.messages import Message, Reader
from finetrial.run.server import COMMAND

LIBRARIES = (
    "torch", "transformers", "peft", "accelerate", "safetensors.torch",
    "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
    "finetrial.models.load", "finetrial.train.loop", "finetrial.tasks.encode",
)
CLOSING_SECONDS = 10.0


def default_preload() -> tuple[str, ...]:
    """The libraries, what plug-ins are made of, and every kind of stage and method of the package.

    Where bitsandbytes is installed peft is left to the workers: it imports it, whose import asks CUDA for its devices,
    and the fork of a process that has asked cannot use them.
    """
    found = [(catalog.find(kind, name).__module__, KINDS[kind].package) for kind in ("stage", "method")
             for name in catalog.names(kind)]
    own = [module for module, package in found if module.startswith(f"{package}.")]  # a user's file may do anything
    libraries = [name for name in LIBRARIES if name != "peft" or find_spec("bitsandbytes") is None]
    return (*libraries, *(kind.base_module for kind in KINDS.values()), *own)


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalPool:
    """The executor of this machine."""

    def __init__(self, log: Path, *, preload: Sequence[str], fork: bool | None = None,
                 check: Callable[[], None] | None = None) -> None:
        """`log` takes what the server prints. `fork`: None = where it is safe, which is Linux. `check` is called with each
        wait, and raises where the run must stop."""
        self._log, self._preload, self._check = log, tuple(preload), check
        self._fork = sys.platform == "linux" if fork is None else fork
        self._server: subprocess.Popen[bytes] | None = None
        self._events: Reader | None = None
        self._events_fd = -1
        self._inbox: list[Message] = []
        self.jobs: dict[int, int | None] = {}  # jobs that have not ended: number -> kills for memory when it began

    def places(self) -> int:
        """One phase for each core."""
        return usable_cores()

    def start(self, job: Job) -> None:
        """Hand a job to a new process. Raises UserError if workers cannot be started at all."""
        self.jobs[job.number] = oom_kills()
        self._request(job.model_dump_json().encode() + b"\n")

    def kill(self, number: int) -> None:
        """Kill the process of a job, and what it started; its exit is reported."""
        self._request(b'{"kill": %d}\n' % number)

    def wait(self, timeout: float) -> list[Message]:
        """Messages, in the order they were sent; waits up to `timeout` seconds for the first."""
        if self._check is not None:
            self._check()
        if self._inbox:
            found, self._inbox = self._inbox, []
            return found
        if self._events is None:
            time.sleep(timeout)
            return []
        assert self._server is not None
        found = [self._noted(message) for message in self._events.read(timeout)]
        if not found and (self._events.ended or self._server.poll() is not None):
            found = self._lost()
        return found

    def settle(self) -> None:
        """Have every job end, so that nothing of it is heard any more: wait for those that are about to, kill the rest."""
        deadline = time.monotonic() + CLOSING_SECONDS
        while self.jobs and (left := deadline - time.monotonic()) > 0:
            self.wait(left)
        if self.jobs:
            self.close()
        self._inbox.clear()

    def close(self) -> None:
        """Kill what still runs and end the server."""
        if self._server is None:
            return
        assert self._server.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._server.stdin.close()
        try:
            self._server.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()  # its workers die with it
            self._server.wait()
        os.close(self._events_fd)
        self._server, self._events = None, None
        self.jobs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def _ensure_server(self) -> None:
        if self._server is not None:
            return
        self._events_fd, writer = os.pipe()
        self._events = Reader(self._events_fd)
        mode = "fork" if self._fork else "spawn"
        with explained(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            log: IO[bytes] = self._log.open("ab")
        with log:
            self._server = subprocess.Popen([*COMMAND, str(writer), mode, *self._preload], stdin=subprocess.PIPE,
                                            stdout=log, stderr=log, pass_fds=(writer,), env=worker_environment(),
                                            start_new_session=True)
        os.close(writer)
        assert self._server.stdin is not None
        os.set_blocking(self._server.stdin.fileno(), False)

    def _request(self, line: bytes) -> None:
        """Write a request, reading meanwhile what comes back, so that neither side waits for the other."""
        self._ensure_server()
        assert self._server is not None and self._server.stdin is not None and self._events is not None
        pipe = self._server.stdin.fileno()
        with contextlib.suppress(BrokenPipeError):  # a dead server is found out by `wait`
            while line:
                readable, writable, _ = select.select([self._events_fd], [pipe], [])
                if readable:
                    if not (found := self._events.read(0)) and self._events.ended:
                        return
                    self._inbox.extend(self._noted(message) for message in found)
                if writable:
                    line = line[os.write(pipe, line):]

    def _noted(self, message: Message) -> Message:
        if message["type"] == "exit":
            return {**message, "oom_killed": oom_killed_since(self.jobs.pop(message["job"]))}
        if message["type"] == "broken":
            raise UserError(f"workers cannot be started: {message['message']}",
                            f"the whole text is in {self._log}; finetrial doctor checks the installation",
                            code="workers")
        return message

    def _lost(self) -> list[Message]:
        """The server is dead: so are its workers, or they are about to be."""
        lost: list[Message] = [{"type": "exit", "job": number, "status": -signal.SIGKILL,
                                "oom_killed": oom_killed_since(before)} for number, before in sorted(self.jobs.items())]
        self.close()
        return lost


def on_this_machine(circumstances: Job, check: Callable[[], None] | None = None) -> LocalPool:
    """The executor of a run that names no other."""
    return LocalPool(circumstances.logs / "workers.log", preload=circumstances.preload, check=check)


class KeptPool:
    """The executor of a trial that runs several times on this machine: one server, whose imports take seconds, for all.

    The circumstances of the first run are those of all. Leaving the context ends the server.
    """

    def __init__(self, check: Callable[[], None] | None = None) -> None:
        self._check = check
        self._pool: LocalPool | None = None

    @contextlib.contextmanager
    def __call__(self, circumstances: Job) -> Iterator[LocalPool]:
        """Lend the pool for one run, after which no job of it is left."""
        pool = self._pool = self._pool or on_this_machine(circumstances, self._check)
        try:
            yield pool
            pool.settle()
        except BaseException:
            pool.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.close()
