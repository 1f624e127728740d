"""Watches one running program: collects what it writes, stops it at a limit, and says how it ended."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from finetrial.sandbox.outcome import Limits, Outcome, Status
from finetrial.sandbox.start import kill
from finetrial.sandbox.usage import is_larger, num_threads, unlinked_bytes

TICK_SECONDS = 0.05  # how often limits are looked at that the kernel does not keep
CHUNK_BYTES = 1 << 16
NODE_OUT_OF_MEMORY = ("heap out of memory", "process out of memory", "allocation failed", "could not allocate memory")


class Interrupted(Exception):
    """The caller asked to stop; the program is gone."""


class Watch:
    """One program from its start to its end."""

    def __init__(self, process: subprocess.Popen[bytes], language: str, limits: Limits, layers: tuple[str, ...],
                 scratch: Path, stop: threading.Event | None = None) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.process = process
        self.language = language
        self.limits = limits
        self.layers = layers
        self.scratch = scratch
        self.stop = stop
        self.started = self.looked = time.monotonic()
        self.written: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
        self.cpu_seconds = 0.0

    def outcome(self) -> Outcome:
        """Wait for the end and describe it. Raises Interrupted if `stop` was set meanwhile."""
        try:
            stopped_at = self._wait()
        finally:
            if self.process.returncode is None or "seccomp" not in self.layers:  # nobody else can be in its group
                kill(self.process)
            self._reap(blocking=True)
            for stream in self.written:
                stream.close()
        exit_code = self.process.returncode
        stdout, stderr = (bytes(written[:self.limits.output_bytes]).decode(errors="replace")
                          for written in self.written.values())
        return Outcome(stopped_at or self._status(exit_code, stderr), None if stopped_at else exit_code, stdout, stderr,
                       time.monotonic() - self.started, self.cpu_seconds, self.layers)

    def _wait(self) -> Status | None:
        """Until it ends by itself (None), or a limit is reached."""
        with selectors.DefaultSelector() as selector:
            for stream in self.written:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            pause = 0.0005
            while True:
                if selector.get_map():
                    for key, _ in selector.select(TICK_SECONDS):
                        if not self._read(key.fileobj):  # type: ignore[arg-type]
                            selector.unregister(key.fileobj)
                else:  # it has closed both streams: most often it is about to end
                    time.sleep(pause)
                    pause = min(2 * pause, TICK_SECONDS)
                limit = self._limit_reached()
                if limit is not None:
                    return limit
                if self._reap(blocking=False):
                    for key in list(selector.get_map().values()):
                        while self._read(key.fileobj) and self._limit_reached() is None:  # type: ignore[arg-type]
                            pass
                    return self._limit_reached()

    def _read(self, stream: IO[bytes]) -> int:
        """Take what there is; 0 when there will be no more, or nothing is there."""
        read = stream.read(CHUNK_BYTES)
        self.written[stream] += read or b""
        return len(read or b"")

    def _limit_reached(self) -> Status | None:
        if self.stop is not None and self.stop.is_set():
            raise Interrupted
        if any(len(written) > self.limits.output_bytes for written in self.written.values()):
            return Status.OUTPUT
        runs, now = self.process.returncode is None, time.monotonic()
        if runs and now - self.started > self.limits.wall_seconds:
            return Status.TIMEOUT
        if runs and now - self.looked < TICK_SECONDS:  # it writes: a look for each piece would cost more than it does
            return None
        self.looked = now
        if "namespaces" not in self.layers and self._has_too_large_files(runs):
            return Status.FILES
        if runs and num_threads(self.process.pid) > self.limits.threads:  # the kernel's limit does not bind root
            return Status.FAILED  # as a program does that is refused one
        return None

    def _has_too_large_files(self, runs: bool) -> bool:
        unlinked = unlinked_bytes(self.process.pid, self.scratch, self.limits.file_bytes) if runs else 0
        return is_larger(self.scratch, self.limits.folder_bytes, unlinked)

    def _reap(self, *, blocking: bool) -> bool:
        """Whether it has ended; then its exit code and CPU time are known."""
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, 0 if blocking else os.WNOHANG)
            if pid == 0:
                return False
            self.process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return True

    def _status(self, exit_code: int, stderr: str) -> Status:
        """How a program ended that was not stopped from here."""
        if exit_code == 0:
            return Status.PASSED
        if exit_code == -signal.SIGXCPU or self.cpu_seconds >= self.limits.cpu_seconds:
            return Status.TIMEOUT
        if exit_code == -signal.SIGXFSZ:
            return Status.FILES
        if exit_code == -signal.SIGKILL or _out_of_memory(self.language, stderr):
            return Status.MEMORY  # a program does not kill itself by accident: the kernel was short of memory
        return Status.FAILED


def _out_of_memory(language: str, stderr: str) -> bool:
    """Python's last words are the exception; Node prints where it was after saying so."""
    if language == "python":
        return stderr.rstrip().rpartition("\n")[2].startswith("MemoryError")
    return any(said in stderr for said in NODE_OUT_OF_MEMORY)
