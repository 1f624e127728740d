"""What follows when a worker dies in the middle of a stage: another attempt, or an outcome.

A SIGKILL that is not ours comes from the kernel, for lack of memory, or from somebody. The kernel counts what it kills
(`oom_kill` in /proc/vmstat). For lack of memory the stage is tried with half the micro-batch, down to one row; a kill
by somebody must not change how a stage is computed, and is tried once more as it was. A machine of a cluster that is
lost says nothing about the stage at all: it is tried elsewhere.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from finetrial.records.record import Outcome

VMSTAT = Path("/proc/vmstat")
LOST_TO_MEMORY = 83  # exit code of a worker that waits in vain for a process that ran out of memory
MOST_LOSSES = 5  # of machines under one stage: then it may be the stage that kills them


@dataclass(frozen=True)
class Crash:
    """The circumstances of a death."""

    status: int  # exit code, or a negative signal number
    oom_killed: bool | None  # the kernel killed a process for lack of memory meanwhile; None = it does not say
    rows: int | None  # micro-batch; None = this kind of stage has none
    kills: int  # how often this run has seen the stage killed before
    timeout_seconds: float | None = None  # set if we killed it for passing its deadline
    lost: str = ""  # what became of the machine, where that is why
    losses: int = 0  # how often that has happened to the stage in this run before


@dataclass(frozen=True)
class Again:
    """Try again, with `micro_batch` rows if that is not None."""

    reason: str
    micro_batch: int | None = None


@dataclass(frozen=True)
class Verdict:
    """Record this. `provisional`: the next run tries again."""

    outcome: Outcome
    message: str
    provisional: bool = False


def judge(crash: Crash) -> Again | Verdict:
    """What to do next."""
    if crash.timeout_seconds is not None:
        return Verdict(Outcome.TIMEOUT, f"killed: it ran on past its limit of {crash.timeout_seconds:g} s")
    if crash.lost:
        if crash.losses < MOST_LOSSES:
            return Again(crash.lost)
        return Verdict(Outcome.FAILED, f"lost with its machine {crash.losses + 1} times, last: {crash.lost}")
    if crash.status == -signal.SIGKILL:
        return _judge_kill(crash)
    if crash.status == LOST_TO_MEMORY:
        return _halved(crash, "out of memory") or Verdict(Outcome.OOM, "one of the processes that compute it ran out of memory")
    if crash.status < 0:
        return Verdict(Outcome.FAILED, f"the worker died of {signal.Signals(-crash.status).name}")
    return Verdict(Outcome.FAILED, f"the worker ended without a result (exit code {crash.status})")


def _judge_kill(crash: Crash) -> Again | Verdict:
    if crash.oom_killed and (again := _halved(crash, "killed for lack of memory")) is not None:
        return again
    if crash.kills == 0:
        return Again("killed (SIGKILL)")
    if crash.oom_killed:
        return Verdict(Outcome.OOM, "killed by the kernel for lack of memory")
    if crash.oom_killed is None:
        return Verdict(Outcome.OOM, "killed twice (SIGKILL), most likely for lack of memory", provisional=True)
    return Verdict(Outcome.FAILED, "killed twice (SIGKILL), and not by the kernel for lack of memory")


def _halved(crash: Crash, reason: str) -> Again | None:
    """Another attempt with half the rows, if there is more than one."""
    if crash.rows is None or crash.rows <= 1:
        return None
    return Again(f"{reason}; next with micro-batch {crash.rows // 2}", crash.rows // 2)


def oom_kills() -> int | None:
    """Processes that the kernel has killed for lack of memory since it started; None where it does not tell."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def oom_killed_since(before: int | None) -> bool | None:
    """True if the kernel has killed for lack of memory since `before` was read; None where it does not tell."""
    now = oom_kills()
    return None if before is None or now is None else now > before
