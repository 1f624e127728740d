"""A stage that several processes compute together: the worker that has it is rank 0, and starts, watches and ends the others.

Rank 0 holds the claim, writes files and record. The others are fresh interpreters (`assist.py`): by then the worker may
have computed something or hold a GPU, and a fork of it would not be sound. They meet at a file in the stage's temporary
folder, belong to the worker's process group and die with it. One that ends badly ends the stage. Whoever has an error
ends, or ends the others, at once: nobody leaves a group of which another still waits for a step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from finetrial import catalog
from finetrial.errors import UserError
from finetrial.run.crash import LOST_TO_MEMORY, oom_killed_since, oom_kills
from finetrial.run.job import Job, Order
from finetrial.stages.base import Stage, StageKind
from finetrial.train.data_parallel import DataParallel, backend_of, process_group

COMMAND = (sys.executable, "-P", "-m", "finetrial.run.assist")
OUT_OF_MEMORY = 3  # the exit code that says so
NOTICE_SECONDS = 5.0  # a connection may break before the process that held it has ended
STUCK_SECONDS = 60.0  # after a death: what waits for the dead one on a GPU may wait for ever
ENDING_SECONDS = 5.0
_NO_MEMORY = "ran out of memory"


class ProcessLost(RuntimeError):
    """One of the processes that compute a stage together ended badly."""


class Part(BaseModel):
    """What another process is handed: a job with one stage, and its place in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: Job
    rank: int
    folder: Path  # of the stage: rank 0 writes there
    checkpoint: Path
    meeting_place: Path


def check_processes(processes: int, stages: Iterable[Stage], device: str, *, stack: int, local: bool,
                    shard: bool = False) -> None:
    """Raises UserError where `processes` cannot compute the stages of a plan together, or not as `shard` asks."""
    if processes == 1:
        if shard:
            raise UserError("--shard splits a model over several processes, and --processes is 1", "add --processes N")
        return
    if stack > 1:
        raise UserError(f"--stack {stack} and --processes {processes} do not go together: cells that share a pass are trained "
                        "by one process", "leave one of them out")
    if device not in ("cpu", "cuda"):
        raise UserError(f"--processes {processes} is not possible on the device {device}", "use cpu or cuda: a process takes "
                        "one core, or one GPU from the first on")
    if device == "cuda" and local and (count := _gpus()) < processes:
        raise UserError(f"--processes {processes}: this machine has {count} GPU{'' if count == 1 else 's'}",
                        f"--processes {count}")
    for stage in stages:
        kind: type[StageKind] = catalog.find("stage", stage.kind)
        rows = kind.batch_rows(stage.spec) if kind.parallel else None
        if rows is not None and rows < processes:
            raise UserError(f"--processes {processes}: a training step of {stage.label or stage.id} has {rows} rows, and each "
                            "process needs one", f"--processes {rows}, or a larger training.batch_sequences")
        if shard and (why := kind.unsplittable(stage.spec)):
            raise UserError(f"--shard: {stage.label or stage.id} cannot be trained in parts: {why}",
                            "leave out --shard, or this arm: --arms LIST names those to run")


def num_processes(job: Job, order: Order) -> int:
    """How many compute this stage."""
    kind: type[StageKind] = catalog.find("stage", order.kind)
    return job.processes if kind.parallel else 1


def device_of(device: str, parallel: DataParallel) -> str:
    """The device of one of several processes: of GPUs each has its own."""
    return f"{device}:{parallel.rank}" if parallel.count > 1 and device == "cuda" else device


def how(device: str, parallel: DataParallel) -> dict[str, Any]:
    """What a record's `execution` says of it."""
    if parallel.count == 1:
        return {}
    form = "sharded" if parallel.sharded else "data parallel"
    return {"processes": {"count": parallel.count, "form": form, "backend": backend_of(device)}}


@contextlib.contextmanager
def ranks(job: Job, order: Order, folder: Path, checkpoint: Path) -> Iterator[DataParallel]:
    """This process's place among those that compute the stage, the others having been started.

    Raises ProcessLost in place of the error that the loss of one caused here. None is left afterwards.
    """
    count = num_processes(job, order)
    if count == 1:
        yield DataParallel()
        return
    kills = oom_kills()
    with tempfile.TemporaryDirectory(prefix="ranks-", dir=folder, ignore_cleanup_errors=True) as temporary:
        meeting_place = Path(temporary) / "meeting"
        parts = [Part(job=job.model_copy(update={"orders": (order,), "stack": ()}), rank=rank, folder=folder,
                      checkpoint=checkpoint, meeting_place=meeting_place) for rank in range(1, count)]
        with _Others(parts, kills) as others:
            try:
                others.wait_until_ready()
                with process_group(meeting_place, 0, count, job.device, sharded=job.shard) as parallel:
                    yield parallel
            except RuntimeError as error:
                if (lost := others.lost(NOTICE_SECONDS)) is not None:
                    raise ProcessLost(lost) from error
                raise


class _Others:
    """The processes of ranks 1, 2, ... Leaving the context ends them."""

    def __init__(self, parts: list[Part], kills: int | None) -> None:
        self._parts, self._kills = parts, kills
        self._processes: list[subprocess.Popen[bytes]] = []
        self._done = threading.Event()

    def wait_until_ready(self) -> None:
        """Raises ProcessLost for one that ended before it was."""
        for process in self._processes:
            assert process.stdout is not None
            if not process.stdout.read(1):
                raise ProcessLost(self.lost(NOTICE_SECONDS) or "a process ended before it began")

    def lost(self, seconds: float) -> str | None:
        """What befell one that has ended badly, or does within `seconds`; None if all are well. One that ran out of memory
        comes first: others may have ended because it had."""
        deadline = time.monotonic() + seconds
        while True:
            fates = {rank: self._fate(process.returncode) for rank, process in enumerate(self._processes, start=2)
                     if process.poll()}
            if fates:
                rank = min(fates, key=lambda rank: fates[rank] != _NO_MEMORY)
                return f"process {rank} of {len(self._processes) + 1} {fates[rank]}"
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def _fate(self, status: int) -> str:
        if status == OUT_OF_MEMORY or (status == -signal.SIGKILL and oom_killed_since(self._kills)):
            return _NO_MEMORY
        return f"died of {signal.Signals(-status).name}" if status < 0 else f"failed (exit code {status})"

    def _watch(self) -> None:
        """End this process, which is stuck, some time after another was lost."""
        while not self._done.wait(1.0):
            if (lost := self.lost(0.0)) is not None and not self._done.wait(STUCK_SECONDS):
                print(f"{lost}, and what waits for it does not notice", file=sys.stderr, flush=True)
                os._exit(LOST_TO_MEMORY if lost.endswith(_NO_MEMORY) else 1)

    def _start(self) -> None:
        for part in self._parts:
            process = subprocess.Popen([*COMMAND, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._processes.append(process)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:  # one that died at once is not ready either
                process.stdin.write(part.model_dump_json().encode())

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end(0.0)
            raise
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._end(ENDING_SECONDS if kind is None else 0.0)

    def _end(self, seconds: float) -> None:
        """Give them `seconds` to end, and kill those that have not."""
        deadline = time.monotonic() + seconds
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
