"""Landlock (Linux 5.13 and later): this process, for good, reaches no files but those listed.

Landlock knows no metadata: names and sizes of files elsewhere can be asked for (`stat`), and changing modes, owners and
times is for the seccomp filter to refuse. Source: Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from . import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
ASK_VERSION, PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
DEVICE = READ_FILE | WRITE_FILE
WRITE = READ_FILE | WRITE_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE  # no symbolic links
FOR_FILES = EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE

NUM_FILE_RIGHTS = (13, 14, 15, 15, 16)  # known to ABI 1, 2, 3, 4, 5 and later
TCP = 0b11  # bind, connect: ABI 4
SCOPES = 0b11  # abstract unix sockets, signals: ABI 6


def confine(read: Iterable[str], devices: Iterable[str], write: Iterable[str]) -> None:
    """Refuse all files but those below `read` (read, run), `devices` (read, write), `write`; absent ones are skipped."""
    abi = system.syscall("landlock_create_ruleset", CREATE_RULESET, None, 0, ASK_VERSION)
    handled = (1 << NUM_FILE_RIGHTS[min(abi, len(NUM_FILE_RIGHTS)) - 1]) - 1
    attributes = struct.pack("QQQ", handled, TCP, SCOPES)[:8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = system.syscall("landlock_create_ruleset", CREATE_RULESET, attributes, len(attributes), 0)
    for paths, rights in ((read, READ), (devices, DEVICE), (write, WRITE)):
        for path in paths:
            _allow(ruleset, path, rights & handled)
    system.prctl("no_new_privs", system.PR_SET_NO_NEW_PRIVS, 1)
    system.syscall("landlock_restrict_self", RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        rights &= FOR_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened))
    system.syscall(f"landlock_add_rule {path}", ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    os.close(opened)
