"""The server that workers are forked from: a process that has imported the libraries and does nothing else.

It runs no torch operation and starts no thread, so that a fork of it is sound (a fork after a parallel operation hangs
in the next one). Unlike multiprocessing's, it is not one for each interpreter, does not run the user's main module
again, tells how a worker ended, and fails aloud if an import fails.

It reads one line for each request from standard input: a job, or {"kill": <job's number>}. Each worker leads a process
group of its own. When standard input ends, the runner has closed it or is dead, and the server kills every group; when
the server dies, the kernel kills the workers (Linux). So nothing outlives the runner.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from finetrial.run import messages

PR_SET_PDEATHSIG = 1  # linux/prctl.h
COMMAND = (sys.executable, "-P", "-m", "finetrial.run.server")


class Server:
    """Starts, watches and kills workers."""

    def __init__(self, events: int, *, fork: bool) -> None:
        self._events, self._fork = events, fork
        self._workers: dict[int, int] = {}  # pid -> number of the job
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def serve(self) -> None:
        """Until standard input ends."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self._wake_read, selectors.EVENT_READ)
        rest = b""
        try:
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._wake_read in ready:
                    os.read(self._wake_read, 1 << 12)
                    self._reap()
                if 0 in ready:
                    data = os.read(0, 1 << 16)
                    if not data:
                        return
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._handle(line)
        finally:
            for pid in self._workers:
                _kill_group(pid)

    def _handle(self, line: bytes) -> None:
        request = json.loads(line)
        if "kill" in request:
            for pid in [pid for pid, number in self._workers.items() if number == request["kill"]]:
                _kill_group(pid)
            return
        pid = self._forked(line) if self._fork else self._spawned(line)
        self._workers[pid] = request["number"]

    def _forked(self, line: bytes) -> int:
        server = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake_read)
        os.close(self._wake_write)
        become_worker(line, self._events, server)

    def _spawned(self, line: bytes) -> int:
        process = subprocess.Popen([*COMMAND, "--worker", str(self._events), str(os.getpid())], stdin=subprocess.PIPE,
                                   pass_fds=(self._events,))
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it died at once: reaped like any other
            process.stdin.write(line)
        process.returncode = 0  # we reap it ourselves
        return process.pid

    def _reap(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._workers:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what the worker itself started must not outlive it
                messages.send(self._events, {"type": "exit", "job": self._workers.pop(pid),
                                             "status": os.waitstatus_to_exitcode(status)})


def become_worker(line: bytes, events: int, server: int) -> NoReturn:
    """Turn this process into the worker of one job and end with it."""
    def work() -> int:
        os.setsid()
        die_with(server)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        from finetrial.run.job import Job
        from finetrial.run.worker import run_job

        run_job(Job.model_validate_json(line), lambda message: messages.send(events, message))
        return 0

    end_with(work)


def end_with(work: Callable[[], int]) -> NoReturn:
    """Do the work, and end the process at once with the status that it returns; 1, with a traceback, after an error."""
    status = 1
    try:
        status = work()
    except BaseException:  # noqa: BLE001 (the process ends here: who started it sees the status, the log the reason)
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, the process `parent`, dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)


def preload(names: Sequence[str]) -> None:
    """Import what workers need. Raises whatever an import raises."""
    for name in names:
        importlib.import_module(name)


def _kill_group(pid: int) -> None:
    """Kill a worker and whatever it started."""
    for kill in (os.killpg, os.kill):  # before its setsid a worker has no group of its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """`server.py EVENTS fork|spawn MODULE...`, or `server.py --worker EVENTS SERVER` with the job on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments[0] == "--worker":
        become_worker(sys.stdin.buffer.read(), int(arguments[1]), int(arguments[2]))
    events, mode, *modules = arguments
    try:
        if mode == "fork":
            preload((*modules, "finetrial.run.worker"))
            gc.collect()
            gc.freeze()  # a collection in a worker then leaves the shared pages alone
    except Exception as error:  # noqa: BLE001 (whatever an import raises is what the runner has to show)
        traceback.print_exc()
        messages.send(int(events), {"type": "broken", "message": f"{type(error).__name__}: {error}"})
        return 1
    Server(int(events), fork=mode == "fork").serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
