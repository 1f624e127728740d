from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from finetrial.run import local, messages
from finetrial.run.job import Job
from finetrial.run.local import KeptPool, LocalPool, default_preload
from finetrial.run.machine import worker_environment

SINCE = "2026-01-01T00:00:00"


@pytest.fixture
def make_job(tmp_path, environment, laboratory):
    def make(number, *orders):
        return Job(number=number, orders=orders, store=str(tmp_path / "store"), logs=tmp_path / "logs", device="cpu",
                   environment=environment, since=SINCE)
    return make


def servers():
    """The servers of workers that this process has started and that live."""
    return [child for child in psutil.Process().children() if "finetrial.run.server" in command_of(child)]


def command_of(child, seconds=1.0):
    """Of a process that has just begun it is empty for a moment, and of one that has ended for ever."""
    end = time.monotonic() + seconds
    while not (words := child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.01)
    return words


def events_of(pool):
    found = []
    while pool.jobs:
        found += pool.wait(5.0)
    return found


@pytest.mark.parametrize("fork", [True, False])
def test_a_job_without_stages_starts_and_ends(tmp_path, make_job, fork):
    with LocalPool(tmp_path / "log", preload=(), fork=fork) as pool:
        pool.start(make_job(7))
        pool.start(make_job(8))
        found = sorted(events_of(pool), key=lambda message: message["job"])
    assert [(message["type"], message["job"], message["status"]) for message in found] == [("exit", 7, 0), ("exit", 8, 0)]
    assert pool.places() >= 1


def test_spawned_workers_compute_stages_too(laboratory, monkeypatch):
    monkeypatch.setattr("finetrial.run.local.sys.platform", "darwin")
    result = laboratory.execute(laboratory.stage("a"), laboratory.stage("b", {"x": "a"}))
    assert result.complete


def test_when_the_server_dies_its_jobs_are_lost_and_another_one_starts(tmp_path, laboratory):
    killed = []

    def listener(event):
        if type(event).__name__ == "StageStarted" and not killed:
            [server] = servers()
            killed.append(server.pid)
            os.kill(server.pid, signal.SIGKILL)

    stage = laboratory.stage("a", do="work", steps=20, rounds=2000)
    result = laboratory.execute(stage, listener=listener)
    assert killed and result.complete


def test_the_runs_of_a_trial_share_one_server(tmp_path, make_job, laboratory):
    seen = []
    with KeptPool() as kept:
        for name in ("a", "b"):
            assert laboratory.execute(laboratory.stage(name), executor=kept).complete
            seen += servers()
            with kept(make_job(0)) as pool:
                assert not pool.jobs
    assert len(seen) == 2 and seen[0] == seen[1] and not servers()


def test_what_a_run_leaves_behind_does_not_reach_the_next(make_job):
    with KeptPool() as kept:
        with kept(make_job(0)) as pool:
            pool.start(make_job(1))  # its end is not waited for
        with kept(make_job(0)) as pool:
            assert pool.wait(0.1) == []


def test_a_run_that_fails_leaves_no_worker_of_a_kept_pool(make_job):
    with KeptPool() as kept:
        with pytest.raises(KeyboardInterrupt), kept(make_job(0)) as pool:
            pool.start(make_job(1))
            assert servers()
            raise KeyboardInterrupt
        assert not servers() and not pool.jobs


def test_jobs_that_do_not_end_are_ended(tmp_path, make_job, monkeypatch):
    monkeypatch.setattr(local, "CLOSING_SECONDS", 0.0)
    with LocalPool(tmp_path / "log", preload=(), fork=True) as pool:
        pool.start(make_job(1))
        pool.settle()
        assert not pool.jobs and not servers()


def test_the_environment_of_workers_is_pinned(tmp_path, make_job, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with LocalPool(tmp_path / "log", preload=(), fork=True) as pool:
        pool.start(make_job(1))
        [environ] = [server.environ() for server in servers()]
    assert environ["OMP_NUM_THREADS"] == "1" and environ["PYTHONHASHSEED"] == "0"
    assert environ["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=0"


def test_what_the_user_asks_of_the_allocator_has_the_last_word(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    assert worker_environment()["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"


def test_the_libraries_that_workers_find_imported():
    names = default_preload()
    assert {"torch", "transformers.models.llama.modeling_llama", "finetrial.stages.train", "finetrial.methods.lora",
            "finetrial.tasks.base"} <= set(names)
    assert not any("bitsandbytes" in name for name in names)


def test_where_bitsandbytes_is_installed_workers_import_peft_themselves(monkeypatch):
    """Peft imports it, and its import asks for CUDA's devices: no fork could use them after that."""
    for spec, is_preloaded in ((None, True), (object(), False)):
        monkeypatch.setattr(local, "find_spec", lambda name, spec=spec: spec)
        assert ("peft" in default_preload()) == is_preloaded


def test_messages_are_whole_lines():
    read, write = os.pipe()
    messages.send(write, {"type": "finished", "stage": "ü", "text": "ü\x01" * 5000})
    messages.send(write, {"type": "progress", "loss": 0.1})
    reader = messages.Reader(read)
    first, second = reader.read(1.0)
    assert first["stage"] == "ü" and 100 < len(first["text"]) < 1000 and second == {"type": "progress", "loss": 0.1}
    assert reader.read(0) == [] and not reader.ended
    os.close(write)
    assert reader.read(0) == [] and reader.ended
    os.close(read)
