"""The lease of a store: while a cluster computes for one driver, no other runner may use the store.

Kernel locks may not reach from one machine to another. So the nodes of a cluster take none: their driver decides who
computes what, and the file `cluster.json` in the store says that it is the only one. It is made in one step that only one
process can win, and renewed every few seconds; a renewal that fails is tried again. A driver that died without taking it
back is told by its age, which the clock of whoever keeps the file measures, or at once on the machine that it ran on. In
an object store it is the same file (`remote.py`); what holds there as well is said by `LeasePlace`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from finetrial.errors import StoreError
from finetrial.run.disk import explained

LEASE_FILE = "cluster.json"
RENEW_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a sign of life
BOOT_ID, PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_LOG = logging.getLogger(__name__)


class LeasePlace(Protocol):
    """Where the lease of one store lies. Its name is for people."""

    def __str__(self) -> str: ...

    def read(self) -> bytes | None:
        """What the lease says; None without one."""

    def create(self, content: bytes) -> None:
        """Raises FileExistsError if there is one, however many try at once."""

    def renew(self, content: bytes) -> None:
        """Give it the age of zero. Raises OSError."""

    def remove(self, content: bytes) -> None:
        """If it is there and says this."""

    def age(self) -> float | None:
        """Seconds since it was renewed, by the clock of the place; None if it is gone."""


@dataclass(frozen=True)
class InFolder:
    """The lease of a store in a folder."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    @property
    def _path(self) -> Path:
        return self.root / LEASE_FILE

    def read(self) -> bytes | None:
        """What the lease says; None without one."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def create(self, content: bytes) -> None:
        """Raises FileExistsError if there is one."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._path.open("xb") as file:
            file.write(content)

    def renew(self, content: bytes) -> None:
        """Give it the age of zero."""
        os.utime(self._path)

    def remove(self, content: bytes) -> None:
        """If it is there and says this: it is renamed, which one process can do, and put back if it is another's."""
        if self.read() != content:
            return
        aside = self.root / f".{LEASE_FILE}.{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):  # another process was first
            self._path.rename(aside)
            if aside.read_bytes() != content:
                with contextlib.suppress(OSError):  # a third one took it, or there are no links here: who had it notices
                    os.link(aside, self._path)
            aside.unlink()

    def age(self) -> float | None:
        """By the clock of the file server: of a file that is made now."""
        probe = self.root / f".{LEASE_FILE}.{uuid.uuid4().hex}"
        probe.touch()
        try:
            return probe.stat().st_mtime - self._path.stat().st_mtime
        except FileNotFoundError:  # given back meanwhile
            return None
        finally:
            probe.unlink()


class Lease:
    """A lease that this process holds, renewed by a thread until it is released."""

    def __init__(self, store: Path | LeasePlace) -> None:
        """Take the lease of a store. Raises StoreError while another process holds it."""
        self.token, self._renewed = uuid.uuid4().hex, time.monotonic()
        self._place = _place(store)
        held = {"token": self.token, "host": platform.node(), "pid": os.getpid(), "boot": _boot(), "pids": _pids()}
        self._content = json.dumps(held).encode()
        with explained(str(self._place)):
            dead = _left_behind(self._place)
            if dead is not None:
                self._place.remove(dead)
            try:
                self._place.create(self._content)
            except FileExistsError:
                raise _held(self._place, _read(self._place)) from None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreError if another driver has taken the store over, as after a machine was suspended."""
        with explained(str(self._place)):
            late = time.monotonic() - self._renewed > STALE_SECONDS  # the thread waits for an answer
            lost = not self._thread.is_alive() or (late and not holds(self._place, self.token))
        if lost:
            raise StoreError(f"the store {self._place} was taken over by another run, or cannot be reached any more",
                             "run the same command again once that run has ended: what is recorded is kept")

    def release(self) -> None:
        """Give the store back."""
        self._released.set()
        self._thread.join()
        self._place.remove(self._content)

    def _renew(self) -> None:
        """Ends when the lease is released or lost: taken over, or not renewed for about as long as makes it stale."""
        while not self._released.wait(RENEW_SECONDS):
            began = time.monotonic()
            try:
                if not holds(self._place, self.token):
                    return
                self._place.renew(self._content)
                self._renewed = began
            except (OSError, StoreError) as error:
                if time.monotonic() + 2 * RENEW_SECONDS - self._renewed > STALE_SECONDS:
                    return
                _LOG.warning("the lease of %s was not renewed, which is tried again: %s", self._place, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.release()


def require_free(store: Path | LeasePlace) -> None:
    """Raises StoreError while a cluster computes for another process."""
    _left_behind(_place(store))


def _left_behind(place: LeasePlace) -> bytes | None:
    """What the lease of a dead driver says; None without one. Raises StoreError for one that is held."""
    text = place.read()
    held = _parse(text)
    if held is not None and not _is_dead(place, held):
        raise _held(place, held)
    return text


def holds(store: Path | LeasePlace, token: str) -> bool:
    """Whether a store is leased under this token: true on every machine that sees the same store."""
    held = _read(_place(store))
    return held is not None and held.get("token") == token


def _place(store: Path | LeasePlace) -> LeasePlace:
    return InFolder(store) if isinstance(store, Path) else store


def _held(place: LeasePlace, held: dict[str, Any] | None) -> StoreError:
    who = f" by process {held['pid']} on {held['host']}" if held and "pid" in held else ""
    return StoreError(f"the store {place} is in use{who}, which runs a study on a cluster",
                      f"wait until it has ended, or name another --store; if that run is dead, the store is free "
                      f"{STALE_SECONDS:.0f} s after its last sign of life")


def _is_dead(place: LeasePlace, held: dict[str, Any]) -> bool:
    here = (held.get("host") == platform.node() and held.get("boot", _boot()) == _boot()
            and held.get("pids", _pids()) == _pids())
    if here and not _is_alive(int(held["pid"])):
        return True
    age = place.age()
    return age is None or age > STALE_SECONDS


def _boot() -> str:
    """What tells machines of one name apart, where the system says it."""
    return BOOT_ID.read_text().strip() if BOOT_ID.is_file() else ""


def _pids() -> str:
    """What tells containers of one machine and name apart: whose process numbers ours are, where the system says it."""
    try:
        return os.readlink(PID_NAMESPACE)
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _read(place: LeasePlace) -> dict[str, Any] | None:
    """What the lease says; None without one. One that is being written, or is damaged, says nothing and is held."""
    return _parse(place.read())


def _parse(text: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text is not None else None
    except ValueError:
        return {}
    return found if found is None or isinstance(found, dict) else {}
