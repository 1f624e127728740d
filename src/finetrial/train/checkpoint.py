"""Checkpoints of one run of training: complete or not there.

The state goes to a file of its own name; `checkpoint.json`, replaced last and in one rename, names it with its digest.
Whatever is interrupted before that leaves the previous checkpoint; a file that does not match its digest is not used.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetrial.fingerprint import file_digest

POINTER = "checkpoint.json"
WAIT = 20.0  # times what the last save took: at most a twentieth of a run is spent on them


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a run saves its state: after `every_seconds`, or later where a save takes long; 0 = after every
    step."""

    folder: Path
    every_seconds: float = 60.0


class Pace:
    """When a run saves its state next, by this process's clock."""

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = self._wait_seconds = every_seconds
        self._since = time.monotonic()

    def is_due(self) -> bool:
        """Whether enough time has passed since the run began, or since its last save."""
        return time.monotonic() - self._since > self._wait_seconds

    @contextlib.contextmanager
    def saving(self) -> Generator[None]:
        """Around a save."""
        started = time.monotonic()
        yield
        self._since = time.monotonic()
        if self._every_seconds:
            self._wait_seconds = max(self._every_seconds, WAIT * (self._since - started))


def save(folder: Path, step: int, run: str, state: dict[str, Any]) -> None:
    """Write the state after `step` steps of the run identified by `run`, then remove older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    pointer = folder / f"{POINTER}.part"
    with pointer.open("w") as file:
        json.dump({"file": path.name, "sha256": file_digest(path), "run": run, "step": step}, file)
        file.flush()
        os.fsync(file.fileno())
    pointer.replace(folder / POINTER)
    for old in folder.glob("step-*.pt"):
        if old != path:
            old.unlink()


def load(folder: Path, run: str) -> dict[str, Any] | None:
    """The last complete state of `run`, on the host; None if there is none, it is damaged, or it belongs to another run."""
    pointer = folder / POINTER
    if not pointer.is_file():
        return None
    entry = json.loads(pointer.read_text())
    path = folder / entry["file"]
    if entry["run"] != run or not path.is_file() or file_digest(path) != entry["sha256"]:
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
