"""The local copy of a remote store's entries, on one machine: bounded, the entries that were used longest ago go first.

It is a store in a folder, shared by the processes of the machine. Each process names the entries that it uses in a file
that it keeps locked: what a living process has named is not removed, though the bound be passed. The kernel lets go of
the file of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from finetrial.cache import cache_root
from finetrial.errors import UserError
from finetrial.fingerprint import key_of
from finetrial.run.claim import RECORD
from finetrial.run.disk import size_of
from finetrial.run.locks import is_locked

FOLDER, SIZE = "FINETRIAL_STORE_CACHE", "FINETRIAL_STORE_CACHE_GB"  # of the environment
SHARE = 0.5  # of the disk that is free, or taken by the cache, unless SIZE says
LOOK_SECONDS = 30.0  # between two looks at how large it is
_LOG = logging.getLogger(__name__)


def cache_folder(url: str) -> Path:
    """Where this machine keeps copies of the store at `url`. Machines may share a home: each has its own."""
    above = os.environ.get(FOLDER) or cache_root() / "stores"
    return Path(above) / f"{key_of(url)[:16]}-{platform.node()}"


class NodeCache:
    """The entries below `root`, which lie there as in a store."""

    def __init__(self, root: Path) -> None:
        """Raises UserError where the environment states a size that is none."""
        self._root, self._pins = root, root / "pins"
        self._stated = _stated_bytes()
        self._named, self._process = -1, -1  # a descriptor, and the process whose it is
        self._looked = -LOOK_SECONDS

    def use(self, folder: Path) -> None:
        """Keep an entry, there already or about to be, for as long as this process lives."""
        with self._alone():
            if self._process != os.getpid():  # a fork has a file of its own
                path = self._pins / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
                self._named, self._process = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC), os.getpid()
                fcntl.flock(self._named, fcntl.LOCK_EX)  # open until the process ends
            os.write(self._named, f"{folder.name}\n".encode())
        with contextlib.suppress(OSError):
            os.utime(folder)  # the time of last use

    def shrink(self, most_bytes: int | None = None) -> None:
        """Remove entries that nobody uses until the rest fits. Looks at most every LOOK_SECONDS, unless told how much fits.

        What the disk refuses is logged and no more: the entry that came last is there.
        """
        if most_bytes is None:
            if time.monotonic() - self._looked < LOOK_SECONDS:
                return
            self._looked = time.monotonic()
        try:
            with self._alone():
                going = self._moved(most_bytes)
        except OSError as error:
            _LOG.warning("the copies in %s were not bounded: %s", self._root, error)
            return
        for folder in going:
            shutil.rmtree(folder, ignore_errors=True)

    def _moved(self, most_bytes: int | None) -> list[Path]:
        """Where entries lie now that had to go: out of sight, so that they are removed without keeping others waiting."""
        entries = []
        for path in self._root.glob(f"*/??/*/{RECORD}"):
            with contextlib.suppress(FileNotFoundError):  # replaced just now
                entries.append((path.parent.stat().st_mtime, path.parent, size_of(path.parent)))
        total = sum(size for *_, size in entries)
        most = self._most(total) if most_bytes is None else most_bytes
        used = self._used() if total > most else set()
        going = []
        for _, folder, size in sorted(entries):
            if total <= most:
                break
            if folder.name not in used:
                place = self._root / "tmp" / f"{folder.name}.evicted.{uuid.uuid4().hex}"
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(place)
                    going.append(place)
                total -= size
        return going

    def _most(self, taken: int) -> int:
        return int(SHARE * (shutil.disk_usage(self._root).free + taken)) if self._stated is None else self._stated

    def _used(self) -> set[str]:
        """The names of entries that living processes use; files of dead ones are removed."""
        found: set[str] = set()
        for path in self._pins.iterdir():
            if path.name == "lock":
                continue
            if is_locked(path):
                found |= set(path.read_text(encoding="utf-8").split())
            else:
                path.unlink()
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process names entries or removes some."""
        self._pins.mkdir(parents=True, exist_ok=True)
        with (self._pins / "lock").open("w") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            yield


def _stated_bytes() -> int | None:
    """The bound that the environment states, if it does. Raises UserError."""
    stated = os.environ.get(SIZE)
    if not stated:
        return None
    try:
        gigabytes = float(stated)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise UserError(f"the environment has {SIZE}={stated}; expected a number of gigabytes, without a unit",
                        f"for example export {SIZE}=50, or unset it: then half of the free disk may be taken")
    return int(gigabytes * 1e9)
