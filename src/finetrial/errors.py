"""Errors made for people: the value, what was expected, and how to mend it.

Every mistake a user can make raises a `UserError`. The command line prints its text and exits with code 2, without a
traceback; the Python API lets it through unchanged. `assert` is for our own invariants only.
"""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

LIBRARY_BYTES = 1 << 30  # free on a GPU: less is too little to be sure that cuBLAS can start


class UserError(Exception):
    """A mistake the user can mend.

    `code` is stable and documented (docs/troubleshooting.md); `problem` names the value and what was expected;
    `mend` says what to do next.
    """

    exit_code = 2

    def __init__(self, problem: str, mend: str = "", *, code: str = "input") -> None:
        super().__init__(problem, mend)
        self.problem = problem
        self.mend = mend
        self.code = code

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.mend}" if self.mend else self.problem


class SpecError(UserError):
    """A study that cannot be read: every problem found, each with path, value and what was expected."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        plural = "problem" if len(self.problems) == 1 else "problems"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{source}: {len(self.problems)} {plural}\n{lines}", code="spec")


class DataError(UserError):
    """Data that cannot be used: a missing file, an unreadable row (file and line named), a split too small."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem, mend, code="data")


class ModelError(UserError):
    """A model that cannot be loaded or does not fit the request."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem, mend, code="model")


class StoreError(UserError):
    """The store cannot be read or written: permissions, a full disk, a damaged entry."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem, mend, code="store")


class AuditError(UserError):
    """The plan contains a threat to validity that was not accepted."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem, mend, code="audit")


class MissingPackage(UserError):
    """An optional package is absent; the message carries the line that installs it."""

    def __init__(self, package: str, needed_for: str, extra: str | None = None) -> None:
        target = f"'finetrial[{extra}]'" if extra else package
        super().__init__(f"{package} is needed for {needed_for} and is not installed",
                         f"install it: pip install {target}", code="missing-package")


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which Python and torch say that memory, of host or device, did not suffice."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, (RuntimeError, OSError)):
        return False
    text = str(error).lower()
    if "cublas_status_not_initialized when calling `cublascreate" in text:
        return _gpu_is_full()
    return any(words in text for words in ("out of memory", "allocate memory", "cublas_status_alloc_failed"))


def _gpu_is_full() -> bool:
    """Whether a library of matrix products finds too little memory on the GPU to start. Where a kernel has failed before it
    says the same for that, and nothing can be asked any more."""
    torch = sys.modules.get("torch")
    try:
        return torch is not None and bool(torch.cuda.is_available()) and int(torch.cuda.mem_get_info()[0]) < LIBRARY_BYTES
    except RuntimeError:
        return False


def mistake_in(path: Path, error: Exception, mend: str) -> UserError:
    """What went wrong in a user's Python file, with the last of its lines that the error came through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == path.name]
    if isinstance(error, SyntaxError) and Path(error.filename or "").name == path.name:
        lines.append(error.lineno)
    place = f"{path}, line {lines[-1]}" if lines and lines[-1] else str(path)
    return UserError(f"{place}: {type(error).__name__}: {' '.join(str(error).split())}", mend)


def nearest(name: str, valid: Iterable[str], *, limit: int = 3) -> list[str]:
    """The valid names most like `name`, best first (difflib ratio, at least 0.5)."""
    return difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.5)


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """One sentence for an unknown name: what it was, the nearest valid names, and the whole list if it is short."""
    names = sorted(valid)
    close = nearest(name, names)
    text = f"unknown {kind} {name!r}"
    if close:
        text += f"; did you mean {' or '.join(repr(c) for c in close)}?"
    if names and (not close or len(names) <= 12):
        text += f" (known: {', '.join(names)})"
    return text
