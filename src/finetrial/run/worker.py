"""What happens inside a worker: the stages of one job, one after the other, each under its lock in the store.

A stage's outcome is a record. Three things are not: another process has the stage (`busy`), a smaller micro-batch is to
be tried (`oom`), and a disk that is full or a store that fails (`disk`), which says nothing about the stage and stops the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from finetrial import catalog
from finetrial.errors import StoreError, UserError, is_out_of_memory
from finetrial.fingerprint import canonical
from finetrial.records.record import Outcome
from finetrial.run.claim import RECORD, Claim
from finetrial.run.disk import is_full, store_error
from finetrial.run.job import Job, Order, make_record, settles, utc_now
from finetrial.run.machine import compute_with, keep_freed_memory
from finetrial.run.messages import Message
from finetrial.run.ranks import device_of, how, num_processes, ranks
from finetrial.run.remote_store import open_store
from finetrial.run.server import preload
from finetrial.run.store import Store
from finetrial.stages.base import Diverged, StageContext, StageInput, StageKind, StageTimeout
from finetrial.train.data_parallel import DataParallel

PROGRESS_SECONDS = 0.2  # at most this often
LONGEST_MESSAGE = 600  # characters; the whole text is in the log
_LOG = logging.getLogger("finetrial.stage")

Send = Callable[[Message], None]


class Folders(Protocol):
    """Where a stage writes: a claim, as this file reads it."""

    @property
    def folder(self) -> Path: ...
    @property
    def checkpoint(self) -> Path: ...


@dataclass(frozen=True)
class _Ended:
    """How a stage ended, and what it returned."""

    outcome: Outcome
    message: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)


def run_job(job: Job, send: Send) -> None:
    """Compute the stages in order, those of a stack in one pass. A group ends with the first of its stages that has no OK
    record, or that another process has."""
    keep_freed_memory()
    store = open_store(job.store, cluster=job.cluster)
    shared: dict[str, dict[str, Any]] = {}
    for order in job.orders[:1]:
        redirect_output(job.log_file(order.stage_id), job.log_level)
    preload(job.preload)  # nothing to do in the fork of a server
    for plugin in job.plugins:
        catalog.add_file(plugin)
    together = [order for order in job.orders if order.stage_id in job.stack]
    last = {order.group: order for order in job.orders}
    try:
        ended = _ended_together(job, together, store, shared, send) if together else set()
        for order in job.orders:
            if order not in together and order.group not in ended:
                redirect_output(job.log_file(order.stage_id), job.log_level)
                if not _computed(job, order, store, shared.setdefault(order.group, {}), _teller(send, job, order)):
                    ended.add(order.group)
            if order is last[order.group] or order.group in ended:
                shared.pop(order.group, None)  # of each cell of a stack there may be a whole model on the device
    except StoreError as error:
        traceback.print_exc()
        _teller(send, job, order)({"type": "disk", "problem": error.problem, "mend": error.mend})


def _computed(job: Job, order: Order, store: Store, shared: dict[str, Any], tell: Send) -> bool:
    """True if the stage is recorded as OK now."""
    claim = store.claim(order.kind, order.key, job.environment)
    if claim is None:
        tell({"type": "busy"})
        return False
    with claim:
        found = store.lookup(order.kind, order.key, job.environment)
        if found is not None and settles(found.record, job.since, checkpointing=order.activation_checkpointing,
                                         missing=order.missing):
            tell({"type": "recorded"})
            return found.record.outcome is Outcome.OK
        rows = rows_at_once(job, order)
        tell({"type": "started", "micro_batch": rows})
        started, clock = utc_now(), time.monotonic()
        ended = _run(job, order, store, claim, shared, tell)
        if ended.outcome is Outcome.OOM and rows is not None and rows > 1:
            tell({"type": "oom", "micro_batch": rows // 2})
            return False
        store.trust(claim.write(make_record(job, order, ended.outcome, ended.message, ended.values, started,
                                            time.monotonic() - clock, ended.execution)))
        tell({"type": "finished"})
        return ended.outcome is Outcome.OK


def _ended_together(job: Job, orders: Sequence[Order], store: Store, shared: dict[str, dict[str, Any]],
                    send: Send) -> set[str]:
    """Compute stages in one pass, each with a record of its own; the groups that end with it.

    If the pass fails, nothing is recorded, and the runner has each stage computed alone.
    """
    ended = {order.group for order in orders}
    with contextlib.ExitStack() as claims:
        mine: list[tuple[Order, Claim, StageContext]] = []
        for order in orders:
            redirect_output(job.log_file(order.stage_id), job.log_level)
            _LOG.info("computed in one pass with %d others; what follows is in the log of %s", len(orders) - 1,
                      orders[0].stage_id)
            tell = _teller(send, job, order)
            claim = store.claim(order.kind, order.key, job.environment)
            if claim is None:
                tell({"type": "busy"})
                continue
            claims.enter_context(claim)
            found = store.lookup(order.kind, order.key, job.environment)
            if found is not None and settles(found.record, job.since):
                tell({"type": "recorded"})
                ended -= {order.group} if found.record.outcome is Outcome.OK else set()
                continue
            tell({"type": "started", "micro_batch": order.micro_batch or batch_rows(order)})
            own = shared.setdefault(order.group, {})
            mine.append((order, claim, stage_context(job, order, store, claim, own, tell, stages=len(orders))))
        if mine:
            redirect_output(job.log_file(orders[0].stage_id), job.log_level)
            ended -= _recorded_together(job, mine, store, send)
    return ended


def _recorded_together(job: Job, mine: Sequence[tuple[Order, Claim, StageContext]], store: Store,
                       send: Send) -> set[str]:
    """Run and record; the groups whose stage is OK."""
    started, clock = utc_now(), time.monotonic()
    try:
        _set_threads(mine[0][0].threads)
        kind = catalog.find("stage", mine[0][0].kind)()
        assert isinstance(kind, StageKind)
        results = kind.run_together([context for *_, context in mine])
        for result in results:
            canonical(result if isinstance(result, Mapping) else {})
    except StoreError:
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        if is_full(error):
            raise store_error(error, store.root) from error
        for order, *_ in mine:
            _teller(send, job, order)({"type": "alone", "reason": one_line(error), "cells": len(mine),
                                       "memory": is_out_of_memory(error)})
        return set()
    fine, share = set(), (time.monotonic() - clock) / len(mine)
    for (order, claim, context), result in zip(mine, results, strict=True):
        ended = (_Ended(Outcome.OK, values=result, execution=context.execution) if isinstance(result, Mapping)
                 else _failed(job, result))
        store.trust(claim.write(make_record(job, order, ended.outcome, ended.message, ended.values, started, share,
                                            context.execution)))
        _teller(send, job, order)({"type": "finished"})
        fine |= {order.group} if ended.outcome is Outcome.OK else set()
    return fine


def batch_rows(order: Order) -> int | None:
    """Rows of a whole batch, if this kind of stage has batches that may be cut: `batch_rows(spec)` of its class."""
    kind: type[StageKind] = catalog.find("stage", order.kind)
    return kind.batch_rows(order.spec)


def rows_at_once(job: Job, order: Order) -> int | None:
    """Rows of its micro-batches, of which every process that computes the stage has some."""
    rows = batch_rows(order)
    return None if rows is None else DataParallel(count=num_processes(job, order)).micro_batch(order.micro_batch, rows) or rows


def _run(job: Job, order: Order, store: Store, claim: Claim, shared: dict[str, Any], tell: Send) -> _Ended:
    """Run the stage and sort what comes out. Raises StoreError if a disk is full, or an input cannot be brought."""
    began = time.monotonic()
    execution = how(job.device, DataParallel(count=num_processes(job, order), sharded=job.shard))
    try:
        _set_threads(order.threads)
        kind = catalog.find("stage", order.kind)()
        assert isinstance(kind, StageKind)
        with ranks(job, order, claim.folder, claim.checkpoint) as parallel:
            context = stage_context(job, order, store, claim, shared, tell, began=began, parallel=parallel)
            values = dict(kind.run(context))
        canonical(values)
        canonical(context.execution)
        if (claim.folder / RECORD).exists():
            raise ValueError(f"a stage must not write a file called {RECORD}")
        return _Ended(Outcome.OK, values=values, execution=context.execution)
    except (Diverged, StageTimeout) as error:
        return replace(_failed(job, error), execution=execution)
    except StoreError:
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        if is_full(error):
            raise store_error(error, store.root) from error
        return _Ended(Outcome.OOM if is_out_of_memory(error) else Outcome.FAILED, one_line(error), execution=execution)


def _failed(job: Job, error: Diverged | StageTimeout) -> _Ended:
    if isinstance(error, Diverged):
        return _Ended(Outcome.DIVERGED, one_line(error))
    limit = f" (limit {job.timeout_seconds:g} s)" if job.timeout_seconds is not None else ""
    return _Ended(Outcome.TIMEOUT, f"{one_line(error)}{limit}")


def stage_context(job: Job, order: Order, store: Store, place: Folders, shared: dict[str, Any], tell: Send, *,
                  stages: int = 1, began: float | None = None,
                  parallel: DataParallel = DataParallel()) -> StageContext:  # noqa: B008 (frozen)
    """What the stage is handed, which `began` (monotonic) now or before; `stages` computed in one pass have the time of all."""
    inputs: dict[str, StageInput] = {}
    for name, (kind, key) in order.inputs.items():
        found = store.lookup(kind, key, job.environment)
        if found is None:
            raise FileNotFoundError(f"the input {name!r} ({kind}/{key}) is gone from the store {job.store}, or damaged; "
                                    "the next run computes it again")
        inputs[name] = found
    began = time.monotonic() if began is None else began
    deadline = None if job.timeout_seconds is None else began + job.timeout_seconds * stages
    return StageContext(
        stage_id=order.stage_id, spec=order.spec, inputs=inputs, folder=place.folder, checkpoint=place.checkpoint,
        device=device_of(job.device, parallel), parallel=parallel, execution=how(job.device, parallel),
        micro_batch=order.micro_batch, log=_LOG, progress=_Progress(tell), shared=shared,
        activation_checkpointing=order.activation_checkpointing, deadline=deadline, locations=order.locations,
        allow_unsandboxed=job.allow_unsandboxed,
        cache=store.cache(job.environment))


class _Progress:
    """Passes on `fraction` and `loss`, not too often."""

    def __init__(self, tell: Send) -> None:
        self._tell, self._last = tell, -PROGRESS_SECONDS

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS:
            self._last = now
            known = {name: float(metrics[name]) for name in ("fraction", "loss") if metrics.get(name) is not None}
            self._tell({"type": "progress", **known})


def one_line(error: BaseException) -> str:
    """An error as one line for people; ours without the name of their class."""
    text = f"{error.problem}; {error.mend}" if isinstance(error, UserError) and error.mend else str(error)
    line = " ".join(text.split())[:LONGEST_MESSAGE]
    return line if isinstance(error, (UserError, Diverged, StageTimeout)) else f"{type(error).__name__}: {line}"


def redirect_output(path: Path, level: str) -> None:
    """Everything this process prints or logs goes to the end of `path` from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(stream=sys.stderr, level=level.upper(), force=True,
                        format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)


def _set_threads(threads: int) -> None:
    """For the stages that compute with torch; the others never import it."""
    if "torch" in sys.modules:
        compute_with(threads)


def _teller(send: Send, job: Job, order: Order) -> Send:
    return lambda message: send({"job": job.number, "stage": order.stage_id, **message})
