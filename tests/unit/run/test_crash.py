from __future__ import annotations

import signal

import pytest

from finetrial.records.record import Outcome
from finetrial.run import crash
from finetrial.run.crash import LOST_TO_MEMORY, Again, Crash, Verdict, judge

KILL = -signal.SIGKILL


@pytest.mark.parametrize(("found", "then"), [
    (Crash(KILL, True, 8, 0), Again("killed for lack of memory; next with micro-batch 4", 4)),
    (Crash(KILL, True, 3, 5), Again("killed for lack of memory; next with micro-batch 1", 1)),
    (Crash(LOST_TO_MEMORY, False, 8, 0), Again("out of memory; next with micro-batch 4", 4)),
    (Crash(KILL, True, 1, 0), Again("killed (SIGKILL)")),
    (Crash(KILL, True, None, 0), Again("killed (SIGKILL)")),
    (Crash(KILL, False, 8, 0), Again("killed (SIGKILL)")),  # by somebody: the micro-batch stays
    (Crash(KILL, None, 8, 0), Again("killed (SIGKILL)")),
])
def test_another_attempt(found, then):
    assert judge(found) == then


@pytest.mark.parametrize(("found", "outcome", "words", "provisional"), [
    (Crash(KILL, True, 1, 1), Outcome.OOM, "by the kernel for lack of memory", False),
    (Crash(KILL, None, 8, 1), Outcome.OOM, "most likely for lack of memory", True),
    (Crash(KILL, False, 8, 1), Outcome.FAILED, "killed twice", False),
    (Crash(KILL, False, 8, 0, timeout_seconds=2.5), Outcome.TIMEOUT, "2.5 s", False),
    (Crash(-signal.SIGABRT, False, 8, 0), Outcome.FAILED, "SIGABRT", False),
    (Crash(LOST_TO_MEMORY, False, 1, 0), Outcome.OOM, "ran out of memory", False),
    (Crash(3, False, 8, 0), Outcome.FAILED, "exit code 3", False),
])
def test_an_outcome(found, outcome, words, provisional):
    verdict = judge(found)
    assert isinstance(verdict, Verdict)
    assert verdict.outcome is outcome and words in verdict.message and verdict.provisional is provisional


def test_the_kernels_count(tmp_path, monkeypatch):
    path = tmp_path / "vmstat"
    path.write_text("nr_free_pages 1\noom_kill 4\nnr_x 2\n")
    monkeypatch.setattr(crash, "VMSTAT", path)
    assert crash.oom_kills() == 4
    assert crash.oom_killed_since(3) is True and crash.oom_killed_since(4) is False
    path.unlink()
    assert crash.oom_kills() is None and crash.oom_killed_since(4) is None
