"""Namespaces of one's own: no network, no shared memory of others, and a file tree of nothing but what is listed.

The tree is a small file system in memory onto which the listed paths are bound, read-only, at their own places; then it
becomes the root. The scratch folder is a file system in memory too: it has a size, and it is gone with the process.
"""

from __future__ import annotations

import os
import struct

from . import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # Linux 5.12; one number on every architecture
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
TREE_BYTES = 1 << 20  # for folders and links only
MAX_FILES = 10_000


def enter() -> None:
    """New namespaces of mounts, network and IPC; a user namespace around them unless this is root."""
    uid, gid = os.getuid(), os.getgid()
    system.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | (CLONE_NEWUSER if uid else 0))
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def own_root(tree: str, read: Iterable[str], devices: Iterable[str], scratch: str, scratch_bytes: int) -> None:
    """Make `tree`, an empty folder, the root of all files: the listed paths and an empty `scratch`, nothing else."""
    os.umask(0o022)
    system.mount(None, "/", None, MS_REC | MS_PRIVATE)
    system.mount("tmpfs", tree, "tmpfs", MS_NOSUID | MS_NODEV, f"size={TREE_BYTES},nr_inodes={MAX_FILES},mode=755")
    for path in sorted({*read}):
        _bind(tree, path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
    for path in devices:
        _bind(tree, path, MOUNT_ATTR_NOSUID)
    os.makedirs(tree + scratch, exist_ok=True)
    system.mount("tmpfs", tree + scratch, "tmpfs", MS_NOSUID | MS_NODEV,
                 f"size={scratch_bytes},nr_inodes={MAX_FILES},mode=777")
    _set_attributes(tree, MOUNT_ATTR_RDONLY, recursive=False)
    os.chdir(tree)
    system.syscall("pivot_root", PIVOT_ROOT[os.uname().machine], b".", b".")
    system.detach(".")
    os.chdir("/")


def _bind(tree: str, path: str, attributes: int) -> None:
    """Bind what lies at `path` to the same place in the tree, and follow a link by making one."""
    real = os.path.realpath(path)
    if os.path.exists(real) and not os.path.lexists(tree + real):
        if os.path.isdir(real):
            os.makedirs(tree + real)
        else:
            os.makedirs(os.path.dirname(tree + real), exist_ok=True)
            os.close(os.open(tree + real, os.O_CREAT | os.O_WRONLY, 0o644))
        system.mount(real, tree + real, None, MS_BIND | MS_REC)
        _set_attributes(tree + real, attributes, recursive=True)
    if path != real and not os.path.lexists(tree + path):
        os.makedirs(os.path.dirname(tree + path), exist_ok=True)
        os.symlink(real, tree + path)


def _set_attributes(target: str, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2): add attributes, and take none of those that are there (which a user could not)."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    system.syscall(f"mount_setattr {target}", MOUNT_SETATTR, AT_FDCWD, os.fsencode(target),
                   AT_RECURSIVE if recursive else 0, wanted, len(wanted))
