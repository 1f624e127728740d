"""The checkpoint of a long phase in a store at a URL, so that another node can go on where one died.

A thread looks at the phase's folder and writes what has changed: files under the names of their contents, then one
object that says which files the checkpoint has. They are not among the store's objects: they go when the phase is done.
A stage replaces its files in ways of its own (`train/checkpoint.py`) and tells a broken one itself; a file that was
written to meanwhile does not match its digest and is not brought back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path

from finetrial.errors import StoreError
from finetrial.fingerprint import file_digest
from finetrial.run.remote import Remote

EVERY_SECONDS = 60.0
_LOG = logging.getLogger(__name__)


class Mirror:
    """Keeps the checkpoint at `name` like `folder`, from now until it is stopped."""

    def __init__(self, remote: Remote, name: str, folder: Path, held: Mapping[str, str]) -> None:
        """`held`: the files that the checkpoint has by now, with their digests."""
        self._remote, self._name, self._folder = remote, name, folder
        self._files = dict(held)  # what the checkpoint has, with digests
        self._seen = _stamps(folder)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go, name="checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write nothing any more. May be called again."""
        self._stopped.set()
        self._thread.join()

    def remove(self) -> None:
        """The phase is recorded: nobody goes on from here."""
        self._remote.remove(self._name)
        self._replace({})

    def _go(self) -> None:
        while not self._stopped.wait(EVERY_SECONDS):
            stamps = _stamps(self._folder)
            if stamps == self._seen:
                continue
            try:
                self._write()
                self._seen = stamps
            except (OSError, StoreError) as error:  # the phase itself goes on, and its record says whether the store is there
                _LOG.warning("the checkpoint was not written to the store: %s", error)

    def _write(self) -> None:
        kept = self._folder.with_name(f"{self._folder.name}.{uuid.uuid4().hex}")
        kept.mkdir()
        try:
            for name in _stamps(self._folder):
                with contextlib.suppress(FileNotFoundError):  # replaced just now
                    os.link(self._folder / name, kept / name)
            files = {path.name: file_digest(path) for path in sorted(kept.iterdir())}
            for name, digest in files.items():
                self._remote.upload(kept / name, _file_name(self._name, digest))
            self._remote.write(self._name, json.dumps(files).encode())
        finally:
            shutil.rmtree(kept)
        self._replace(files)

    def _replace(self, files: dict[str, str]) -> None:
        for digest in set(self._files.values()) - set(files.values()):
            self._remote.remove(_file_name(self._name, digest))
        self._files = files


def restore(remote: Remote, name: str, folder: Path) -> dict[str, str]:
    """Bring a checkpoint, unless the folder has one of its own: what this machine wrote last is newer.

    Returns the files that it has in the store, with their digests.
    """
    if (text := remote.read(name)) is None:
        return {}
    held: dict[str, str] = json.loads(text)
    if any(folder.iterdir()):
        return held
    for file, digest in held.items():
        path = folder / Path(file).name
        if remote.download(_file_name(name, digest), path) and file_digest(path) != digest:
            path.unlink()
    return held


def _file_name(name: str, digest: str) -> str:
    return f"{name.removesuffix('.json')}/{digest}"


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            found[path.name] = (about.st_size, about.st_mtime_ns)
    return found
