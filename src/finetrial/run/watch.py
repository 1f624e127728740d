"""Those who watch a run: the board, the status file that other processes read, and the caller's listener."""

from __future__ import annotations

import time
from pathlib import Path

from finetrial.run.board import Board
from finetrial.run.events import Event, Listener, RunEnded
from finetrial.run.status import StatusFile


class Watch:
    """Passes every event on and keeps the clock of the run."""

    def __init__(self, run_folder: Path, listener: Listener | None) -> None:
        self.board = Board()
        self._status, self._listener, self._started = StatusFile(run_folder), listener, time.monotonic()

    def at(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def emit(self, event: Event) -> None:
        """Tell the board and the listener."""
        self.board.see(event)
        if self._listener is not None:
            self._listener(event)

    def write(self) -> None:
        """Bring the status file up to date. Raises StoreError."""
        self._status.write(self.board, self.at())

    def end(self, state: str, message: str = "") -> None:
        """The last event. Raises StoreError if the status file cannot be written."""
        self.emit(RunEnded(self.at(), state, message))
        try:
            self._status.write(self.board, self.at(), force=True)
        finally:
            self._status.close()
