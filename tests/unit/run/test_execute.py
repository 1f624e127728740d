from __future__ import annotations

import json
import os
import platform
import threading
import time
from dataclasses import replace

import psutil
import pytest

from finetrial.errors import StoreError, UserError
from finetrial.plan.plan import keys_of
from finetrial.records.record import Outcome
from finetrial.run import crash
from finetrial.run.events import (
    EntryDamaged,
    RunEnded,
    StageFinished,
    StageNotRun,
    StageProgress,
    StageRetried,
)
from finetrial.run.job import is_final, utc_now
from finetrial.run.local import LocalPool
from finetrial.run.machine import cpu_model
from finetrial.run.status import read_status
from finetrial.run.store import Store
from finetrial.run.walk import State
from finetrial.stages.base import Chosen


def wait_until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def outcome_of(result, name):
    return result.found(name).record.outcome


def test_stages_run_once_and_are_reused(laboratory):
    a = laboratory.stage("a")
    b = laboratory.stage("b", {"left": "a"})
    first = laboratory.execute(a, b)
    assert first.complete and [first.states[n].state for n in "ab"] == [State.DONE, State.DONE]
    assert first.found("b").record.values["inputs"] == ["left"]
    assert first.found("b").record.identity["inputs"] == {"left": first.states["a"].key}
    second = laboratory.execute(a, b)
    assert [second.states[n].state for n in "ab"] == [State.CACHED, State.CACHED]
    assert second.found("b").record == first.found("b").record
    assert laboratory.started() == ["a", "b"]


def test_a_run_with_everything_recorded_starts_no_process(laboratory):
    laboratory.execute(laboratory.stage("a"))
    (laboratory.run_folder / "logs" / "workers.log").unlink()
    laboratory.execute(laboratory.stage("a"))
    assert not (laboratory.run_folder / "logs" / "workers.log").exists()


def test_a_stage_notes_how_it_ran_and_finds_what_others_cached(laboratory):
    a, b = laboratory.stage("a", do="note"), laboratory.stage("b", {"left": "a"}, do="note")
    failing = laboratory.stage("c", do="fail")
    result = laboratory.execute(a, b, failing)
    assert [result.found(name).record.execution["found"] for name in "ab"] == [[], ["a"]]
    assert result.found("a").record.key == laboratory.execute(a).found("a").record.key
    made_on = {(found.execution["host"], found.execution["cpu"]) for found in (result.found(name).record for name in "abc")}
    assert made_on == {(platform.node(), cpu_model())}
    assert (laboratory.folder / "store" / "cache").exists()  # it goes with the study, of which these may be a part


def test_a_group_shares_one_process_and_its_live_objects(laboratory):
    stages = [laboratory.stage(n, inputs, group="phase", do="share")
              for n, inputs in (("train", {}), ("predict-1", {"model": "train"}), ("predict-2", {"model": "train"}))]
    result = laboratory.execute(*stages)
    values = [result.found(stage.id).record.values for stage in stages]
    assert len({v["pid"] for v in values}) == 1 and values[0]["pid"] != os.getpid()
    assert values[2]["earlier"] == ["train", "predict-1", "predict-2"]


def test_of_a_partly_recorded_group_only_the_rest_runs(laboratory):
    train = laboratory.stage("train", group="phase", do="share")
    predict = laboratory.stage("predict", {"model": "train"}, group="phase", do="share")
    laboratory.execute(train)
    result = laboratory.execute(train, predict)
    assert laboratory.started() == ["train", "predict"]
    assert result.found("predict").record.values["earlier"] == ["predict"]  # a process of its own


def test_any_text_reaches_the_stage_as_it_is(laboratory):
    text = "ü \u2028 \n \\ \" 😀"
    result = laboratory.execute(laboratory.stage("a", note=text, rate=0.1 + 0.2, pair=(1, 2)))
    assert result.found("a").record.identity["spec"]["note"] == text
    assert result.found("a").record.identity["spec"]["rate"] == 0.1 + 0.2


def test_logs_and_progress(laboratory):
    laboratory.execute(laboratory.stage("group/a"))
    text = laboratory.log("group/a")
    assert "printed by group/a" in text and "INFO finetrial.stage: logged by group/a" in text
    assert [(e.fraction, e.loss) for e in laboratory.events if isinstance(e, StageProgress)] == [(0.5, 1.25)]
    laboratory.execute(laboratory.stage("quiet"), log_level="warning")
    assert "logged by" not in laboratory.log("quiet")


@pytest.mark.parametrize(("do", "outcome", "message", "again"), [
    ("diverge", Outcome.DIVERGED, "training diverged at step 3 (loss nan)", False),
    ("fail", Outcome.FAILED, r"KeyError: 'a\nmistake'", True),
    ("leave", Outcome.FAILED, "ended without a result (exit code 0)", True),
    ("segfault", Outcome.FAILED, "died of SIGSEGV", True),
    ("unstable", Outcome.FAILED, "$.loss is nan", True),
    ("reserved", Outcome.FAILED, "must not write a file called record.json", True),
])
def test_outcomes_are_values(laboratory, do, outcome, message, again):
    stages = [laboratory.stage("bad", do=do), laboratory.stage("needs-it", {"x": "bad"}),
              laboratory.stage("beside"), laboratory.stage("needs-that", {"x": "needs-it"})]
    result = laboratory.execute(*stages)
    record = result.found("bad").record
    assert record.outcome is outcome and message in record.message and "\n" not in record.message
    assert record.values == {} and record.files == {}
    assert outcome_of(result, "beside") is Outcome.OK
    assert result.states["needs-it"].reason == f"needs bad, which is {outcome}"
    assert result.states["needs-that"].reason == "needs needs-it, which is not run"
    assert [e.stage_id for e in laboratory.events if isinstance(e, StageNotRun)] == ["needs-it", "needs-that"]
    assert result.complete is (not again)
    laboratory.execute(*stages)
    assert laboratory.started().count("bad") == (2 if again else 1)  # what is final is not tried again


def test_the_traceback_is_in_the_log(laboratory):
    laboratory.execute(laboratory.stage("bad", do="fail"))
    assert "Traceback" in laboratory.log("bad") and "in fail" in laboratory.log("bad")


def test_what_failed_is_not_tried_again_in_the_same_trial(laboratory):
    stages, since = [laboratory.stage("bad", do="fail"), laboratory.stage("more", do="fail")], utc_now()
    laboratory.execute(stages[0], since=since)
    result = laboratory.execute(*stages, since=since)
    assert laboratory.started() == ["bad", "more"] and outcome_of(result, "bad") is Outcome.FAILED
    laboratory.execute(*stages, since=utc_now())
    assert laboratory.started().count("bad") == 2


def test_a_later_success_replaces_a_failure(laboratory):
    stage = laboratory.stage("a", do="fail-once")
    assert outcome_of(laboratory.execute(stage), "a") is Outcome.FAILED
    assert outcome_of(laboratory.execute(stage), "a") is Outcome.OK
    assert laboratory.execute(stage).states["a"].state is State.CACHED


def test_out_of_memory_halves_the_micro_batch(laboratory):
    stage = laboratory.stage("big", do="need-memory", rows=8, fits=2)
    result = laboratory.execute(stage)
    assert (laboratory.folder / "memory-big").read_text().split() == ["8", "4", "2"]
    record = result.found("big").record
    assert record.outcome is Outcome.OK and record.execution["micro_batch"] == 2
    assert record.execution["attempts"] == ["out of memory; next with micro-batch 4",
                                            "out of memory; next with micro-batch 2"]
    assert sum(isinstance(e, StageRetried) for e in laboratory.events) == 2


class LateExits(LocalPool):
    """One message at a time; a job's end is told once a later job has ended too, and before what that one said."""

    def __init__(self, job):
        super().__init__(job.logs / "workers.log", preload=job.preload)
        self.told, self.ends = [], []

    def wait(self, timeout):
        for message in super().wait(0.2):
            (self.ends if message["type"] == "exit" else self.told).append(message)
        if self.ends and self.told and self.told[0]["job"] > self.ends[0]["job"]:
            return [self.ends.pop(0)] if len(self.ends) > 1 else []
        if self.told:
            return [self.told.pop(0)]
        return [self.ends.pop(0)] if self.ends and not self.jobs else []


def test_a_stage_that_is_tried_again_before_its_first_job_has_ended_is_tried_once(laboratory):
    stage = laboratory.stage("big", do="need-memory", rows=8, fits=2)
    result = laboratory.execute(stage, executor=LateExits)
    assert (laboratory.folder / "memory-big").read_text().split() == ["8", "4", "2"]
    assert result.complete and result.found("big").record.execution["micro_batch"] == 2


@pytest.mark.parametrize(("rows", "tried"), [(8, ["8", "4", "2", "1"]), (None, ["1"])])
def test_out_of_memory_down_to_one_row_is_final(laboratory, rows, tried):
    stage = laboratory.stage("big", do="need-memory", fits=0, **({"rows": rows} if rows else {}))
    result = laboratory.execute(stage)
    assert (laboratory.folder / "memory-big").read_text().split() == tried
    assert outcome_of(result, "big") is Outcome.OOM and is_final(result.found("big").record)
    assert laboratory.execute(stage).states["big"].state is State.CACHED


def test_out_of_memory_is_tried_again_with_checkpointing(laboratory):
    stage = laboratory.stage("big", do="need-memory", fits=-1)
    laboratory.execute(stage)
    result = laboratory.execute(replace(stage, activation_checkpointing=True))
    assert result.states["big"].state is State.DONE
    assert result.found("big").record.execution["activation_checkpointing"] is True
    assert laboratory.execute(replace(stage, activation_checkpointing=True)).states["big"].state is State.CACHED


def test_a_killed_worker_is_tried_once_more_as_it_was(laboratory):
    result = laboratory.execute(laboratory.stage("a", do="die", deaths=1, rows=8))
    record = result.found("a").record
    assert record.outcome is Outcome.OK and record.execution["attempts"] == ["killed (SIGKILL)"]
    assert record.execution["micro_batch"] is None


@pytest.mark.parametrize(("counter", "outcome"), [(lambda: 0, Outcome.FAILED), (lambda: None, Outcome.OOM)])
def test_a_worker_killed_twice_is_tried_again_by_the_next_run(laboratory, monkeypatch, counter, outcome):
    monkeypatch.setattr("finetrial.run.local.oom_kills", counter)
    monkeypatch.setattr(crash, "oom_kills", counter)
    stage = laboratory.stage("a", do="die", deaths=2)
    assert outcome_of(laboratory.execute(stage), "a") is outcome
    assert outcome_of(laboratory.execute(stage), "a") is Outcome.OK


def test_what_the_kernel_kills_for_lack_of_memory_is_tried_smaller(laboratory, monkeypatch):
    counter = iter(range(100))
    monkeypatch.setattr("finetrial.run.local.oom_kills", lambda: next(counter))
    monkeypatch.setattr(crash, "oom_kills", lambda: next(counter))
    record = laboratory.execute(laboratory.stage("a", do="die", deaths=2, rows=8)).found("a").record
    assert record.outcome is Outcome.OK and record.execution["micro_batch"] == 2


def test_a_stage_that_heeds_its_deadline(laboratory):
    stage = laboratory.stage("slow", do="heed-deadline")
    record = laboratory.execute(stage, timeout_seconds=30).found("slow").record
    assert record.outcome is Outcome.TIMEOUT and "limit 30 s" in record.message
    laboratory.execute(stage, timeout_seconds=30)
    assert laboratory.started() == ["slow", "slow"]


def test_a_stage_that_does_not_heed_it_is_killed_with_its_children(laboratory, monkeypatch):
    monkeypatch.setattr("finetrial.run.running.GRACE_SECONDS", 0.0)
    monkeypatch.setattr("finetrial.run.execute.TICK_SECONDS", 0.05)
    record = laboratory.execute(laboratory.stage("slow", do="hang"), timeout_seconds=0.5).found("slow").record
    assert record.outcome is Outcome.TIMEOUT and "0.5 s" in record.message
    for pid in (laboratory.folder / "memory-slow").read_text().split():
        wait_until(lambda pid=int(pid): is_gone(pid))


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_selection_decides_where_the_next_phase_starts(laboratory):
    among = {"low": "train-low", "high": "train-high"}
    stages = [laboratory.stage("train-low"), laboratory.stage("train-high"),
              laboratory.stage("select", {"a": "train-low", "b": "train-high"}, do="choose", chosen="high"),
              laboratory.stage("next", {"parent": Chosen("select", among)})]
    result = laboratory.execute(*stages)
    assert result.states["next"].key == stages[3].key({"parent": result.states["train-high"].key})
    assert result.complete and laboratory.execute(*stages).states["next"].state is State.CACHED


def test_a_selection_that_names_no_option_or_failed(laboratory):
    select = laboratory.stage("select", do="choose", chosen="other")
    stage = laboratory.stage("next", {"parent": Chosen("select", {"low": "a"})})
    result = laboratory.execute(laboratory.stage("a"), select, stage)
    assert result.states["next"].reason == "select chose 'other', which is not one of ['low']"
    result = laboratory.execute(laboratory.stage("a"), laboratory.stage("select", do="diverge"), stage)
    assert result.states["next"].reason == "needs select, which is DIVERGED"


def test_what_a_stage_ignores_of_its_inputs_computes_nothing_anew(laboratory):
    def stages(number, seed=0):
        return [laboratory.stage("data", num_test=number, seed=seed), laboratory.stage("whole", {"x": "data"}),
                replace(laboratory.stage("part", {"x": "data"}), ignores=("num_test",)),
                replace(laboratory.stage("next", {"x": "part"}), ignores=("num_test",))]

    laboratory.execute(*stages(1))
    again = laboratory.execute(*stages(2))
    assert {name for name, state in again.states.items() if state.state is State.CACHED} == {"part", "next"}
    assert {name: state.key for name, state in again.states.items()} == keys_of(stages(2))
    assert laboratory.execute(*stages(2, seed=1)).computed == {"data", "whole", "part", "next"}


def test_a_tolerant_stage_gets_the_inputs_that_there_are(laboratory):
    bad, good = laboratory.stage("bad", do="diverge"), laboratory.stage("good")
    tolerant = laboratory.stage("both", {"x": "bad", "y": "good"}, kind="toy-tolerant")
    result = laboratory.execute(bad, good, tolerant)
    assert result.found("both").record.values["inputs"] == ["y"]
    assert is_final(result.found("both").record) and result.complete
    alone = laboratory.execute(bad, laboratory.stage("none", {"x": "bad"}, kind="toy-tolerant"))
    assert alone.states["none"].reason == "needs bad, which is DIVERGED"


def test_a_tolerant_stage_is_computed_again_when_a_missing_input_may_come(laboratory):
    stages = [laboratory.stage("flaky", do="fail-once"), laboratory.stage("good"),
              laboratory.stage("both", {"x": "flaky", "y": "good"}, kind="toy-tolerant")]
    first = laboratory.execute(*stages)
    assert first.found("both").record.values["inputs"] == ["y"] and not is_final(first.found("both").record)
    assert laboratory.execute(*stages).found("both").record.values["inputs"] == ["x", "y"]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(("fits", "inputs"), [(0, ["x", "y"]), (-1, ["y"])])
def test_what_was_made_without_an_input_is_made_again_once_that_is_there(laboratory, fits, inputs, elsewhere):
    stages = [laboratory.stage("big", do="need-memory", fits=fits), laboratory.stage("good"),
              laboratory.stage("both", {"x": "big", "y": "good"}, kind="toy-tolerant")]
    first = laboratory.execute(*stages)
    assert first.complete and first.found("both").record.values["inputs"] == ["y"]
    assert laboratory.execute(*stages).states["both"].state is State.CACHED
    another = [replace(stage, activation_checkpointing=stage.id == "big") for stage in stages]
    second = laboratory.execute(*another[:2] if elsewhere else another)  # another study may have trained it
    third = laboratory.execute(*stages)
    assert second.complete and third.complete and third.found("both").record.values["inputs"] == inputs
    assert third.computed == ({"both"} if elsewhere and fits == 0 else set())
    assert laboratory.execute(*stages).computed == set()


def test_an_exclusive_stage_runs_alone(laboratory):
    stages = [laboratory.stage("profile", exclusive=True), *(laboratory.stage(f"s{i}", steps=3) for i in range(4))]
    laboratory.execute(*stages, jobs=3)
    order = [e.stage_id for e in laboratory.events if isinstance(e, StageFinished)]
    assert order[-1] == "profile" and laboratory.started()[-1] == "profile"


def test_stages_of_one_key_are_computed_once_where_there_are_no_locks_either(laboratory, monkeypatch):
    """Twins whose key is known only when a selection is made: nothing at planning could tell."""
    monkeypatch.setattr(Store, "is_claimed", lambda self, key, environment: False)
    result = laboratory.execute(laboratory.stage("a", value="x"), laboratory.stage("b", value="x"), jobs=2)
    assert laboratory.started() == ["a"]
    assert result.states["a"].state is State.DONE and result.states["b"].state is State.CACHED


def test_earlier_stages_come_first(laboratory):
    names = [f"s{i}" for i in range(5)]
    laboratory.execute(*(laboratory.stage(name) for name in names), jobs=1)
    assert laboratory.started() == names


@pytest.mark.parametrize("do", ["fill-disk", "hidden-full-disk"])
def test_a_full_disk_stops_the_run_and_is_nobodys_outcome(laboratory, do):
    with pytest.raises(StoreError, match="is full"):
        laboratory.execute(laboratory.stage("before"), laboratory.stage("bad", {"x": "before"}, do=do))
    assert laboratory.events[-1].state == "interrupted"
    result = laboratory.execute(laboratory.stage("before"))
    assert result.states["before"].state is State.CACHED
    assert not list((laboratory.folder / "store" / "tmp").iterdir())
    assert len(list((laboratory.folder / "store").rglob("record.json"))) == 1


def test_a_damaged_entry_is_moved_aside_computed_again_and_reported(laboratory):
    stages = [laboratory.stage("a"), laboratory.stage("b", {"x": "a"})]
    first = laboratory.execute(*stages)
    path = first.found("a").folder / "out"
    path.write_bytes(path.read_bytes()[:-1])
    again = laboratory.execute(*stages)
    assert again.states["a"].state is State.DONE and again.states["b"].state is State.CACHED
    assert len(again.corrupt) == 1 and "out does not match its digest" in again.corrupt[0]
    assert [e.description for e in laboratory.events if isinstance(e, EntryDamaged)] == list(again.corrupt)
    assert path.read_text() == again.found("a").record.values["value"] == first.found("a").record.values["value"]


def test_workers_that_cannot_be_started(laboratory):
    with pytest.raises(UserError, match="workers cannot be started.*no_such_module"):
        laboratory.execute(laboratory.stage("a"), preload=("no_such_module",))
    assert "ModuleNotFoundError" in (laboratory.run_folder / "logs" / "workers.log").read_text()


def test_status_and_events(laboratory):
    assert read_status(laboratory.run_folder) is None
    laboratory.execute(laboratory.stage("a"), laboratory.stage("bad", do="fail"))
    status = json.loads((laboratory.run_folder / "status.json").read_text())
    assert (status["state"], status["stages_done"], status["stages_total"]) == ("partial", 2, 2)
    assert status["failures"] == {"FAILED": 1} and status["running"] == []
    assert read_status(laboratory.run_folder) == status
    assert isinstance(laboratory.events[-1], RunEnded) and laboratory.events[-1].state == "partial"


def test_a_second_runner_waits_for_what_the_first_computes(laboratory):
    stages = [laboratory.stage("a", do="wait-for"), laboratory.stage("b", {"x": "a"}), laboratory.stage("c")]
    first = []
    runner = threading.Thread(target=lambda: first.append(laboratory.execute(*stages, jobs=1)))
    runner.start()
    wait_until(lambda: laboratory.started() == ["a"])

    def release(event):
        if isinstance(event, StageFinished) and event.stage_id == "c":  # computed while "a" was the other runner's
            (laboratory.folder / "memory-a").touch()

    second = laboratory.execute(*stages, jobs=1, run_folder=laboratory.folder / "second", listener=release)
    runner.join()
    assert sorted(laboratory.started()) == ["a", "b", "c"]
    assert first[0].complete and second.complete
    assert second.states["a"].state is State.CACHED and first[0].states["c"].state is State.CACHED


def test_a_stage_starts_with_the_libraries_imported(laboratory):
    """A fresh process finds torch and transformers there; bench/ says how long that takes."""
    names = [f"s{i}" for i in range(4)]
    result = laboratory.execute(*(laboratory.stage(name, do="libraries") for name in names), jobs=1, preload=None)
    assert all(result.found(name).record.values["imported"] for name in names)
    assert {result.found(name).record.values["threads"] for name in names} == {1}
