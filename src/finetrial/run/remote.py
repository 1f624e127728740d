"""A store that is no folder: an object store, or whatever else fsspec reaches (`s3://bucket/prefix`, `gs://`, `abfs://`).

    <url>/objects/<digest[:2]>/<digest>                      files, by their content
    <url>/records/<kind>/<key[:2]>/<key>-<environment>.json  a record, which names its files by digest: written last
    <url>/checkpoints/<key>-<environment>.json               which files the checkpoint of a long phase has, by digest;
    <url>/checkpoints/<key>-<environment>/<digest>           these
    <url>/cluster.json                                       the lease

Nothing is renamed and nothing locked. A file is written under the name of its content, so that whoever writes it, twice
or at once, writes the same; one that an upload left incomplete is named by no record, and is written again by whoever
needs it. A record is one object: it is there or not, and all that it names was there before. Hence an entry is visible
only when it is complete, and a file that two entries hold is stored once.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.errors import StoreError
from finetrial.run.lease import LEASE_FILE

OBJECTS, RECORDS, CHECKPOINTS = "objects", "records", "checkpoints"
LOCAL_PROTOCOLS = ("file", "local")


def is_url(location: object) -> bool:
    """Whether a store is named by a URL, and not by a folder."""
    return "://" in str(location) and isinstance(location, str)


def located(store: str | Path | None, runs: Path) -> str | Path:
    """Where the store lies that somebody named, or the runs' own."""
    return runs / ".store" if store is None else store if is_url(store) else Path(store)


def object_name(digest: str) -> str:
    """Where a file lies whose content has this digest."""
    return f"{OBJECTS}/{digest[:2]}/{digest}"


def record_name(kind: str, name: str) -> str:
    """Where the record of the entry `<key>-<environment>` lies."""
    return f"{RECORDS}/{kind}/{name[:2]}/{name}.json"


def checkpoint_name(name: str) -> str:
    """Where it is written which files are the checkpoint of an entry."""
    return f"{CHECKPOINTS}/{name}.json"


class Remote:
    """What is at a URL, by names below it. Raises StoreError where it cannot be reached; what is not there is None."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._file_system: Any = None

    def read(self, name: str) -> bytes | None:
        """The content of an object."""
        with self._reached() as there:
            try:
                found: bytes = there.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return found

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents by name, many at a time; what is not there any more is left out. Raises StoreError if one cannot be read."""
        with self._reached() as there:
            wanted = {self._path(name): name for name in names}
            if not wanted:
                return {}
            found = {path.lstrip("/"): content for path, content in there.cat(list(wanted), on_error="return").items()}
            contents = {}
            for path, name in wanted.items():
                content = found[path.lstrip("/")]
                if isinstance(content, FileNotFoundError):
                    continue
                if isinstance(content, BaseException):
                    raise content
                contents[name] = content
        return contents

    def write(self, name: str, content: bytes) -> None:
        """Write an object in one request."""
        with self._reached() as there:
            there.pipe_file(self._path(name), content)

    def upload(self, path: Path, name: str) -> None:
        """Write a file, unless an object of its size is there: a name stands for one content."""
        with self._reached() as there:
            if self._size(name) != path.stat().st_size:
                there.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> bool:
        """Bring an object into a file; False if it is not there."""
        with self._reached() as there:
            try:
                there.get_file(self._path(name), str(path))
            except FileNotFoundError:
                return False
        return True

    def has(self, name: str) -> bool:
        """Whether an object is there now."""
        with self._reached():
            return self._size(name) is not None

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._reached() as there, contextlib.suppress(FileNotFoundError):
            there.rm_file(self._path(name))

    def sizes(self, below: str) -> dict[str, int]:
        """Every object below a name, with its size in bytes."""
        with self._reached() as there:
            root = self._path("").strip("/")
            try:
                found: Mapping[str, Any] = there.find(self._path(below), detail=True)
            except FileNotFoundError:
                return {}
        return {path.strip("/").removeprefix(root).lstrip("/"): int(about["size"] or 0) for path, about in found.items()}

    def age(self, name: str) -> float | None:
        """Seconds since an object was written, by the clock of the store; None if it is gone."""
        probe = f"{name}.{uuid.uuid4().hex}"
        self.write(probe, b"")
        try:
            with self._reached() as there:
                now = there.modified(self._path(probe))
                try:
                    return float((now - there.modified(self._path(name))).total_seconds())
                except FileNotFoundError:
                    return None
        finally:
            self.remove(probe)

    def create(self, name: str, content: bytes) -> None:
        """Write an object that is not there. Raises FileExistsError, also where another process was first just now."""
        with self._reached() as there:
            try:
                there.pipe_file(self._path(name), content, mode="create")  # a condition of the request where the store has them
            except FileExistsError:
                raise
            except Exception:  # noqa: BLE001 (libraries say in their own ways that it is there, or that they know no condition)
                if self.read(name) is None:
                    there.pipe_file(self._path(name), content)
        if self.read(name) != content:
            raise FileExistsError(name)

    def _size(self, name: str) -> int | None:
        try:
            return int(self._there.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @functools.cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system and our path in it. Listings are not cached: others write here."""
        import fsspec

        protocol = fsspec.core.split_protocol(self.url)[0]
        options = {"auto_mkdir": True} if protocol in LOCAL_PROTOCOLS else {}
        there, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)
        return there, root.rstrip("/")

    @property
    def _there(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @contextlib.contextmanager
    def _reached(self) -> Iterator[Any]:
        """The file system; whatever its library raises is said for people."""
        try:
            yield self._there
        except ImportError as error:
            raise StoreError(f"{self.url} cannot be opened: {error}",
                             "install that package on every node: s3fs for s3://, gcsfs for gs://, adlfs for abfs://") from error
        except (StoreError, FileExistsError):
            raise
        except Exception as error:  # each library has errors of its own: of its network, its credentials, its answers
            text = " ".join(str(error).split())[:300]
            raise StoreError(f"the store {self.url} cannot be used: {type(error).__name__}: {text}",
                             "check its address, the credentials and the network; what is recorded is kept") from error


@dataclass(frozen=True)
class RemoteLease:
    """The lease of a store at a URL."""

    remote: Remote

    def __str__(self) -> str:
        return self.remote.url

    def read(self) -> bytes | None:
        """What the lease says; None without one."""
        return self.remote.read(LEASE_FILE)

    def create(self, content: bytes) -> None:
        """Raises FileExistsError if there is one. Where a store knows no conditional request, whoever wrote last has it."""
        self.remote.create(LEASE_FILE, content)

    def renew(self, content: bytes) -> None:
        """Write it again, which gives it the age of zero."""
        self.remote.write(LEASE_FILE, content)

    def remove(self, content: bytes) -> None:
        """If it is there and says this."""
        if self.read() == content:
            self.remote.remove(LEASE_FILE)

    def age(self) -> float | None:
        """By the clock of the store."""
        return self.remote.age(LEASE_FILE)
