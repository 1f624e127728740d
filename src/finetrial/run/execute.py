"""Carry out the stages of a plan: look up what is recorded, hand the rest to workers, follow what they say.

A stage counts once its record is in the store: this loop may die at any moment, or run twice at once on one store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from finetrial import catalog
from finetrial.errors import StoreError
from finetrial.records.record import Environment
from finetrial.run.crash import Again, Crash, Verdict, judge
from finetrial.run.disk import explained
from finetrial.run.events import (
    EntryDamaged,
    Listener,
    PlannedStage,
    RunStarted,
    StackStarted,
    StageFinished,
    StageNotRun,
    StageProgress,
    StageRetried,
    StageReused,
    StageStarted,
)
from finetrial.run.executor import Executor, OpenExecutor
from finetrial.run.job import Job, Order, make_record, settles, utc_now
from finetrial.run.local import default_preload, on_this_machine
from finetrial.run.messages import Message
from finetrial.run.running import Running
from finetrial.run.stacks import Automatic, Stacks
from finetrial.run.store import Store
from finetrial.run.walk import ExecutionResult, StageState, State, Walk
from finetrial.run.watch import Watch
from finetrial.stages.base import Stage, StageInput

__all__ = ["ExecutionResult", "Listener", "execute"]

POLL_SECONDS = 0.2  # while another process computes what we wait for
TICK_SECONDS = 1.0
RESUME = "stopped: {done} of {total} stages are recorded; run the same command again to go on from there"


def execute(stages: Sequence[Stage], store: Store, run_folder: Path, *, device: str, jobs: int | None,
            environment: Environment, timeout_seconds: float | None = None, listener: Listener | None = None,
            log_level: str = "info", plugins: Sequence[str | Path] = (), preload: Sequence[str] | None = None,
            allow_unsandboxed: bool = False, stack: int | Automatic = 1, processes: int = 1, shard: bool = False,
            since: str | None = None, executor: OpenExecutor = on_this_machine) -> ExecutionResult:
    """Run the stages that are not recorded, up to `jobs` at a time (None = as many as there are places), earlier ones
    first; up to `stack` in one pass (`stacks.automatic`: as many as pay), or each training stage by `processes`, which
    `shard` its model.

    `timeout_seconds` is for one stage. What was tried since `since` (`utc_now`; None = this call) is not tried again.
    `preload` names the modules that every worker finds imported; None = the libraries and the package's own. Writes
    `status.json` and `logs/` below `run_folder`. Raises StoreError if store or folder cannot be written, UserError if
    workers cannot be started, KeyboardInterrupt; what is recorded by then is kept, and no worker outlives the call.
    """
    files = tuple(Path(plugin).resolve() for plugin in plugins)
    for file in files:
        catalog.add_file(file)
    circumstances = Job(number=0, orders=(), store=store.location, cluster=store.cluster, logs=(run_folder / "logs").resolve(),
                        environment=environment, device=device, since=since or utc_now(), timeout_seconds=timeout_seconds,
                        plugins=files, preload=default_preload() if preload is None else tuple(preload),
                        log_level=log_level, allow_unsandboxed=allow_unsandboxed, processes=processes, shard=shard)
    return _Execution(Walk(stages, _tolerates_failures), store, run_folder, circumstances, jobs, listener,
                      Stacks(stack), executor).go()


class _Execution:
    def __init__(self, walk: Walk, store: Store, run_folder: Path, circumstances: Job, jobs: int | None,
                 listener: Listener | None, stacks: Stacks, executor: OpenExecutor) -> None:
        self.walk, self.store, self.run_folder = walk, store, run_folder
        self.circumstances, self.jobs, self.stacks, self.executor = circumstances, jobs, stacks, executor
        self.environment = circumstances.environment
        self.watch = Watch(run_folder, listener)
        self.running: dict[int, Running] = {}  # by the job's number
        self.elsewhere: set[str] = set()  # ids of stages that another process computes
        self.num_jobs = self.num_corrupt = 0

    def go(self) -> ExecutionResult:
        """The whole run."""
        self.store.prepare()
        with explained(self.run_folder):
            self.circumstances.logs.mkdir(parents=True, exist_ok=True)
        planned = (state.stage for state in self.walk.states.values())
        stages = tuple(PlannedStage(stage.id, stage.kind, stage.label, stage.exclusive) for stage in planned)
        try:
            with self.executor(self.circumstances) as pool:
                self.watch.emit(RunStarted(self.watch.at(), stages, self.jobs or pool.places()))
                self._loop(pool)
        except BaseException as error:
            resume = RESUME.format(done=self.watch.board.done, total=self.watch.board.total)
            with contextlib.suppress(StoreError):  # a full disk is what stopped us
                self.watch.end("interrupted", resume if isinstance(error, KeyboardInterrupt) else "")
            raise
        result = ExecutionResult(self.walk.states, tuple(self.store.corrupt))
        self.watch.end("complete" if result.complete else "partial")
        return result

    def _loop(self, pool: Executor) -> None:
        self._settle()
        while not self.walk.finished:
            self._hand_out(pool)
            assert self.running or self.elsewhere, "no stage can run, and some are not settled"
            for message in pool.wait(POLL_SECONDS if self.elsewhere else TICK_SECONDS):
                self._handle(message)
            self._enforce_deadlines(pool)
            self._recheck()
            self._settle()
            self.watch.write()

    def _settle(self) -> None:
        """Take what the store has, rule out what cannot run."""
        for state in self.walk.settle(self._lookup):
            if state.state is State.CACHED:
                self._reused(state)
            else:
                self.watch.emit(StageNotRun(self.watch.at(), state.stage.id, state.reason))
        for description in self.store.corrupt[self.num_corrupt:]:
            self.watch.emit(EntryDamaged(self.watch.at(), description))
        self.num_corrupt = len(self.store.corrupt)

    def _lookup(self, state: StageState) -> StageInput | None:
        assert state.key is not None
        found = self.store.lookup(state.stage.kind, state.key, self.environment)
        return found if found is not None and settles(
            found.record, self.circumstances.since, checkpointing=state.stage.activation_checkpointing,
            missing=self.walk.missing(state)) else None

    def _recheck(self) -> None:
        """Stages that another process computed: recorded by now, or ours to compute."""
        for name in sorted(self.elsewhere):
            state = self.walk.states[name]
            assert state.key is not None
            if self.store.is_claimed(state.key, self.environment):
                continue
            self.elsewhere.discard(name)
            if state.state is State.PENDING and (found := self._lookup(state)) is not None:
                state.record(State.CACHED, found)
                self._reused(state)

    def _reused(self, state: StageState) -> None:
        assert state.found is not None
        record = state.found.record
        self.watch.emit(StageReused(self.watch.at(), state.stage.id, record.outcome, record.seconds))

    def _hand_out(self, pool: Executor) -> None:
        """Fill the free places. A job that must be alone waits until nothing else runs or could run."""
        places = self.jobs or pool.places()
        if len(self.running) >= places or any(run.job.exclusive for run in self.running.values()):
            return
        alone: list[StageState] | None = None
        taken = {state.key for run in self.running.values() for state in run.members}
        free = (job for job in self.walk.ready() if not self._is_elsewhere(job, taken))
        for members, stack in self.stacks.jobs(free, places - len(self.running)):
            if len(self.running) >= places:
                return
            if not any(state.stage.exclusive for state in members):
                self._start(pool, members, stack)
            elif alone is None:
                alone = members
        if alone is not None and not self.running:
            self._start(pool, alone, (), exclusive=True)

    def _is_elsewhere(self, members: Sequence[StageState], taken: set[str | None]) -> bool:
        """Whether another runner, or a twin of one of these, computes it; else they are `taken`."""
        for state in members:
            assert state.key is not None
            if state.stage.id in self.elsewhere or state.key in taken or self.store.is_claimed(state.key, self.environment):
                self.elsewhere.add(state.stage.id)
                return True
        taken.update(state.key for state in members)
        return False

    def _start(self, pool: Executor, members: list[StageState], stack: tuple[str, ...], *, exclusive: bool = False) -> None:
        self.num_jobs += 1
        job = self.circumstances.model_copy(update={"number": self.num_jobs, "stack": stack, "exclusive": exclusive,
                                                    "orders": tuple(self._order(state) for state in members)})
        for state in members:
            state.state = State.RUNNING
        self.running[job.number] = Running(job, members)
        if stack:
            self.watch.emit(StackStarted(self.watch.at(), stack))
        pool.start(job)

    def _order(self, state: StageState) -> Order:
        stage = state.stage
        inputs = {name: (source.stage.kind, source.key) for name, source in self.walk.inputs(state).items()
                  if source.key is not None}
        assert state.key is not None
        return Order(stage_id=stage.id, kind=stage.kind, key=state.key, identity=self.walk.identity(state),
                     spec=stage.spec, inputs=inputs, locations=stage.locations, micro_batch=state.micro_batch,
                     activation_checkpointing=stage.activation_checkpointing,
                     attempts=tuple(state.attempts), group=stage.group or stage.id, provisional=self.walk.is_provisional(state))

    def _handle(self, message: Message) -> None:
        run = self.running[message["job"]]
        if message["type"] == "exit":
            self._exited(run, message["status"], message["oom_killed"], message.get("lost", ""))
            return
        state = self.walk.states[message["stage"]]
        match message["type"]:
            case "started":
                run.begin(state, message["micro_batch"])
                self.watch.emit(StageStarted(self.watch.at(), state.stage.id))
            case "progress":
                self.watch.emit(StageProgress(self.watch.at(), state.stage.id, message.get("fraction"), message.get("loss")))
            case "finished" | "recorded":
                run.current = None
                self._recorded(state, reused=message["type"] == "recorded")
            case "busy":
                run.leave(state)
                state.reopen()
                self.elsewhere.add(state.stage.id)
            case "oom":
                run.leave(state)
                self._again(state, Again(f"out of memory; next with micro-batch {message['micro_batch']}",
                                         message["micro_batch"]))
            case "alone":
                run.leave(state)
                self._apart(state, message["cells"], message["reason"], memory=message["memory"])
            case "disk":
                raise StoreError(message["problem"], message["mend"])

    def _recorded(self, state: StageState, *, reused: bool) -> None:
        assert state.key is not None
        found = self.store.lookup(state.stage.kind, state.key, self.environment, verify=reused)
        if found is None:  # removed or damaged as soon as it was there: once more
            state.reopen()
        elif reused:
            state.record(State.CACHED, found)
            self._reused(state)
        else:
            state.record(State.DONE, found)
            record = found.record
            self.watch.emit(StageFinished(self.watch.at(), state.stage.id, record.outcome, record.seconds, record.message))

    def _again(self, state: StageState, again: Again) -> None:
        """Another attempt of this run, as soon as there is a place."""
        state.reopen()
        state.micro_batch = again.micro_batch or state.micro_batch
        state.attempts.append(again.reason)
        self.watch.emit(StageRetried(self.watch.at(), state.stage.id, again.reason))

    def _apart(self, state: StageState, cells: int, reason: str, *, memory: bool) -> None:
        """What failed in one pass with others is computed by itself, or in a smaller stack."""
        self._again(state, Again(self.stacks.apart(state, cells, reason, memory=memory)))

    def _exited(self, run: Running, status: int, oom_killed: bool | None, lost: str) -> None:
        del self.running[run.job.number]
        unfinished = run.unfinished_stack if status != 0 else []
        for state in unfinished:
            self._apart(state, len(unfinished), "the worker died", memory=bool(oom_killed))
        left = [state for state in run.members if state.state is State.RUNNING]
        for state in left:
            state.reopen()
        crashed = run.current or (left[0] if left and status != 0 else None)
        if crashed is None or unfinished:
            return
        then = judge(Crash(status, oom_killed, run.rows, crashed.kills,
                           self.circumstances.timeout_seconds if run.timed_out else None, lost, crashed.losses))
        if isinstance(then, Verdict):
            self._record_crash(run, crashed, then)
        else:
            crashed.kills, crashed.losses = crashed.kills + (not lost), crashed.losses + bool(lost)
            self._again(crashed, then)

    def _record_crash(self, run: Running, state: StageState, verdict: Verdict) -> None:
        """Record what a dead worker could not."""
        assert state.key is not None
        if (claim := self.store.claim(state.stage.kind, state.key, self.environment)) is None:  # another runner is at it
            self.elsewhere.add(state.stage.id)
            return
        order = self._order(state)
        order = order.model_copy(update={"provisional": order.provisional or verdict.provisional})
        message = f"{verdict.message}; its log: {run.job.log_file(state.stage.id)}"
        seconds = time.monotonic() - run.clock if run.current else 0.0
        with claim:
            if self._lookup(state) is None:  # it may have died after its record was written
                claim.write(make_record(run.job, order, verdict.outcome, message, {}, run.started or utc_now(), seconds))
        self._recorded(state, reused=False)

    def _enforce_deadlines(self, pool: Executor) -> None:
        """Kill a stage that does not heed its deadline."""
        limit = self.circumstances.timeout_seconds
        if limit is None:
            return
        for run in self.running.values():
            if run.is_late(limit) and not run.timed_out:
                run.timed_out = True
                pool.kill(run.job.number)


def _tolerates_failures(kind: str) -> bool:
    return bool(catalog.find("stage", kind).tolerates_failures)  # type: ignore[attr-defined]
