"""Give up every right that the program shall not have, in this order, and become the program.

The request comes as one argument (hexadecimal marshal, because importing json costs as much as starting Python). Each
layer it names must succeed: otherwise nothing is run, and the reason goes to `report_fd`, which gets the word `ready`
when all are on and closes when the program takes over. Without a command the layers are only tried
(`finetrial.sandbox.probe`).
"""

from __future__ import annotations

import marshal
import os
import resource
import sys

from . import landlock, namespaces, seccomp, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

NOT_LAUNCHED = 126
FIRST_UID, NOBODY = 2_000_000_000, 65534


def main() -> NoReturn:
    """Never returns: this process becomes the program, or exits."""
    request: dict[str, Any] = marshal.loads(bytes.fromhex(sys.argv[1]))
    os.set_inheritable(request["report_fd"], False)
    try:
        _confine(request)
        os.write(request["report_fd"], request["ready"])
        if request["command"]:
            os.execve(request["command"][0], request["command"], request["environment"])
    except Exception as error:  # noqa: BLE001 (whatever it is, the program must not run, and the caller must hear why)
        os.write(request["report_fd"], f"{type(error).__name__}: {error}".encode())
        os._exit(NOT_LAUNCHED)
    os._exit(0)


def _confine(request: dict[str, Any]) -> None:
    layers, scratch = request["layers"], request["scratch"]
    tasks_before = 0
    if "namespaces" in layers:
        namespaces.enter()
        namespaces.own_root(request["tree"], request["read"], request["devices"], scratch, request["scratch_bytes"])
    elif os.getuid() != 0 and "NPROC" in request["limits"]:
        tasks_before = _tasks_of(os.getuid())
    if "uid" in layers and os.getuid() == 0:
        _become_nobody(scratch, may_chown="namespaces" not in layers)
    if sys.platform == "linux":
        sigkill = 9
        system.prctl("pdeathsig", system.PR_SET_PDEATHSIG, sigkill)  # (changing the uid would clear it)
        if os.getppid() != request["parent"]:
            raise RuntimeError("the process that asked for this is gone")
    os.chdir(scratch)
    for name, value in request["limits"].items():
        _limit(name, value + tasks_before if name == "NPROC" else value)
    if "landlock" in layers:
        landlock.confine(request["read"], request["devices"], [scratch])
    if "seccomp" in layers:
        system.prctl("no_new_privs", system.PR_SET_NO_NEW_PRIVS, 1)
        system.drop_capabilities()
        seccomp.confine()


def _become_nobody(scratch: str, *, may_chown: bool) -> None:
    """From root to a user that nobody is: one of its own where numbers allow, so that sandboxes are strangers."""
    os.setgroups([])
    for uid in (FIRST_UID + os.getpid(), NOBODY):
        try:
            if may_chown:
                os.chown(scratch, uid, uid)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            return
        except OSError:
            if uid == NOBODY:
                raise


def _limit(name: str, value: int) -> None:
    """Set a resource limit, never above the one that holds already. CPU time warns a second before it kills."""
    which = getattr(resource, f"RLIMIT_{name}")
    _, hard = resource.getrlimit(which)
    last = value + 1 if name == "CPU" else value
    if hard != resource.RLIM_INFINITY:
        value, last = min(value, hard), min(last, hard)
    resource.setrlimit(which, (value, last))


def _tasks_of(uid: int) -> int:
    """Threads that run under `uid`: outside a user namespace the limit counts them too."""
    total = 0
    for entry in os.scandir("/proc") if os.path.isdir("/proc/1") else ():
        if entry.name.isdigit():
            try:
                total += os.stat(f"/proc/{entry.name}/task").st_nlink - 2 if entry.stat().st_uid == uid else 0
            except FileNotFoundError:  # ended meanwhile
                continue
    return total
