"""A second process for tests of data parallelism: it runs the function that the test runs, as rank 1."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from finetrial.train.data_parallel import DataParallel, process_group

Part = Callable[[DataParallel], Any]  # of a module that the partner can import, or a partial of such a function
ANSWER_SECONDS = 60


class Partner:
    """The process, with the libraries imported once for all tests that use it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._meetings = folder, 0
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def both(self, part: Part, *, sharded: bool = False) -> tuple[Any, Any]:
        """What `part` returns as rank 0, in this process, and as rank 1."""
        self._meetings += 1
        meeting_place = self._folder / f"meeting-{self._meetings}"
        self._pipe.send((part, meeting_place, sharded))
        try:
            mine = _done(part, meeting_place, 0, sharded)
        finally:  # also after a failure here, which the partner's answers with its own
            assert self._pipe.poll(ANSWER_SECONDS), "the partner does not answer"
            theirs, trouble = self._pipe.recv()
        assert not trouble, trouble
        return mine, theirs

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _done(part: Part, meeting_place: Path, rank: int, sharded: bool) -> Any:
    """What `part` returns; after an error the group is left, so that there can be another in this process."""
    from torch import distributed

    try:
        with process_group(meeting_place, rank, 2, "cpu", sharded=sharded) as parallel:
            return part(parallel)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _serve(pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        part, meeting_place, sharded = pipe.recv()
        try:
            pipe.send((_done(part, meeting_place, 1, sharded), ""))
        except Exception:  # noqa: BLE001 (whatever went wrong is what the test has to show)
            pipe.send((None, traceback.format_exc()))
