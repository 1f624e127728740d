"""What a program may use, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from finetrial.errors import UserError

MEGABYTE = 1 << 20


class Status(StrEnum):
    """How a program ended. `PASSED` is exit code 0; everything else counts against the program."""

    PASSED = "passed"
    FAILED = "failed"  # another exit code, or a signal
    TIMEOUT = "timeout"  # CPU time or wall time
    MEMORY = "memory"
    OUTPUT = "output"  # wrote more than it may to stdout or stderr
    FILES = "files"  # a file, or all files together, too large


@dataclass(frozen=True)
class Limits:
    """What one program may use. CPU time does not depend on what else the machine does; wall time ends sleepers.

    Raises UserError for a limit that is not positive.
    """

    cpu_seconds: int = 15
    wall_seconds: float = 60.0
    memory_bytes: int = 1024 * MEGABYTE
    output_bytes: int = MEGABYTE  # of stdout, and as much of stderr
    file_bytes: int = 16 * MEGABYTE  # one file
    folder_bytes: int = 64 * MEGABYTE  # all files together
    threads: int = 64
    open_files: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_right = isinstance(value, int | float) if field.name == "wall_seconds" else type(value) is int
            if not is_right or not value > 0:
                raise UserError(f"sandbox limit {field.name}: {value!r}, expected a positive number"
                                f"{'' if field.name == 'wall_seconds' else ' without fraction'}")


@dataclass(frozen=True)
class Outcome:
    """What became of a program. Times are seconds; a stream holds at most `Limits.output_bytes`."""

    status: Status
    exit_code: int | None  # minus a signal's number; None if finetrial stopped it at a limit
    stdout: str
    stderr: str
    wall_seconds: float  # from the program's start; setting the sandbox up is not in it
    cpu_seconds: float
    layers: tuple[str, ...]  # what it was confined by

    @property
    def passed(self) -> bool:
        """Exit code 0, within all limits."""
        return self.status is Status.PASSED
