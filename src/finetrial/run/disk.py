"""What the file system refuses, said for people: no room, no permission, a file where a folder should be."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from finetrial.cache import write_whole
from finetrial.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "os error 28", "Disk quota exceeded")  # of libraries that hide the number
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST)


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError about `path`."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


def store_error(error: BaseException, path: Path | str) -> StoreError:
    """One line and the mend. Whatever was recorded before stays."""
    number = error.errno if isinstance(error, OSError) else errno.ENOSPC if is_full(error) else None
    if number in _FULL:
        return StoreError(f"the disk that holds {path} is full",
                          "make room and run the same command again: what is recorded is kept")
    if number in _FORBIDDEN:
        return StoreError(f"no permission to write to {path}",
                          "choose a folder of your own for runs and store, or have its owner let you write there")
    if number in _NO_FOLDER:
        return StoreError(f"{path} cannot be a folder: a file of that name, or above it, is in the way",
                          "choose another folder, or move that file away")
    return StoreError(f"{path} cannot be used: {error}", "check that the disk is mounted and sound")


def is_full(error: BaseException) -> bool:
    """True if `error`, or one that led to it, says that a disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(text in str(seen) for text in _FULL_TEXTS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def replace_text(path: Path, text: str) -> None:
    """Replace a file atomically. Raises StoreError."""
    with explained(path):
        write_whole(path, text)


def replace_folder(folder: Path, place: Path) -> None:
    """Rename a folder, in the place of what is there already."""
    replaced = folder.with_name(f"{folder.name}.replaced")
    while True:
        try:
            os.rename(folder, place)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with contextlib.suppress(FileNotFoundError):  # another machine moved it just now
            os.rename(place, replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder. What another process removes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
