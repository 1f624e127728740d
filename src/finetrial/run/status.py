"""`status.json` in a run's folder: how far the run is, for `finetrial status` in another terminal.

One runner at a time writes it: the one that holds `.running`. A second runner of the same folder shares the store's
work and takes over the file when the first has ended.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from finetrial.errors import StoreError
from finetrial.run.board import Board
from finetrial.run.disk import explained, replace_text
from finetrial.run.locks import FileLock, is_locked, try_lock

STATUS_FILE, LOCK_FILE = "status.json", ".running"
WRITE_SECONDS = 1.0


class StatusFile:
    """Writes the board to `<run folder>/status.json`, at most once a second."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        self._lock: FileLock | None = None
        self._written = -WRITE_SECONDS

    def write(self, board: Board, at: float, *, force: bool = False) -> None:
        """Raises StoreError if the folder cannot be written."""
        if not force and at - self._written < WRITE_SECONDS:
            return
        self._written = at
        if self._lock is None:
            with explained(self._folder):
                self._lock = try_lock(self._folder / LOCK_FILE)
        if self._lock is not None:
            replace_text(self._folder / STATUS_FILE, json.dumps(describe(board, at), indent=1) + "\n")

    def close(self) -> None:
        """Let the next runner write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def describe(board: Board, at: float) -> dict[str, Any]:
    """The content of `status.json`. Unknown is null."""
    left = board.time_left(at)
    return {
        "state": board.ended.state if board.ended else "running",
        "pid": os.getpid(),
        "stages_total": board.total,
        "stages_done": board.done,
        "stages_reused": board.reused,
        "failures": dict(board.failures()),
        "running": [{"stage": line.stage.id, "label": line.stage.label, "kind": line.stage.kind,
                     "fraction": line.fraction, "loss": line.loss, "seconds": at - line.started, "stack": line.stack}
                    for line in board.running.values()],
        "elapsed_seconds": at,
        "left_seconds": left.seconds if left else None,
        "left_is_at_least": left.at_least if left else None,
        "damaged": board.damaged,
    }


def write_refused(run_folder: Path, done: int, total: int) -> None:
    """Say that the audit of the data refused the run, with `done` of its stages recorded; nothing while another runner has it.

    Raises StoreError if the folder cannot be written.
    """
    status = describe(Board(), 0.0) | {"state": "refused", "stages_done": done, "stages_total": total}
    with explained(run_folder):
        lock = try_lock(run_folder / LOCK_FILE)
        if lock is not None:
            replace_text(run_folder / STATUS_FILE, json.dumps(status, indent=1) + "\n")
            lock.release()


def read_status(run_folder: Path) -> dict[str, Any] | None:
    """The last status of a run; None if it never ran. A runner that was killed is "interrupted", not "running".

    Raises StoreError where it cannot be read.
    """
    path = run_folder / STATUS_FILE
    with explained(path):
        try:
            status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{path} cannot be read: {error}", "run the study again, which writes it anew") from error
        if status["state"] == "running" and not is_locked(run_folder / LOCK_FILE):
            status["state"] = "interrupted"
    return status
