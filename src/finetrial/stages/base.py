"""What a stage is: a kind, its specification, and the stages it reads from.

A stage knows no store. It is handed its inputs and an empty folder, writes files there and returns values. Stages of
one `group` (a phase: train and its predictions) run in one process, in order, and may pass live objects on through
`StageContext.shared`; each must also be able to start from its inputs' files alone.

Three outcomes are raised by stages: `Diverged`, `StageTimeout`, and whatever library error means "out of memory"
(the runner knows those). Any other exception is FAILED, with the traceback in the stage's log.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from finetrial.fingerprint import key_of
from finetrial.records.record import Record
from finetrial.train.data_parallel import DataParallel
from finetrial.train.outcome import Diverged
from finetrial.train.outcome import OutOfTime as StageTimeout

__all__ = ["Chosen", "Diverged", "InputKeys", "Lookup", "Source", "Stage", "StageContext", "StageInput", "StageKind", "StageTimeout"]


@dataclass(frozen=True)
class Chosen:
    """An input that a `select` stage decides: its record's `values["chosen"]` names one option of `among`.

    `among` maps an option to the id of the stage that stands for it.
    """

    select: str
    among: Mapping[str, str]


Source = str | Chosen


@dataclass(frozen=True)
class Stage:
    """One node of the plan. `id` is readable and unique in the plan; `spec` is identity and JSON-like."""

    id: str
    kind: str
    version: int
    spec: Mapping[str, Any]
    inputs: Mapping[str, Source] = field(default_factory=dict)
    group: str = ""  # stages of one group run in one process; empty = alone
    label: str = ""  # for people: "full, 3e-4, seed 1"
    exclusive: bool = False  # runs while nothing else runs (profiles)
    locations: Mapping[str, str] = field(default_factory=dict)  # where things lie on this machine: never identity
    activation_checkpointing: bool = False  # of training: how it is computed, and never identity either
    ignores: tuple[str, ...] = ()  # in the specs of its inputs: what says nothing of what it reads there

    def identity(self, input_keys: Mapping[str, str]) -> dict[str, Any]:
        """What the key is the digest of. `input_keys` holds the key of every input, by input name."""
        missing = set(self.inputs) - set(input_keys)
        assert not missing, f"{self.id}: no keys for {sorted(missing)}"
        return {"kind": self.kind, "version": self.version, "spec": dict(self.spec),
                "inputs": {name: input_keys[name] for name in sorted(self.inputs)}}

    def key(self, input_keys: Mapping[str, str]) -> str:
        """The content key of this stage."""
        return key_of(self.identity(input_keys))


class InputKeys:
    """The keys of inputs as they go into the keys of their readers: without what a reader ignores. Only inputs that read from
    nothing themselves can have such parts."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, tuple[str, ...]], str] = {}

    def of(self, reader: Stage, source: Stage, key: str) -> str:
        """`key` is that of the whole of `source`."""
        if not reader.ignores or source.inputs:
            return key
        if (key, reader.ignores) not in self._parts:
            spec = {name: value for name, value in source.spec.items() if name not in reader.ignores}
            self._parts[key, reader.ignores] = replace(source, spec=spec).key({})
        return self._parts[key, reader.ignores]


@dataclass(frozen=True)
class StageInput:
    """A finished stage that another reads from."""

    record: Record
    folder: Path


Lookup = Callable[[str], StageInput | None]  # a stage's id -> what is recorded

@dataclass
class StageContext:
    """Everything a stage may use while it runs."""

    stage_id: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, StageInput]
    folder: Path  # empty; what is written here becomes the stage's files
    checkpoint: Path  # survives a kill; removed once the record is written
    device: str  # "cpu", "cuda:0", "mps"
    micro_batch: int | None  # rows at a time; None = the whole batch; halved by the runner after an OOM
    log: logging.Logger
    progress: Callable[[Mapping[str, Any]], None]  # {"fraction": 0..1, "loss": ..., ...} for the live view
    shared: dict[str, Any]  # live objects of the group, such as the model just trained
    deadline: float | None = None  # time.monotonic() at which the stage counts as TIMEOUT
    locations: Mapping[str, str] = field(default_factory=dict)  # of the Stage: paths by name, such as "base"
    allow_unsandboxed: bool = False  # generated code may be run where layers of the sandbox are missing
    activation_checkpointing: bool = False  # of the Stage
    cache: Path | None = None  # shared by processes, may be emptied at any time; what it holds changes no result
    execution: dict[str, Any] = field(default_factory=dict)  # what the stage notes for the record on how it ran
    parallel: DataParallel = field(default_factory=DataParallel)  # this process among those that compute the stage


class StageKind(ABC):
    """A kind of stage. The file name is its registered name; `version` is part of every key made of it."""

    version: ClassVar[int] = 1
    parallel: ClassVar[bool] = False  # True: several processes can compute a stage, one `run`, the others `assist`
    tolerates_failures: ClassVar[bool] = False  # True: run with the inputs that are OK, whatever became of the others

    @classmethod
    def batch_rows(cls, spec: Mapping[str, Any]) -> int | None:
        """Rows of the whole batch, which the runner halves after an out-of-memory error; None = nothing to halve."""
        return None

    @classmethod
    def unsplittable(cls, spec: Mapping[str, Any]) -> str:
        """Why processes that compute the stage together cannot each hold a part of its model; empty if they can."""
        return ""

    @classmethod
    def shared_by_stack(cls, spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What stages that `run_together` may compute in one pass have in common; None = this one is computed alone."""
        return None

    def run_together(self, contexts: Sequence[StageContext]) -> list[Mapping[str, Any] | Diverged | StageTimeout]:
        """What `run` returns for each context, or how that one ended. Any error means that each is to be run alone."""
        raise AssertionError(f"{type(self).__name__} says that its stages share a pass, and does not define it")

    def assist(self, context: StageContext) -> None:
        """The part of a process other than the first of those that compute the stage. It writes no file."""
        raise AssertionError(f"{type(self).__name__} says that processes may share it, and does not define how")

    @abstractmethod
    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Do the work; return small JSON-like values. Files go to `context.folder`."""
