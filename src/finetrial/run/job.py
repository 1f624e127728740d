"""What a runner asks of a worker: the stages of one group that still need running, in order.

It crosses a process boundary as JSON, so that a stage sees exactly what its key covers.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from finetrial.records.record import Environment, Outcome, Record
from finetrial.run.machine import cpu_model

CHECKPOINTING = "activation_checkpointing"  # in a record's `execution`
MISSING = "missing"  # there too: the inputs that it was computed without


class Order(BaseModel):
    """One stage to compute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage_id: str
    kind: str
    key: str
    identity: Mapping[str, Any]
    spec: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str]]  # by input name: (kind, key) of an entry in the store
    locations: Mapping[str, str]
    micro_batch: int | None = None  # None = the whole batch
    activation_checkpointing: bool = False
    attempts: tuple[str, ...] = ()  # what became of earlier ones in this run
    group: str = ""  # orders of one group pass live objects on, and end with the first that is not OK
    provisional: bool = False  # the result must not be reused: an input that is missing may yet come

    @property
    def threads(self) -> int:
        """Of torch: they decide the last bits of results, and are part of the spec."""
        return int(self.spec.get("threads", 1))

    @property
    def missing(self) -> list[str]:
        """The names of the inputs that it is computed without, for now or for good."""
        return sorted(set(self.identity.get("inputs", ())) - set(self.inputs))


class Job(BaseModel):
    """Stages that one fresh process computes, and the circumstances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    orders: tuple[Order, ...]
    exclusive: bool = False  # nothing else may run beside it
    stack: tuple[str, ...] = ()  # ids of the first stages, if they are computed in one pass
    processes: int = 1  # that compute a stage together where its kind can be shared
    shard: bool = False  # each of them then holds a part of the model
    store: str  # a folder or a URL
    cluster: bool = False  # the store is leased to a driver that decides who computes what: no kernel locks
    logs: Path
    environment: Environment
    device: str
    since: str  # when the run began; UTC, ISO 8601
    timeout_seconds: float | None = None  # for one stage
    allow_unsandboxed: bool = False  # generated code may be run where layers of the sandbox are missing
    plugins: tuple[Path, ...] = ()
    preload: tuple[str, ...] = ()
    log_level: str = "info"

    def log_file(self, stage_id: str) -> Path:
        """The log of one stage."""
        return self.logs / f"{stage_id.replace('/', '__')}.log"


def is_final(record: Record, *, checkpointing: bool = False) -> bool:
    """True if running the stage again would give the same: FAILED and TIMEOUT are tried again by the next run.

    So is what a stage made of inputs that may yet come, and an OOM that nobody can vouch for: both are `provisional`;
    and an OOM without activation checkpointing where this is switched on now.
    """
    if record.execution.get("provisional"):
        return False
    if record.outcome is Outcome.OOM and checkpointing and not record.execution.get(CHECKPOINTING):
        return False
    return record.outcome in (Outcome.OK, Outcome.OOM, Outcome.DIVERGED)


def settles(record: Record, since: str, *, checkpointing: bool = False, missing: Sequence[str] = ()) -> bool:
    """True if a run that began at `since` need not compute the stage: final, or tried by another runner meanwhile, and without
    the same inputs that are missing now."""
    if list(record.execution.get(MISSING, ())) != list(missing):
        return False
    return is_final(record, checkpointing=checkpointing) or record.started >= since


def make_record(job: Job, order: Order, outcome: Outcome, message: str, values: Mapping[str, Any], started: str,
                seconds: float, noted: Mapping[str, Any] | None = None) -> Record:
    """The record of one attempt, with what the stage `noted` on how it ran; the store adds the files' digests."""
    execution = {"threads": order.threads, "micro_batch": order.micro_batch, "host": platform.node(),
                 "cpu": cpu_model(), "attempts": list(order.attempts), **({"provisional": True} if order.provisional else {}),
                 **({CHECKPOINTING: True} if order.activation_checkpointing else {}),
                 **({MISSING: order.missing} if order.missing else {}),
                 **(noted or {})}
    return Record(key=order.key, stage_id=order.stage_id, kind=order.kind, identity=order.identity,
                  environment=job.environment, outcome=outcome, message=message, values=values, started=started,
                  seconds=seconds, execution=execution)


def utc_now() -> str:
    """Now, UTC, ISO 8601 to the microsecond: such texts sort by time."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
