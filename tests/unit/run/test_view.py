from __future__ import annotations

import io
import json

from rich.console import Console

from finetrial.records.record import Outcome
from finetrial.run.board import Board, TimeLeft
from finetrial.run.events import (
    EntryDamaged,
    PlannedStage,
    RunEnded,
    RunStarted,
    StageFinished,
    StageNotRun,
    StageProgress,
    StageRetried,
    StageReused,
    StageStarted,
)
from finetrial.run.status import LOCK_FILE, StatusFile, describe, read_status
from finetrial.run.view import LiveView, PlainView, duration, header, open_view, render

STAGES = (PlannedStage("t1", "train", "full, 3e-4, seed 1"), PlannedStage("t2", "train", "LoRA [r=8]"),
          PlannedStage("t3", "train", ""), PlannedStage("p1", "predict", "full on chat"),
          PlannedStage("c1", "profile", "cost", exclusive=True))


def board_of(*events):
    board = Board()
    for event in (RunStarted(0.0, STAGES, 2), *events):
        board.see(event)
    return board


def text_of(board, at):
    console = Console(file=io.StringIO(), width=120)
    console.print(render(board, at))
    return console.file.getvalue()


def test_the_time_left_comes_from_stages_of_the_same_kind():
    board = board_of()
    assert board.time_left(0.0) is None
    board.see(StageReused(0.0, "t1", Outcome.OK, 10.0))
    assert board.time_left(0.0) == TimeLeft(10.0, at_least=True)  # t2 and t3 on two processes; others not timed
    board.see(StageReused(0.0, "p1", Outcome.OK, 4.0))
    board.see(StageFinished(1.0, "c1", Outcome.OK, 6.0, ""))
    board.see(StageStarted(1.0, "t2"))
    assert board.time_left(5.0) == TimeLeft((6.0 + 10.0) / 2, at_least=False)
    board.see(StageProgress(5.0, "t2", 0.25, 2.0))
    assert board.time_left(5.0) == TimeLeft((12.0 + 10.0) / 2, at_least=False)


def test_exclusive_stages_are_not_shared_out():
    board = board_of(StageReused(0, "t1", Outcome.OK, 2.0), StageReused(0, "p1", Outcome.OK, 2.0))
    board = Board(stages={**board.stages, "c2": PlannedStage("c2", "profile", "", exclusive=True)}, jobs=2,
                  outcomes=dict(board.outcomes), _timed={**board._timed, "profile": (5.0, 1)})
    assert board.time_left(0.0) == TimeLeft(5.0 + 5.0 + (2.0 + 2.0) / 2, at_least=False)


def test_the_screen_shows_what_runs_and_what_went_wrong():
    board = board_of(StageReused(0, "p1", Outcome.OK, 4.0), StageStarted(0, "t1"), StageStarted(0, "t2"),
                     StageProgress(3, "t2", 0.4, 1.2345), StageFinished(4, "t1", Outcome.DIVERGED, 4.0, "at step 3"),
                     StageNotRun(4, "c1", "needs t1, which is DIVERGED"), EntryDamaged(4, "some entry"))
    text = text_of(board, 5.0)
    assert "2/5 stages · 1 reused · 1 DIVERGED · 1 not run · 5.0 s" in text
    assert "LoRA [r=8]" in text and "40%" in text and "loss 1.234" in text
    assert "full, 3e-4, seed 1  4.0 s  DIVERGED: at step 3" in text and "some entry" in text


def test_the_screen_at_the_end():
    board = board_of(StageStarted(1, "t1"), RunEnded(7.0, "interrupted", "stopped: run it again"))
    assert header(board, 99.0) == "0/5 stages · 0 reused · 7.0 s"
    assert "stopped: run it again" in text_of(board, 99.0) and not board.running


def test_a_retried_stage_no_longer_runs():
    assert not board_of(StageStarted(1, "t1"), StageRetried(2, "t1", "out of memory")).running


def test_plain_lines_are_one_for_each_finished_stage():
    lines = []
    view = PlainView(lines.append)
    for event in (RunStarted(0.0, STAGES, 2), StageReused(0, "p1", Outcome.OK, 4.0), StageStarted(0, "t1"),
                  StageProgress(1, "t1", 0.5, 3.0), StageRetried(1, "t1", "killed"), StageStarted(1, "t1"),
                  StageFinished(70.0, "t1", Outcome.OK, 69.0, ""), StageNotRun(70, "c1", "needs x"),
                  StageFinished(71.0, "t3", Outcome.OOM, 1.0, "too big"), RunEnded(71.0, "partial")):
        view(event)
    assert lines == ["[2/5] train  full, 3e-4, seed 1  1 min 09 s", "[3/5] train  t3  1.0 s  OOM: too big"]


def test_the_live_view_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    view = LiveView(console, clock=lambda: 50.0)
    for event in (RunStarted(0.0, STAGES, 2), StageStarted(1.0, "t1"), RunEnded(2.0, "partial")):
        view(event)
    assert "0/5 stages" in console.file.getvalue()
    assert isinstance(open_view(io.StringIO()), PlainView)


def test_durations():
    assert [duration(s) for s in (0.04, 9.9, 12.3, 59.6, 185, 3599.6, 7800)] == [
        "0.0 s", "9.9 s", "12 s", "1 min 00 s", "3 min 05 s", "1 h 00 min", "2 h 10 min"]


def test_the_status_file(tmp_path):
    board = board_of(StageStarted(1.0, "t2"), StageProgress(3, "t2", 0.4, 1.5))
    status = StatusFile(tmp_path)
    status.write(board, 3.0)
    status.write(board, 3.5)  # too soon
    found = read_status(tmp_path)
    assert found == json.loads(json.dumps(describe(board, 3.0))) and found["state"] == "running"
    assert found["running"] == [{"stage": "t2", "label": "LoRA [r=8]", "kind": "train", "fraction": 0.4, "loss": 1.5,
                                 "seconds": 2.0, "stack": 1}]
    second = StatusFile(tmp_path)
    second.write(board_of(), 9.0)  # another runner of the folder has it
    assert read_status(tmp_path) == found
    status.close()
    assert not (tmp_path / LOCK_FILE).exists() and read_status(tmp_path)["state"] == "interrupted"
    second.write(board_of(), 19.0)
    assert read_status(tmp_path)["elapsed_seconds"] == 19.0
    second.close()
