"""The lease of a store: while a cluster computes for one driver, no other runner may use the store.

Kernel locks may not reach from one machine to another. So the nodes of a cluster take none: their driver decides who
computes what, and the file `<store>/cluster.json` says that it is the only one. It is made in one step that only one
process can win, and renewed every few seconds. A driver that died without taking it back is told by its age, which the
file server's clock measures, or at once on the machine that it ran on.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetrial.errors import StoreError
from finetrial.run.disk import explained

LEASE_FILE = "cluster.json"
RENEW_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a sign of life


class Lease:
    """A lease that this process holds, renewed by a thread until it is released."""

    def __init__(self, root: Path) -> None:
        """Take the lease of the store at `root`. Raises StoreError while another process holds it."""
        self.token = uuid.uuid4().hex
        self._root, self._path = root, root / LEASE_FILE
        with explained(root):
            root.mkdir(parents=True, exist_ok=True)
            require_free(root)
            _take_away(self._path)  # what a dead driver left
            try:
                with self._path.open("x", encoding="utf-8") as file:
                    json.dump({"token": self.token, "host": platform.node(), "pid": os.getpid()}, file)
            except FileExistsError:
                raise _held(self._root, _read(self._path)) from None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreError if another driver has taken the store over, as after a machine was suspended."""
        if not self._thread.is_alive():
            raise StoreError(f"the store {self._root} was taken over by another run, or cannot be reached any more",
                             "run the same command again once that run has ended: what is recorded is kept")

    def release(self) -> None:
        """Give the store back."""
        self._released.set()
        self._thread.join()
        if holds(self._root, self.token):
            _take_away(self._path)

    def _renew(self) -> None:
        """Ends when the lease is released or lost."""
        while not self._released.wait(RENEW_SECONDS):
            try:
                if not holds(self._root, self.token):
                    return
                os.utime(self._path)
            except OSError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.release()


def require_free(root: Path) -> None:
    """Raises StoreError while a cluster computes for another process."""
    path = root / LEASE_FILE
    held = _read(path)
    if held is not None and not _is_dead(root, held):
        raise _held(root, held)


def holds(root: Path, token: str) -> bool:
    """Whether the store at `root` is leased under this token: true on every machine that sees the same folder."""
    held = _read(root / LEASE_FILE)
    return held is not None and held.get("token") == token


def _held(root: Path, held: dict[str, Any] | None) -> StoreError:
    who = f" by process {held['pid']} on {held['host']}" if held and "pid" in held else ""
    return StoreError(f"the store {root} is in use{who}, which runs a study on a cluster",
                      f"wait until it has ended, or name another --store; if that run is dead, the store is free "
                      f"{STALE_SECONDS:.0f} s after its last sign of life")


def _is_dead(root: Path, held: dict[str, Any]) -> bool:
    if held.get("host") == platform.node() and not _is_alive(int(held["pid"])):
        return True
    probe = root / f".{LEASE_FILE}.{uuid.uuid4().hex}"  # made now, by the clock that the lease is renewed by
    probe.touch()
    try:
        age = probe.stat().st_mtime - (root / LEASE_FILE).stat().st_mtime
    except FileNotFoundError:  # given back meanwhile
        return True
    finally:
        probe.unlink()
    return age > STALE_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """What the file says; None without one. One that is being written, or is damaged, says nothing and is held."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _take_away(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
