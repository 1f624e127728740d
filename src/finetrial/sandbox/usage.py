"""What a running program uses, seen from outside: its files and threads, where the kernel does not keep the limit.

A program can make all of this hard to look at. What keeps itself from being counted is taken for too much; what is gone
when it is looked at is not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path

MOST_FILES = 10_000
MOST_LEVELS = 32  # of folders, below the program's: each holds a descriptor of ours, and programs run side by side
VANISHED = (FileNotFoundError, NotADirectoryError, ProcessLookupError)
MAPPED_UNLINKED = rb"(?m)^(?:\S+ ){4}(\d+) +%s/.* \(deleted\)$"  # the inode, of a line of proc_pid_maps(5)
OUR_OWN_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no fault of the program's


class NotCounted(Exception):
    """Something in a folder cannot be looked at."""


def is_larger(folder: Path, most_bytes: int, unlinked_bytes: int = 0) -> bool:
    """Whether all files below `folder`, with `unlinked_bytes` more, have more than `most_bytes`, or cannot be counted."""
    total = unlinked_bytes
    try:
        with contextlib.closing(_sizes(str(folder))) as sizes:
            for count, size in enumerate(sizes, 1):
                total += size
                if total > most_bytes or count > MOST_FILES:
                    return True
    except NotCounted:
        return True
    return total > most_bytes


def _sizes(folder: str, parent: int | None = None, levels: int = MOST_LEVELS) -> Generator[int, None, None]:
    """The size of every file below `folder`, 0 for a folder. By descriptors: a path has a greatest length, folders have
    none. Raises NotCounted."""
    if levels < 0:
        raise NotCounted
    opened = None
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        folders = []
        with os.scandir(opened) as entries:
            for entry in entries:
                with contextlib.suppress(*VANISHED):  # of this one; the others are still there
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                        yield 0
                    else:
                        yield entry.stat(follow_symlinks=False).st_size
        for name in folders:
            yield from _sizes(name, opened, levels - 1)
    except VANISHED:
        return
    except OSError as error:  # no permission, for one
        if error.errno in OUR_OWN_SHORTAGE:
            raise
        raise NotCounted from error
    finally:
        if opened is not None:
            os.close(opened)


def unlinked_bytes(pid: int, folder: Path, file_bytes: int) -> int:
    """Of files without a name that process `pid` still holds, which its folder does not show: open ones by their size,
    mapped ones, whose size is not told, by the `file_bytes` that one may have.

    0 where /proc is missing or may not be asked (root in a container, of a process that is another user's).
    """
    tasks: list[str] = []
    with contextlib.suppress(*VANISHED):
        tasks = [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    held: dict[int, int] = {}
    for task in tasks:  # a thread may have descriptors of its own
        held |= _open_unlinked(task)
    maps = next(filter(None, (_maps(task) for task in tasks)), b"")  # one memory for all
    for inode in re.findall(MAPPED_UNLINKED % re.escape(os.fsencode(folder)), maps):
        held.setdefault(int(inode), file_bytes)
    return sum(held.values())


def _open_unlinked(task: str) -> dict[int, int]:
    """Sizes of a thread's open files without a name, by inode; not of stdin, whose name `runner` removed."""
    held: dict[int, int] = {}
    stdin = None
    with contextlib.suppress(*VANISHED, PermissionError):
        for name in sorted(os.listdir(f"{task}/fd"), key=int):
            with contextlib.suppress(*VANISHED):
                status = os.stat(f"{task}/fd/{name}")
                if name == "0":
                    stdin = status.st_ino
                elif stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_ino != stdin:
                    held[status.st_ino] = status.st_size
    return held


def _maps(task: str) -> bytes:
    """proc_pid_maps(5): what is mapped into a thread's memory, a line each; nothing of one that has ended."""
    with contextlib.suppress(*VANISHED, PermissionError):
        return Path(task, "maps").read_bytes()
    return b""


def num_threads(pid: int) -> int:
    """Threads of process `pid`; 0 if it has ended, or where there is no /proc."""
    with contextlib.suppress(*VANISHED), open(f"/proc/{pid}/status", "rb") as status:
        return next((int(line.split()[1]) for line in status if line.startswith(b"Threads:")), 0)
    return 0
