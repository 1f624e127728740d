"""Runs one program, or many side by side."""

from __future__ import annotations

import functools
import os
import subprocess
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finetrial.sandbox.languages import PROVEN, Language, Runtime, runtime
from finetrial.sandbox.layers import Layers, SandboxError, probe
from finetrial.sandbox.outcome import Limits, Outcome
from finetrial.sandbox.start import Folder, NotLaunched, start, temporary_folder
from finetrial.sandbox.supervise import Watch

DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Program:
    """Source text and what it reads from stdin."""

    code: str
    language: Language
    stdin: str = ""


def run(code: str, language: Language, *, limits: Limits = DEFAULT_LIMITS, stdin: str = "",
        layers: Layers | None = None, allow_unsandboxed: bool = False) -> Outcome:
    """Run `code` in an empty folder behind every layer of this machine (or behind `layers`) and say what became of it.

    Whatever the program does is an outcome. Raises SandboxError if a needed layer is missing, unless
    `allow_unsandboxed`; MissingPackage without Node; UserError for a language that is not known.
    """
    return _run(Program(code, language, stdin), limits, _ready(language, layers, allow_unsandboxed))


def run_many(programs: Iterable[Program], processes: int = 1, *, limits: Limits = DEFAULT_LIMITS,
             layers: Layers | None = None, allow_unsandboxed: bool = False) -> list[Outcome]:
    """`run` for each program, at most `processes` at once; outcomes are in the order of the programs."""
    programs = list(programs)
    ready = {language: _ready(language, layers, allow_unsandboxed)
             for language in {program.language for program in programs}}
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, processes)) as pool:
        try:
            return list(pool.map(lambda program: _run(program, limits, ready[program.language], stop), programs))
        except BaseException:  # Ctrl-C too: the programs that run are stopped, the others are not started
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _ready(language: Language, layers: Layers | None, allow_unsandboxed: bool) -> Layers:
    """The layers to use; sure that they suffice, and that the interpreter starts behind them."""
    layers = probe() if layers is None else layers
    if not allow_unsandboxed:
        layers.require()
    _prove(language, layers)
    return layers


@functools.cache
def _prove(language: Language, layers: Layers) -> None:
    """An interpreter that cannot start would make every program look wrong."""
    outcome = _run(Program(runtime(language).proof, language), DEFAULT_LIMITS, layers)
    if not outcome.passed or outcome.stdout.strip() != PROVEN:
        said = outcome.stderr.strip().splitlines()[-1:] or [f"exit code {outcome.exit_code}"]
        raise SandboxError(f"{runtime(language).executable} does not start in the sandbox ({outcome.status}: "
                           f"{said[0]})", "install it below /usr, with its libraries in /usr/lib; see: finetrial doctor")


def _run(program: Program, limits: Limits, layers: Layers, stop: threading.Event | None = None) -> Outcome:
    interpreter = runtime(program.language)
    with temporary_folder(interpreter.file_name) as folder:
        folder.program.write_bytes(program.code.encode("utf-8", "surrogatepass"))
        folder.program.chmod(0o644)  # whatever the umask: it is read by the user that the layer `uid` becomes
        applied = _applied(layers, interpreter, folder)
        stdin = _open_stdin(program.stdin, folder)
        try:
            process = start(folder, layers=applied, command=interpreter.command(folder.program, limits),
                            read=(*interpreter.read, str(folder.program)), environment=interpreter.environment,
                            limits=_resource_limits(limits, interpreter), scratch_bytes=limits.folder_bytes,
                            stdin=stdin)
        except NotLaunched as error:
            raise SandboxError(f"the sandbox cannot be set up: {error}", "see: finetrial doctor") from error
        finally:
            if stdin != subprocess.DEVNULL:
                os.close(stdin)
        return Watch(process, program.language, limits, applied, folder.scratch, stop).outcome()


def _applied(layers: Layers, interpreter: Runtime, folder: Folder) -> tuple[str, ...]:
    """The layers for this program. Root gives its user up if another one can reach the interpreter."""
    names = layers.names
    if os.geteuid() == 0 and "uid" in names and "namespaces" not in names:
        needed = (*interpreter.read, str(folder.path))
        if not all(_open_to_all(Path(path)) for path in needed if os.path.exists(path)):
            return tuple(name for name in names if name != "uid")
    return names


def _open_to_all(path: Path) -> bool:
    """Whether any user may come to `path`."""
    may_pass = 0o001
    return all(folder.stat().st_mode & may_pass for folder in path.resolve().parents)


def _open_stdin(text: str, folder: Folder) -> int:
    """A descriptor to read `text` from. The file has no name any more when the program starts."""
    if not text:
        return subprocess.DEVNULL
    file = folder.path / "stdin"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    descriptor = os.open(file, os.O_RDONLY)
    file.unlink()
    return descriptor


def _resource_limits(limits: Limits, interpreter: Runtime) -> dict[str, int]:
    """Arguments of setrlimit(2), by the names of the module `resource`."""
    return {"CPU": limits.cpu_seconds, "FSIZE": limits.file_bytes, "NOFILE": limits.open_files, "NPROC": limits.threads,
            "CORE": 0, "MEMLOCK": 0, **interpreter.memory_limits(limits.memory_bytes)}
