"""Which walls this machine can put around a program, and which of them are enough.

Needed: limits; no network and no other processes (seccomp); no files but its own (Landlock, or namespaces with a root
of their own). What is there beyond that is used too: a second wall behind the first.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from finetrial.errors import MissingPackage, UserError
from finetrial.sandbox.languages import python_runtime, runtime
from finetrial.sandbox.start import NotLaunched, start, temporary_folder

PURPOSES = {  # what must hold: any of these layers sees to it
    "limits on time, memory and files": ("limits",),
    "no network and no other processes": ("seccomp",),
    "no files but its own": ("landlock", "namespaces"),
}
GIVES = {
    "limits": "CPU time, wall time, memory, threads, files, output",
    "seccomp": "no sockets, no other processes, no changes of modes and owners, no capabilities",
    "landlock": "reads the interpreter's files, writes its own folder, nothing else",
    "namespaces": "a root, a network and shared memory of its own, with nothing in them",
    "uid": "a user who owns nothing",
}
MENDS = {
    "limits": "finetrial runs programs on Linux and, unsandboxed, on other Unix systems",
    "seccomp": "needs Linux on x86_64 or aarch64, with seccomp filters in the kernel; in a container, a newer runtime",
    "landlock": "needs Linux 5.13 with Landlock switched on (boot option lsm=landlock,...; what is, lies in "
                "/sys/kernel/security/lsm); in a container, a runtime whose profile lets landlock_restrict_self through",
    "namespaces": "not needed where Landlock is there; allow user namespaces (sysctl user.max_user_namespaces; on "
                  "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), Linux 5.12; most containers forbid them",
    "uid": "root without the right to change its user, or to end another's processes: run as a plain user",
}
CAP_KILL = 5  # include/uapi/linux/capability.h of Linux


class SandboxError(UserError):
    """Generated code is not run here: a wall is missing, or the interpreter does not start within them."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem, mend, code="sandbox")


@dataclass(frozen=True)
class Layer:
    """One wall. `problem` says why it is absent; `gives` what it is for; `mend` how to get it."""

    name: str
    problem: str = ""

    @property
    def present(self) -> bool:
        """Whether this machine has it."""
        return not self.problem

    @property
    def gives(self) -> str:
        """What it does for us."""
        return GIVES[self.name]

    @property
    def mend(self) -> str:
        """How to get it; empty if it is there."""
        return MENDS[self.name] if self.problem else ""


@dataclass(frozen=True)
class Layers:
    """The walls of this machine, those that are absent too."""

    layers: tuple[Layer, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are present."""
        return tuple(layer.name for layer in self.layers if layer.present)

    @property
    def missing(self) -> tuple[str, ...]:
        """What must hold and does not; empty means that untrusted code may be run."""
        return tuple(purpose for purpose, any_of in PURPOSES.items() if not set(any_of) & set(self.names))

    def without(self, *names: str) -> Layers:
        """The same machine with some walls left out on purpose."""
        return Layers(tuple(Layer(layer.name, "left out") if layer.name in names else layer for layer in self.layers))

    def require(self) -> None:
        """Raises SandboxError, naming what is missing, unless untrusted code may be run."""
        if self.missing:
            absent = [layer for layer in self.layers
                      if not layer.present and any(layer.name in PURPOSES[purpose] for purpose in self.missing)]
            raise SandboxError(
                f"generated code is not run, this machine cannot give: {'; '.join(self.missing)} ("
                + "; ".join(f"{layer.name}: {layer.problem}" for layer in absent) + ")",
                "; or ".join(layer.mend for layer in absent) + "; or, on a machine where nothing can be lost: "
                "--allow-unsandboxed")


@functools.cache
def probe() -> Layers:
    """Try every layer, once in a process. Takes about 0.1 s."""
    layers = [Layer("limits", "" if os.name == "posix" else "not a Unix system"),
              *(Layer(name, _try(name)) for name in ("seccomp", "landlock", "namespaces"))]
    if os.geteuid() != 0:  # a plain user is one already
        return Layers((*layers, Layer("uid")))
    own_root = ["namespaces"] if layers[-1].present else []  # another user may not reach the temporary folder itself
    return Layers((*layers, Layer("uid", _cannot_end_others() or _try(*own_root, "uid"))))


def _cannot_end_others() -> str:
    """Why root could not end a program that has become another user; empty if it can."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return "" if effective is None or int(effective[1], 16) >> CAP_KILL & 1 else "root without CAP_KILL could not end it"


def _try(*names: str) -> str:
    """Why these layers cannot be put on; empty if they can."""
    if sys.platform != "linux":
        return "Linux only"
    with temporary_folder("program") as folder:
        try:
            process = start(folder, layers=names, read=python_runtime().read)
        except NotLaunched as error:
            return str(error)
        process.communicate()
        return f"the launcher ended with exit code {process.returncode}" if process.returncode else ""


def doctor_lines() -> list[tuple[str, bool, str, str]]:
    """(name, well, what was found, how to mend it) of the sandbox, its layers, and the interpreters it runs."""
    layers = probe()
    missing = layers.missing
    lines = [("sandbox", not missing, f"generated code is refused, there is no: {'; '.join(missing)}" if missing else
              f"generated code runs behind {', '.join(layers.names)}", "see the lines below" if missing else "")]
    lines += [(f"sandbox: {layer.name}", layer.present, layer.problem or layer.gives, layer.mend)
              for layer in layers.layers]
    try:
        lines.append(("sandbox: node", True, f"JavaScript is run by {runtime('javascript').executable}", ""))
    except MissingPackage as error:
        lines.append(("sandbox: node", False, "no Node: generated JavaScript cannot be run", error.mend))
    return lines
