"""System calls that Python 3.11 has no function for, by ctypes. A call that fails raises OSError with its name."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def checked(name: str, result: int) -> int:
    """`result`, unless it says that the call failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(name: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A raw system call; integers are passed as C longs, everything else as a pointer."""
    passed = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return checked(name, _libc.syscall(ctypes.c_long(number), *passed))


def prctl(name: str, option: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """prctl(2) with the unused arguments zero."""
    passed = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    passed += [ctypes.c_ulong(0)] * (4 - len(passed))
    return checked(name, _libc.prctl(option, *passed))


def unshare(flags: int) -> None:
    """unshare(2): move this process into new namespaces."""
    checked("unshare", _libc.unshare(flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    checked(f"mount {target}", _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]))


def detach(target: str) -> None:
    """umount2(2), lazily: the mount is out of sight at once."""
    mnt_detach = 2
    checked(f"umount {target}", _libc.umount2(os.fsencode(target), mnt_detach))


def drop_capabilities() -> None:
    """Empty capability sets. With no_new_privs set, becoming another program gives nothing back, not even to root."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    checked("capset", _libc.capset(header, (ctypes.c_uint32 * 6)()))
