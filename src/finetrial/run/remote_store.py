"""A store at a URL (`remote.py`), with copies of what this machine uses in a folder (`node_cache.py`).

Records are read where they are asked for, files only when a stage opens the entry's folder: then those that the machine
does not have are brought, and checked by their digests. What a phase wrote goes out file by file, its record last, and
stays here as a copy. One driver has the store at a time, by its lease; who computes what on one machine is settled by
locks in the folder of copies.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from finetrial.errors import StoreError
from finetrial.fingerprint import file_digest
from finetrial.records.record import RECORD_SCHEMA, Environment, Outcome, Record
from finetrial.run.claim import RECORD, Claim
from finetrial.run.disk import explained, replace_folder
from finetrial.run.lease import LeasePlace
from finetrial.run.locks import waited_lock
from finetrial.run.node_cache import NodeCache, cache_folder
from finetrial.run.remote import (
    OBJECTS,
    RECORDS,
    Remote,
    RemoteLease,
    checkpoint_name,
    is_url,
    object_name,
    record_name,
)
from finetrial.run.remote_checkpoint import Mirror, restore
from finetrial.run.store import OWN_FOLDERS, Store, entry_name
from finetrial.stages.base import StageInput

AGAIN = "the next run computes it again"
_LOG = logging.getLogger(__name__)


def open_store(location: str | Path, *, trusting: bool = False, cluster: bool = False) -> Store:
    """The store in a folder, or at a URL."""
    if is_url(location):
        return RemoteStore(str(location), trusting=trusting)
    return Store(Path(location), trusting=trusting, cluster=cluster)


class RemoteEntry(StageInput):
    """An entry whose files are brought when its folder is asked for."""

    _bring: Callable[[], Path]

    def __init__(self, record: Record, bring: Callable[[Record], Path]) -> None:
        object.__setattr__(self, "record", record)
        object.__setattr__(self, "_bring", functools.cache(lambda: bring(record)))

    @property
    def folder(self) -> Path:
        """A folder of this machine with all files. Raises StoreError where a file is gone or cannot be reached."""
        return self._bring()


class RemoteStore(Store):
    """A store at a URL. Whoever computes must hold its lease, or work for a driver that does."""

    def __init__(self, url: str, *, trusting: bool = False) -> None:
        super().__init__(cache_folder(url), trusting=trusting, cluster=True)
        self.remote, self.locking = Remote(url), True
        self._cache = NodeCache(self.root)
        self._there: dict[str, int] | None = None  # names in the store, as they were when we looked
        self._asked: set[str] = set()

    @property
    def location(self) -> str:
        """The URL."""
        return self.remote.url

    @property
    def lease(self) -> LeasePlace:
        """Where its lease lies."""
        return RemoteLease(self.remote)

    def prepare(self) -> None:
        """Make the folder of copies, and remove what dead processes left in it. What is recorded is looked up anew."""
        super().prepare()
        self._there, self._asked = None, set()

    def lookup(self, kind: str, key: str, environment: Environment, *, verify: bool = True) -> StageInput | None:
        """The entry, whatever its outcome; None if there is none, its record cannot be read, or a file of it is gone."""
        name = record_name(kind, entry_name(key, environment))
        known = self._known() if verify and self.trusting and name not in self._asked else None
        self._asked.add(name)  # the second time somebody may have recorded it since
        if known is not None and name not in known:
            return None
        text = self.remote.read(name)
        if text is None:
            return None
        try:
            record = Record.model_validate_json(text)
        except ValidationError:
            self._noted(name, "it cannot be read")
            return None
        if (record.schema_version, record.key, record.environment) != (RECORD_SCHEMA, key, environment):
            self._noted(name, "it is of another version, key or environment")
            return None
        if any(PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts for file in record.files):
            self._noted(name, "it names files outside its folder")
            return None
        if known is not None and (gone := self._gone(record, known)):
            self._forget(record, f"{gone} is missing")
            return None
        return self.entry(record)

    def entry(self, record: Record) -> StageInput:
        """The entry of a record of this store."""
        return RemoteEntry(record, self._bring)

    def trust(self, entry: StageInput) -> None:
        """What this process has written was checked on its way."""

    def claim(self, kind: str, key: str, environment: Environment) -> Claim | None:
        """The right to compute an entry on this machine, with the checkpoint that an earlier attempt left anywhere."""
        claim = super().claim(kind, key, environment)
        if claim is None:
            return None
        name = entry_name(key, environment)
        try:
            held = restore(self.remote, checkpoint_name(name), claim.checkpoint)
        except BaseException:
            claim.release()
            raise
        mirror = Mirror(self.remote, checkpoint_name(name), claim.checkpoint, held)
        claim.publish = functools.partial(self._publish, kind, name, mirror)
        claim.on_release = mirror.stop
        return claim

    def _publish(self, kind: str, name: str, mirror: Mirror, folder: Path, record: Record) -> None:
        """All files, then the record."""
        mirror.stop()
        self._cache.use(folder.with_name(name))
        for file, digest in record.files.items():
            self.remote.upload(folder / file, object_name(digest))
        self.remote.write(record_name(kind, name), (folder / RECORD).read_bytes())
        if record.outcome is not Outcome.TIMEOUT:
            mirror.remove()
        self._cache.shrink()

    def _bring(self, record: Record) -> Path:
        """The folder of copies of an entry, complete and checked."""
        place = self._folder(record.kind, record.key, record.environment)
        with explained(self.root):
            self._cache.use(place)
            if self._has(record):
                return place
            for name in OWN_FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with waited_lock(self.root / "locks" / place.name):
                if not self._has(record):  # another process may just have brought it
                    self._bring_files(record, place)
        self._cache.shrink()
        return place

    def _has(self, record: Record) -> bool:
        """Whether this machine has a copy of the entry, and it is sound."""
        local = super().lookup(record.kind, record.key, record.environment)
        return local is not None and local.record == record

    def _bring_files(self, record: Record, place: Path) -> None:
        folder = self.root / "tmp" / f"{place.name}.brought.{os.getpid()}.{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            for file, digest in record.files.items():
                if (fault := self._bring_file(folder / file, digest)) is not None:
                    self._forget(record, f"{file} {fault}")
                    raise StoreError(f"{file} {fault} in the store {self.location}", AGAIN)
            (folder / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(folder, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _bring_file(self, path: Path, digest: str) -> str | None:
        """Bring one file; what is wrong with it, if something is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.remote.download(object_name(digest), path):
            return "is missing"
        if file_digest(path) != digest:
            self.remote.remove(object_name(digest))  # whoever computes it again must not take it for the right one
            return "does not match its digest"
        return None

    def _known(self) -> dict[str, int]:
        """What is in the store, looked at once."""
        if self._there is None:
            self._there = {**self.remote.sizes(RECORDS), **self.remote.sizes(OBJECTS)}
        return self._there

    def _gone(self, record: Record, known: Mapping[str, int]) -> str | None:
        """A file of a record that is not there, by what was there when we looked and, without it, by a look now."""
        lacking = ((file, object_name(digest)) for file, digest in record.files.items())
        return next((file for file, name in lacking if name not in known and not self.remote.has(name)), None)

    def _forget(self, record: Record, why: str) -> None:
        """Remove a record whose files are not all there: while it is there nobody computes them again."""
        name = record_name(record.kind, entry_name(record.key, record.environment))
        self._noted(name, why)
        try:
            text = self.remote.read(name)
            if text is not None and json.loads(text) == record.model_dump(mode="json"):  # not replaced meanwhile
                self.remote.remove(name)
        except StoreError as error:  # a reader may not be allowed to
            _LOG.warning("the record %s, of which %s, was not removed: %s", name, why, error)

    def _noted(self, name: str, why: str) -> None:
        """What is damaged counts as absent; who computes it again replaces it."""
        self.corrupt.append(f"{self.location}/{name}: {why}")
