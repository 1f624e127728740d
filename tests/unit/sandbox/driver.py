"""Runs every hostile program as one user and behind some of the walls, with things in reach that they are after.

    python driver.py USER LEFT_OUT      USER: root or plain; LEFT_OUT: layers, separated by commas, or "control"

Prints JSON: the outcome of each program, and `effects`, what could be seen outside (there should be nothing). It is a
process of its own because a plain user stays one, and because orphans become its children (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hostile import ALL, Hostile

from finetrial.sandbox import Limits, Outcome, Program, probe, run, run_many
from finetrial.sandbox.inside import namespaces, system
from finetrial.sandbox.languages import find_node

NOBODY = 65534
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
LIMITS: dict[str, Any] = {"cpu_seconds": 3, "wall_seconds": 120.0, "memory_bytes": 512 << 20,
                          "output_bytes": 1 << 18}
NOTHING = ("seccomp", "landlock", "namespaces", "uid")


def become_plain() -> None:
    """From root to `nobody`, who can still reach the interpreter: folders that are closed to others are covered, in a
    mount namespace of our own, by ones that hold nothing else."""
    system.unshare(namespaces.CLONE_NEWNS)
    system.mount(None, "/", None, namespaces.MS_REC | namespaces.MS_PRIVATE)
    needed = [Path(sys.base_prefix).resolve(), Path(__file__).resolve().parent, Path(namespaces.__file__).parents[3]]
    for number, path in enumerate(needed):
        closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001]
        if closed:
            kept = Path(tempfile.mkdtemp(dir="/tmp", prefix=f"kept-{number}-"))
            system.mount(str(path), str(kept), None, namespaces.MS_BIND | namespaces.MS_REC)
            system.mount("tmpfs", str(closed[0]), "tmpfs", 0, "mode=755")
            path.mkdir(parents=True)
            system.mount(str(kept), str(path), None, namespaces.MS_BIND | namespaces.MS_REC)
            system.detach(str(kept))
            kept.rmdir()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    system.prctl("dumpable", PR_SET_DUMPABLE, 1)  # its memory is open to its user, as any plain process's is


class Setting:
    """The things in reach, and whether they were touched."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.secret = self.home / "secret"
        self.litter = folder / "litter"
        self.secret_fd = -1
        self.restore()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract = self._unix(f"\0finetrial-{os.getpid()}", socket.SOCK_STREAM)
        self.datagrams = self._unix(f"\0finetrial-d-{os.getpid()}", socket.SOCK_DGRAM)
        self.socket = self._unix(str(self.home / "socket"), socket.SOCK_STREAM)
        self.sockets = (self.tcp, self.udp, self.abstract, self.datagrams, self.socket)
        for one in self.sockets:
            one.setblocking(False)
        self.victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE,
                                       process_group=0)
        self.buffer = ctypes.create_string_buffer(b"hunter2")

    @staticmethod
    def _unix(address: str, kind: int) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind)
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    def restore(self) -> None:
        """The secret as it shall be found, with a descriptor that programs could inherit."""
        if self.secret_fd >= 0:
            os.close(self.secret_fd)
        for path in (self.secret, self.litter, Path(f"{self.secret}2")):
            path.unlink(missing_ok=True)
        self.secret.write_text("hunter2", encoding="utf-8")
        self.secret.chmod(0o600)
        self.secret_fd = os.open(self.secret, os.O_RDONLY)
        os.set_inheritable(self.secret_fd, True)
        os.environ["SECRET"] = "hunter2"
        self.status = self.secret.stat()

    def described(self) -> dict[str, Any]:
        """What the programs are told."""
        return {"tcp": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1], "victim": self.victim.pid,
                "victim_group": os.getpgid(self.victim.pid), "driver": os.getpid(), "home": str(self.home),
                "secret": str(self.secret), "litter": str(self.litter), "socket": str(self.home / "socket"),
                "abstract": self.abstract.getsockname().decode(), "datagrams": self.datagrams.getsockname().decode(),
                "address": ctypes.addressof(self.buffer)}

    def effects(self) -> list[str]:
        """What was done outside."""
        found = []
        for name, one in zip(("tcp", "udp", "abstract", "datagrams", "socket"), self.sockets, strict=True):
            with contextlib.suppress(BlockingIOError):
                found.append(f"{name}: {one.accept() if one.type == socket.SOCK_STREAM else one.recv(99)!r}")
        now = self.secret.stat() if self.secret.exists() else None
        same = now and all(getattr(now, name) == getattr(self.status, name)
                           for name in ("st_ino", "st_mode", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns"))
        if not same:
            found.append("the secret was changed")
        if sorted(os.listdir(self.home)) != ["secret", "socket"] or self.litter.exists():
            found.append("a file was left")
        if self.victim.poll() is not None:
            found.append("the victim is dead")
        elif os.sched_getaffinity(self.victim.pid) != os.sched_getaffinity(0):
            found.append("the victim is held back")
        return found

    def close(self) -> list[str]:
        """End the victim. What is a child of ours then, was an orphan."""
        self.victim.kill()
        self.victim.communicate()
        try:
            return [f"a process was left: {os.waitpid(-1, os.WNOHANG)}"]
        except ChildProcessError:
            return []


def main(user: str, left_out: str) -> dict[str, Any]:
    """Every program, then a look at what could be seen outside."""
    if user == "plain" and os.getuid() == 0:
        become_plain()
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="hostile-"))
    temporary = folder / "temporary"
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    system.prctl("subreaper", PR_SET_CHILD_SUBREAPER, 1)
    setting = Setting(folder)
    cases = [case for case in ALL if case.language == "python" or find_node()]
    effects: list[str] = []
    try:
        if left_out == "control":
            return {"outcomes": control(setting, cases)}
        outcomes = contained(setting, cases, left_out)
        effects = setting.effects()
        effects += [f"left in the temporary folder: {name}" for name in os.listdir(temporary)]
    finally:
        effects += setting.close()
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return {"uid": os.getuid(), "outcomes": outcomes, "effects": effects}


def contained(setting: Setting, cases: list[Hostile], left_out: str) -> dict[str, Any]:
    """Every program behind the walls; with some left out, those that do not wait for a limit."""
    layers = probe().without(*filter(None, left_out.split(",")))
    described = setting.described()
    usual = [case for case in cases if not case.limits]
    programs = [Program(case.source(described), case.language) for case in usual]
    outcomes = dict(zip(usual, run_many(programs, 2, limits=Limits(**LIMITS), layers=layers), strict=True))
    for case in cases:
        if case.limits and not left_out:
            outcomes[case] = run(case.source(described), case.language, limits=Limits(**{**LIMITS, **case.limits}),
                                 layers=layers)
    return {case.name: told(outcome) for case, outcome in outcomes.items()}


def control(setting: Setting, cases: list[Hostile]) -> dict[str, Any]:
    """The harmless ones without any wall but limits."""
    layers = probe().without(*NOTHING)
    outcomes = {}
    for case in cases:
        if case.control:
            outcomes[case.name] = told(run(case.source(setting.described()), case.language, limits=Limits(**LIMITS),
                                           layers=layers, allow_unsandboxed=True))
            setting.restore()
    return outcomes


def told(outcome: Outcome) -> dict[str, Any]:
    """What the test has to know."""
    return {"status": outcome.status, "exit_code": outcome.exit_code, "stdout": outcome.stdout[:400],
            "stderr": outcome.stderr[-400:], "layers": outcome.layers}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
