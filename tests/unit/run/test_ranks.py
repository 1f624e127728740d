"""How many processes may compute a stage together, and what is said where they cannot."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from finetrial import catalog
from finetrial.errors import UserError, is_out_of_memory
from finetrial.records.record import Outcome
from finetrial.run.job import Job, Order
from finetrial.run.ranks import ProcessLost, check_processes, device_of, how, ranks
from finetrial.run.remote_store import open_store
from finetrial.run.worker import rows_at_once, run_job, stage_context
from finetrial.stages.base import Stage
from finetrial.train.data_parallel import DataParallel

SHARED = Path(__file__).parent / "toys" / "toy_shared.py"
TRAIN = Stage("train/a", "train", 2, {"training": {"batch_sequences": 4}}, label="full, 3e-4, seed 1")
PREDICT = Stage("predict/a", "predict", 1, {})


@pytest.mark.parametrize(("processes", "options", "message", "mend"), [
    (5, {}, "a training step of full, 3e-4, seed 1 has 4 rows", "--processes 4"),
    (2, {"stack": 8}, "--stack 8 and --processes 2", "leave one of them out"),
    (2, {"device": "mps"}, "on the device mps", "cpu or cuda"),
    (2, {"device": "cuda:1"}, "on the device cuda:1", "from the first on"),
    (2, {"device": "cuda"}, "this machine has 1 GPU", "--processes 1"),
    (1, {"shard": True}, "--processes is 1", "--processes N")])
def test_what_cannot_be_is_refused(monkeypatch, processes, options, message, mend):
    monkeypatch.setattr("finetrial.run.ranks._gpus", lambda: 1)
    with pytest.raises(UserError) as refused:
        check_processes(processes, [PREDICT, TRAIN], **{"device": "cpu", "stack": 1, "local": True, **options})
    assert message in refused.value.problem and mend in (refused.value.mend or "")


def test_what_can_be_is_not(monkeypatch):
    monkeypatch.setattr("finetrial.run.ranks._gpus", lambda: 1)
    check_processes(4, [PREDICT, TRAIN], "cpu", stack=1, local=True)
    check_processes(1, [TRAIN], "mps", stack=8, local=True)
    check_processes(4, [TRAIN], "cuda", stack=1, local=False)  # a cluster's nodes have what they say


@pytest.mark.parametrize(("spec", "why"), [
    ({"quantization": "nf4"}, "quantization nf4"), ({"training": {"optimizer": "paged_adamw_8bit"}}, "paged_adamw_8bit"),
    ({"components": [{"slot": "main", "method": {"kind": "peft", "type": "adalora", "version": 1}}]}, "peft in slot 'main'")])
def test_what_cannot_be_trained_in_parts_is_refused(spec, why):
    stage = replace(TRAIN, spec={"components": [{"slot": "main", "method": None}, {"slot": "b", "method": {"kind": "full"}}],
                                 **TRAIN.spec})
    check_processes(2, [PREDICT, stage], "cpu", stack=1, local=True, shard=True)
    stage = replace(stage, spec={**stage.spec, **spec, "training": {**TRAIN.spec["training"], **spec.get("training", {})}})
    with pytest.raises(UserError, match="--shard: full, 3e-4, seed 1 cannot be trained in parts") as refused:
        check_processes(2, [PREDICT, stage], "cpu", stack=1, local=True, shard=True)
    assert why in refused.value.problem and "--arms" in refused.value.mend


def test_each_has_a_gpu_of_its_own():
    assert [device_of("cuda", DataParallel(rank, 2)) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert device_of("cuda", DataParallel()) == "cuda" and device_of("cpu", DataParallel(1, 2)) == "cpu"
    both = {"count": 2, "backend": "cpu:gloo,cuda:nccl"}
    assert how("cuda", DataParallel(0, 2)) == {"processes": {**both, "form": "data parallel"}}
    assert how("cuda", DataParallel(0, 2, sharded=True)) == {"processes": {**both, "form": "sharded"}}
    assert how("cuda", DataParallel()) == {}


@pytest.fixture
def job(tmp_path, environment):
    """A job of two processes with one training stage of 4 rows a step."""
    order = Order(stage_id="train/a", kind="train", key="ab" * 16, identity={}, spec=TRAIN.spec, inputs={}, locations={})
    return Job(number=1, orders=(order,), store=str(tmp_path), logs=tmp_path, environment=environment, device="cpu",
               since="2026-01-01T00:00:00", processes=2)


@pytest.mark.parametrize(("does", "message"), [
    ("raise SystemExit(3)", "process 2 of 2 ran out of memory"), ("raise SystemExit(1)", "process 2 of 2 failed (exit code 1)"),
    ("import os; os.kill(os.getpid(), 15)", "process 2 of 2 died of SIGTERM")])
def test_one_that_dies_before_it_is_ready_is_named(tmp_path, monkeypatch, job, does, message):
    monkeypatch.setattr("finetrial.run.ranks.COMMAND", (sys.executable, "-S", "-c", does))
    with pytest.raises(ProcessLost) as lost, ranks(job, job.orders[0], tmp_path, tmp_path):
        pytest.fail("the stage must not begin")
    assert str(lost.value) == message and is_out_of_memory(lost.value) == ("memory" in message)
    assert not list(tmp_path.iterdir())


def test_a_record_of_what_failed_says_how_it_ran(tmp_path, monkeypatch, job):
    monkeypatch.setattr("finetrial.run.ranks.COMMAND", (sys.executable, "-S", "-c", "raise SystemExit(1)"))
    monkeypatch.setattr("finetrial.run.worker.redirect_output", lambda *log: None)
    store = open_store(job.store)
    store.prepare()
    run_job(job, lambda message: None)
    found = store.lookup("train", job.orders[0].key, job.environment)
    assert found.record.outcome is Outcome.FAILED and found.record.execution["processes"]["count"] == 2


def test_no_process_is_without_a_micro_batch(job):
    [order] = job.orders
    assert rows_at_once(job, order) == 2 and rows_at_once(job, order.model_copy(update={"micro_batch": 1})) == 1
    assert rows_at_once(job.model_copy(update={"processes": 1}), order) == 4
    assert rows_at_once(job, order.model_copy(update={"kind": "predict"})) is None


@pytest.fixture
def compute(tmp_path, job, monkeypatch):
    """Compute the toy in two processes; a wait that nothing ends fails the test, and none is left afterwards."""
    from torch import distributed

    catalog.add_file(SHARED)
    destroy = distributed.destroy_process_group
    monkeypatch.setattr(distributed, "destroy_process_group", destroy)  # the toy's own is undone

    def computed(spec):
        order = job.orders[0].model_copy(update={"kind": "toy-shared", "spec": spec})
        shared_job = job.model_copy(update={"orders": (order,), "plugins": (SHARED,)})
        with ranks(shared_job, order, tmp_path, tmp_path) as parallel:
            return catalog.find("stage", "toy-shared")().run(
                stage_context(job, order, open_store(job.store), Place(tmp_path, tmp_path), {}, print, parallel=parallel))

    def end_the_wait():
        for process in assistants():
            process.kill()

    timer = threading.Timer(90, end_the_wait)
    timer.start()
    yield computed
    timer.cancel()
    if distributed.is_initialized():
        destroy()
    assert not assistants()


def assistants():
    return [each for each in psutil.Process().children() if "finetrial.run.assist" in each.cmdline()]


@dataclass(frozen=True)
class Place:
    """Where the toy would write."""

    folder: Path
    checkpoint: Path


def test_two_processes_compute_and_leave_together(compute):
    assert compute({}) == {"sum": 9.0}


@pytest.mark.parametrize(("raises", "error", "message"), [
    ((1, "a mistake"), ProcessLost, "process 2 of 2 failed (exit code 1)"),
    ((0, "a mistake"), ValueError, "a mistake")])
def test_one_that_fails_between_two_steps_leaves_none_waiting(compute, job, raises, error, message):
    with pytest.raises(error) as raised:
        compute({"raises": raises})
    assert str(raised.value) == message
    if raises[0] == 1:
        assert "ValueError: a mistake" in job.log_file("train/a").read_text()


def test_the_one_that_ran_out_of_memory_is_named_before_those_that_ended_for_it(tmp_path, monkeypatch, job):
    """The third process; by then the second has ended, too."""
    does = ("import json, os, sys\nrank = json.load(sys.stdin)['rank']\nos.write(1, b'.')\n"
            "raise SystemExit(1 if rank == 1 else 3)")
    monkeypatch.setattr("finetrial.run.ranks.COMMAND", (sys.executable, "-S", "-c", does))
    earlier = psutil.Process().children()

    def all_have_ended(*_, **__):
        for process in set(psutil.Process().children()) - set(earlier):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        raise RuntimeError("a connection broke")

    monkeypatch.setattr("finetrial.run.ranks.process_group", all_have_ended)
    with pytest.raises(ProcessLost) as lost, ranks(job.model_copy(update={"processes": 3}), job.orders[0], tmp_path, tmp_path):
        pass
    assert str(lost.value) == "process 3 of 3 ran out of memory"
