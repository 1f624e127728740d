"""The store: what was computed, by content key and environment class.

    <store>/<kind>/<key[:2]>/<key>-<environment>/    record.json and the stage's files
    <store>/tmp/  locks/  checkpoints/  corrupt/     the store's own
    <store>/cache/<environment>/                     what stages may read again instead of computing it; removed freely

An entry is written in `tmp/` under a lock, its record last, and moved to its place in one rename: an entry that exists
is complete. Reading checks that the record is the one asked for and that its files match their digests; a damaged entry
is moved to `corrupt/` and counts as absent. Processes may share a store: who computes an entry holds its lock, and the
kernel takes the lock back if that process dies. The nodes of a cluster take no locks: their driver, which alone has the
store meanwhile (`lease.py`), decides who computes what.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import platform
import shutil
from pathlib import Path

from pydantic import ValidationError

from finetrial.fingerprint import file_digest
from finetrial.records.record import RECORD_SCHEMA, Environment, Outcome, Record
from finetrial.run.claim import RECORD, Claim, remove_if_empty
from finetrial.run.disk import explained
from finetrial.run.lease import InFolder, LeasePlace, require_free
from finetrial.run.locks import Unlocked, is_locked, try_lock
from finetrial.stages.base import StageInput

CACHE = "cache"
CHECKPOINTS = "checkpoints"
LARGE_BYTES = 1 << 20
OF_CLUSTER = "cluster"  # in the names of what nodes of a cluster write, who hold no locks
OWN_FOLDERS = ("tmp", "locks", CHECKPOINTS, "corrupt")
_LOG = logging.getLogger(__name__)
_serial = itertools.count()

Stamp = tuple[int, int, int]  # inode, size in bytes, time of change in ns


class _Damaged(Exception):
    """An entry that cannot be trusted, and why."""


class Store:
    """A store in the folder `root`. Nothing is created before `prepare`.

    With `trusting`, files of at least `LARGE_BYTES` that were last changed before their record was written are not
    digested: for a process that reports, while those that compute with such files check them. `cluster`: for the driver
    that holds the lease, and its nodes.
    """

    def __init__(self, root: Path, *, trusting: bool = False, cluster: bool = False) -> None:
        self.root = root
        self.cluster = cluster
        self.locking = not cluster  # whether who computes an entry holds a kernel lock
        self.trusting = trusting
        self.corrupt: list[str] = []  # entries that this object found damaged and moved aside, each with the reason
        self._verified: dict[Path, tuple[tuple[Stamp, ...], StageInput]] = {}

    @property
    def location(self) -> str:
        """What `open_store` opens it by, on any machine that sees it."""
        return str(self.root.resolve())

    @property
    def lease(self) -> LeasePlace:
        """Where its lease lies."""
        return InFolder(self.root)

    def prepare(self) -> None:
        """Make the folders and remove what dead processes left. Raises StoreError if the store cannot be written, or is
        leased to the driver of a cluster."""
        with explained(self.root):
            if not self.cluster:
                require_free(self.root)
            for name in OWN_FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / "tmp" / f".probe-{os.getpid()}"
            probe.write_text("a store that takes this line takes more")
            probe.unlink()
            self._sweep()

    def lookup(self, kind: str, key: str, environment: Environment, *, verify: bool = True) -> StageInput | None:
        """The entry, whatever its outcome; None if there is none or it is damaged.

        With `verify`, files are digested once for each object and again only if they changed. Without, only the record
        is read: for entries that this run has verified or written.
        """
        folder = self._folder(kind, key, environment)
        with explained(self.root):
            if not folder.is_dir():
                return None
            try:
                return self._read(folder, key, environment, verify)
            except _Damaged:
                return self._move_aside(folder, key, environment)

    def trust(self, entry: StageInput) -> None:
        """Take an entry that this process has just written as verified."""
        self._verified[entry.folder] = (_stamps(entry.folder, entry.record), entry)

    def cache(self, environment: Environment) -> Path:
        """Where stages of one environment class keep what saves time and changes no result. It need not exist."""
        return self.root / CACHE / environment.key()

    def drop_cache(self) -> None:
        """Remove all caches, unless some process computes with the store; one that begins now goes on without."""
        locks = self.root / "locks"
        if not locks.is_dir() or not any(is_locked(lock) for lock in locks.iterdir()):
            shutil.rmtree(self.root / CACHE, ignore_errors=True)

    def claim(self, kind: str, key: str, environment: Environment) -> Claim | None:
        """The right to compute an entry; None while another process has it. Raises StoreError if it can't be taken."""
        name = entry_name(key, environment)
        with explained(self.root):
            lock = try_lock(self.root / "locks" / name) if self.locking else Unlocked()
            if lock is None:
                return None
            try:
                owner = "" if self.locking else f"{OF_CLUSTER}.{platform.node()}."
                folder = self.root / "tmp" / f"{name}.{owner}{os.getpid()}.{next(_serial)}"
                shutil.rmtree(folder, ignore_errors=True)  # of a dead process that had our number
                folder.mkdir()
                checkpoint = self.root / CHECKPOINTS / name
                checkpoint.mkdir(exist_ok=True)
            except BaseException:
                lock.release()
                raise
        return Claim(self.root, self._folder(kind, key, environment), folder, checkpoint, lock)

    def is_claimed(self, key: str, environment: Environment) -> bool:
        """True while some process computes the entry."""
        return is_locked(self.root / "locks" / entry_name(key, environment))

    def _folder(self, kind: str, key: str, environment: Environment) -> Path:
        return self.root / kind / key[:2] / entry_name(key, environment)

    def _read(self, folder: Path, key: str, environment: Environment, verify: bool) -> StageInput:
        """Raises _Damaged."""
        if folder in self._verified:
            stamps, entry = self._verified[folder]
            if _stamps(folder, entry.record) == stamps:
                return entry
        entry = StageInput(_parse(folder, key, environment), folder)
        stamps = _stamps(folder, entry.record)
        if verify:
            try:
                self._verify(folder, entry.record)
            except FileNotFoundError as error:  # moved aside by another process, or removed
                raise _Damaged(f"{Path(error.filename or folder).name} is gone") from None
        self._verified[folder] = (stamps, entry)
        return entry

    def _verify(self, folder: Path, record: Record) -> None:
        recorded = (folder / RECORD).stat().st_mtime_ns
        for name, digest in record.files.items():
            if self.trusting and _unchanged(folder / name, recorded):
                continue
            if file_digest(folder / name) != digest:
                raise _Damaged(f"{name} does not match its digest")

    def _move_aside(self, folder: Path, key: str, environment: Environment) -> StageInput | None:
        """Under the entry's lock: another process may have mended it meanwhile, or be about to."""
        name = entry_name(key, environment)
        with try_lock(self.root / "locks" / name) or contextlib.nullcontext() as lock:
            if lock is None or not folder.is_dir():
                return None
            try:
                return self._read(folder, key, environment, verify=True)
            except _Damaged as damage:
                target = next(path for n in itertools.count(1)
                              if not (path := self.root / "corrupt" / f"{name}.{n}").exists())
                folder.rename(target)
                self.corrupt.append(f"{folder}: {damage}; moved to {target}")
                _LOG.warning("damaged store entry %s", self.corrupt[-1])
                return None

    def _sweep(self) -> None:
        """Remove what nobody holds the lock of: temporary folders, locks, checkpoints of what is recorded."""
        names = {path.name.partition(".")[0] for folder in ("tmp", "locks", CHECKPOINTS)
                 for path in (self.root / folder).iterdir()}
        for name in sorted(names - {""}):
            lock = try_lock(self.root / "locks" / name)
            if lock is not None:
                with lock:
                    self._sweep_entry(name)

    def _sweep_entry(self, name: str) -> None:
        for folder in (self.root / "tmp").glob(f"{name}.*"):
            shutil.rmtree(folder, ignore_errors=True)  # of nodes, too: nobody has the lease, or we have
        checkpoint = self.root / CHECKPOINTS / name
        for record in self.root.glob(f"*/{name[:2]}/{name}/{RECORD}"):
            if _is_done_with(checkpoint, record):
                shutil.rmtree(checkpoint, ignore_errors=True)
        remove_if_empty(checkpoint)


def _is_done_with(checkpoint: Path, record: Path) -> bool:
    """Whether nobody goes on from a checkpoint: what is recorded is final, or failed, and was not begun again since."""
    text = record.read_text(encoding="utf-8")
    outcome = next((found for found in Outcome if f'"outcome": "{found}"' in text), None)
    if outcome in (Outcome.OK, Outcome.DIVERGED):
        return True
    written = record.stat().st_mtime_ns
    return outcome is not Outcome.TIMEOUT and all(path.stat().st_mtime_ns <= written for path in checkpoint.rglob("*"))


def entry_name(key: str, environment: Environment) -> str:
    """The name of an entry's folder, its lock and its checkpoint: `<key>-<environment>`."""
    return f"{key}-{environment.key()}"


def key_of_entry(name: str) -> str:
    """The key in an entry's name."""
    return name.rpartition("-")[0]


def _parse(folder: Path, key: str, environment: Environment) -> Record:
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
    except FileNotFoundError:
        raise _Damaged(f"it has no {RECORD}") from None
    except ValidationError as error:
        raise _Damaged(f"{RECORD} cannot be read ({error.error_count()} problems)") from None
    if record.schema_version != RECORD_SCHEMA:
        raise _Damaged(f"its record has schema {record.schema_version}, this version reads {RECORD_SCHEMA}")
    if (record.key, record.environment) != (key, environment):
        raise _Damaged("its record is of another key or environment")
    return record


def _stamps(folder: Path, record: Record) -> tuple[Stamp, ...]:
    """What the file system says of the record and every file. Raises _Damaged if one is missing."""
    return tuple(_stamp(folder / name) for name in (RECORD, *record.files))


def _unchanged(path: Path, since: int) -> bool:
    """Whether a large file was last changed before a time in ns."""
    found = path.stat()
    return found.st_size >= LARGE_BYTES and found.st_mtime_ns <= since


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise _Damaged(f"{path.name} is missing") from None
    return found.st_ino, found.st_size, found.st_mtime_ns
