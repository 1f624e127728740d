"""Starts the launcher (`inside/launch.py`) in a folder made for one program, and removes the folder afterwards."""

from __future__ import annotations

import contextlib
import marshal
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.sandbox.languages import DEVICES, SHARED_LIBRARIES, python_runtime

LAUNCH_SECONDS = 60.0
READY = b"ready\n"  # what the launcher reports last: one that dies reports nothing
LAUNCHER = "import sys; sys.path.insert(0, {!r}); from inside.launch import main; main()"


class NotLaunched(Exception):
    """A layer could not be put on; nothing was run. The text says which."""


@dataclass(frozen=True)
class Folder:
    """`program` is a file to write; `scratch` the program's own folder; `tree` where its root is mounted."""

    path: Path
    program: Path
    scratch: Path
    tree: Path


@contextlib.contextmanager
def temporary_folder(file_name: str) -> Iterator[Folder]:
    """A folder for one program. Others may pass through it, not list it: the program can be somebody else's process."""
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="finetrial-sandbox-")))
    folder = Folder(path, path / file_name, path / "scratch", path / "tree")
    try:
        path.chmod(0o711)
        folder.scratch.mkdir(mode=0o700)
        folder.tree.mkdir(mode=0o700)
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Folder) -> None:
    """Whatever a program left: names too long for a path, folders without permission. Links are not followed."""
    folder.program.unlink(missing_ok=True)
    folder.tree.rmdir()
    try:
        folder.scratch.rmdir()
    except OSError:  # something is in it; these two tools cope with any depth
        subprocess.run(["chmod", "-R", "u+rwx", "--", folder.scratch], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", folder.scratch], check=True)
    folder.path.rmdir()


def start(folder: Folder, *, layers: Sequence[str], command: Sequence[str] = (), read: Sequence[str] = (),
          environment: Mapping[str, str] | None = None, limits: Mapping[str, int] | None = None,
          scratch_bytes: int = 1 << 20, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Put `layers` on and become `command` (nothing: only try them). Returns once the program runs.

    Raises NotLaunched if a layer fails.
    """
    report, write_end = os.pipe()
    own = {"HOME": str(folder.scratch), "TMPDIR": str(folder.scratch)}
    request: dict[str, Any] = {
        "layers": list(layers), "command": list(command), "environment": {**own, **(environment or {})},
        "read": [*SHARED_LIBRARIES, *read], "devices": list(DEVICES), "limits": dict(limits or {}),
        "scratch": str(folder.scratch), "scratch_bytes": scratch_bytes, "tree": str(folder.tree),
        "parent": os.getpid(), "report_fd": write_end, "ready": READY}
    here = os.path.dirname(os.path.abspath(__file__))
    launcher = [python_runtime().executable, "-I", "-S", "-c", LAUNCHER.format(here), marshal.dumps(request).hex()]
    try:
        process = subprocess.Popen(launcher, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={},
                                   pass_fds=(write_end,), start_new_session=True, bufsize=0)
    except BaseException:
        os.close(report)
        raise
    finally:
        os.close(write_end)
    try:
        said = _read_report(report)
    except BaseException:
        _end(process)
        raise
    finally:
        os.close(report)
    if said != READY:
        last_words = _end(process)
        raise NotLaunched(said.removeprefix(READY).decode(errors="replace") or
                          f"the launcher ended without a report ({last_words})")
    return process


def _end(process: subprocess.Popen[bytes]) -> str:
    """End a launcher. The last line that it wrote to stderr, or its exit code."""
    kill(process)
    _, stderr = process.communicate()
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and all of its process group; none left is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _read_report(report: int) -> bytes:
    """What the launcher has to say until the program takes its place, or it is gone."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(report, selectors.EVENT_READ)
        while selector.select(LAUNCH_SECONDS):
            read = os.read(report, 4096)
            if not read:
                return said
            said += read
    return f"the launcher did not answer within {LAUNCH_SECONDS:.0f} s".encode()
