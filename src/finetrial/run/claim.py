"""The right to write an entry of the store, and how one is written: the record last, in its place in one rename."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from finetrial.fingerprint import folder_digests
from finetrial.records.record import Outcome, Record
from finetrial.run.disk import explained, replace_folder
from finetrial.run.locks import FileLock, Unlocked
from finetrial.stages.base import StageInput

RECORD = "record.json"


@dataclass
class Claim:
    """An entry that this process, and no other, may write."""

    _root: Path
    _place: Path
    folder: Path  # empty: the stage's files
    checkpoint: Path  # a folder that survives a kill, until a record is written
    _lock: FileLock | Unlocked
    publish: Callable[[Path, Record], None] | None = None  # called with the complete folder, before it takes its place
    on_release: Callable[[], None] | None = None

    def write(self, record: Record) -> StageInput:
        """Digest the files, write the record, move the entry to its place. Only an outcome of OK keeps files.

        A record of an earlier attempt is replaced. Raises StoreError.
        """
        with explained(self._root):
            if record.outcome is not Outcome.OK:
                _empty(self.folder)
            files = folder_digests(self.folder)
            assert RECORD not in files, "a stage must not write a record of its own"
            record = record.model_copy(update={"files": files})
            _write_synced(self.folder / RECORD, json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")
            if self.publish is not None:
                self.publish(self.folder, record)
            self._place.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(self.folder, self._place)
            if record.outcome is not Outcome.TIMEOUT:  # the next attempt goes on from there
                shutil.rmtree(self.checkpoint, ignore_errors=True)
        return StageInput(record, self._place)

    def release(self) -> None:
        """Give the claim back; what was not written is removed, checkpoints are kept."""
        if self.on_release is not None:
            self.on_release()
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_if_empty(self.checkpoint)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.release()


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, unless something is in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
