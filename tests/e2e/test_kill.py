"""Kill a run at any moment, run it again: the store ends as if nothing had happened.

The stages are toys that need no torch, run by the real runner, server and workers, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).with_name("run_toys.py")
_spec = importlib.util.spec_from_file_location("run_toys", SCRIPT)
toys = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toys)

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
STAGES = 1 + 2 * 2 * 3 * 2 + 2


class Run:
    """A runner in a process of its own."""

    def __init__(self, folder, jobs=2, name="run"):
        self.process = subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(folder / name), str(jobs)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)

    def wait_for_start(self):
        assert self.process.stdout.readline() == "started\n", self.process.stderr.read()
        return self

    def descendants(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self, timeout=120):
        _, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def records(folder):
    """What the store holds: by key, everything that must not depend on how often the run was killed."""
    found = [json.loads(path.read_text()) for path in (folder / "store" / "toy").rglob("record.json")]
    return {record["key"]: {name: record[name] for name in ("stage_id", "outcome", "values", "files", "identity")}
            for record in found}


def started(folder):
    """(stage, pid) of every start so far."""
    path = folder / "started"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def gone(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = toys.run(folder, folder / "run", 2)
    assert result.complete and Counter(name for name, _ in started(folder)).most_common(1)[0][1] == 1
    return records(folder)


def assert_restored(folder, undisturbed):
    assert records(folder) == undisturbed and len(undisturbed) == STAGES
    toys.run(folder, folder / "run", 2)  # finds everything, and sweeps
    for name in ("tmp", "locks", "checkpoints", "corrupt"):
        assert list((folder / "store" / name).iterdir()) == [], name


def test_kills_of_the_runner_at_random_moments(tmp_path, undisturbed):
    draw, kills = random.Random(7), 0
    while True:
        recorded = {record["stage_id"] for record in records(tmp_path).values()}
        before = len(started(tmp_path))
        with Run(tmp_path).wait_for_start() as run:
            if kills < 12:
                wait_until(lambda n=before: len(started(tmp_path)) > n or run.process.poll() is not None)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(draw.uniform(0.0, 0.15))
            family = run.descendants() if run.process.poll() is None else []
            if kills == 12 or run.process.poll() is not None:
                assert run.wait() == (0, "")
            else:
                run.process.kill()
                kills += 1
                wait_until(lambda f=family: all(gone(process) for process in f), 10)  # nothing outlives the runner
        again = {name for name, _ in started(tmp_path)[before:]}
        assert not again & recorded, "a recorded stage was computed again"
        if run.process.returncode == 0:
            break
    print(f"\n{kills} kills of the runner, {len(started(tmp_path))} starts of {STAGES} stages")
    assert kills >= 5
    assert_restored(tmp_path, undisturbed)


def test_kills_of_workers_at_random_moments(tmp_path, undisturbed):
    draw, kills = random.Random(11), 0
    with Run(tmp_path).wait_for_start() as run:
        while kills < 8 and run.process.poll() is None:
            seen = len(started(tmp_path))
            wait_until(lambda n=seen: len(started(tmp_path)) > n or run.process.poll() is not None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(draw.uniform(0.0, 0.03))
            name, pid = started(tmp_path)[-1]
            if Counter(name for name, _ in started(tmp_path))[name] > 1:
                continue  # a stage killed twice in one run is given up until the next
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
                kills += 1
        assert run.wait() == (0, "")
    print(f"\n{kills} kills of workers")
    assert kills >= 4
    with Run(tmp_path) as run:
        assert run.wait() == (0, "")
    assert_restored(tmp_path, undisturbed)


@pytest.mark.parametrize("moment", ["mid-stage", "before-rename", "after-rename"])
@pytest.mark.parametrize("victim", ["worker", "both"])
def test_kills_inside_a_stage_and_around_the_rename(tmp_path, undisturbed, moment, victim):
    with Run(tmp_path, jobs=1).wait_for_start() as run:
        wait_until(lambda: len(started(tmp_path)) >= 2)
        (tmp_path / "kill").write_text(moment)
        if victim == "both":
            wait_until(lambda: not (tmp_path / "kill").exists())
            run.process.kill()
        else:
            assert run.wait() == (0, "")
    with Run(tmp_path) as run:
        assert run.wait() == (0, "")
    assert_restored(tmp_path, undisturbed)


def test_two_runners_on_one_store_do_no_double_work(tmp_path, undisturbed):
    with Run(tmp_path, jobs=1, name="one") as first, Run(tmp_path, jobs=1, name="two") as second:
        assert first.wait() == (0, "") and second.wait() == (0, "")
    starts = Counter(name for name, _ in started(tmp_path))
    assert len(starts) == STAGES and set(starts.values()) == {1}
    assert_restored(tmp_path, undisturbed)


def test_two_runners_of_one_run_folder(tmp_path, undisturbed):
    with Run(tmp_path, jobs=1) as first, Run(tmp_path, jobs=1) as second:
        assert first.wait() == (0, "") and second.wait() == (0, "")
    assert set(Counter(name for name, _ in started(tmp_path)).values()) == {1}
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "complete"
    assert_restored(tmp_path, undisturbed)


def test_one_runner_goes_on_with_what_a_killed_one_left(tmp_path, undisturbed):
    with Run(tmp_path, jobs=1, name="one").wait_for_start() as first, Run(tmp_path, jobs=1, name="two") as second:
        wait_until(lambda: len(started(tmp_path)) > 4)
        first.process.kill()
        assert second.wait() == (0, "")
    assert_restored(tmp_path, undisturbed)


def test_ctrl_c_leaves_no_process_and_says_how_to_go_on(tmp_path, undisturbed):
    with Run(tmp_path, jobs=1).wait_for_start() as run:  # one at a time: most is still to come
        wait_until(lambda: len(started(tmp_path)) > 1)
        family = run.descendants()
        run.process.send_signal(signal.SIGINT)
        code, err = run.wait(10)
    assert code == -signal.SIGINT and err.rstrip().endswith("KeyboardInterrupt")
    assert family and all(gone(process) for process in family)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    with Run(tmp_path) as run:
        assert run.wait() == (0, "")
    assert_restored(tmp_path, undisturbed)
