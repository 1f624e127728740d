"""Locks between processes: `flock` on a file. The kernel lets go of them when the holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_SECONDS = 0.1


class FileLock:
    """A lock that is held. The file is removed on release, so that locks leave nothing behind."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def release(self) -> None:
        """Let go. May be called once."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.release()


class Unlocked:
    """Stands in for a lock where somebody else sees to it that only one process comes here."""

    def release(self) -> None:
        """There is nothing to let go of."""


def try_lock(path: Path) -> FileLock | None:
    """Take the lock without waiting; None if another process holds it. Raises OSError if it cannot be created."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _is(path, descriptor):
            return FileLock(path, descriptor)
        os.close(descriptor)  # its holder removed the file between our open and our flock: try the new one


def waited_lock(path: Path) -> FileLock:
    """Take the lock, however long another process holds it."""
    while (lock := try_lock(path)) is None:
        time.sleep(POLL_SECONDS)
    return lock


def is_locked(path: Path) -> bool:
    """True while some process holds the lock. Creates nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is(path: Path, descriptor: int) -> bool:
    """True if `path` still names the file that is open."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
