from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finetrial.errors import StoreError
from finetrial.run import lease
from finetrial.run.garbage import remove
from finetrial.run.lease import LEASE_FILE, Lease, holds, require_free
from finetrial.run.locks import is_locked
from finetrial.run.store import Store


def write(root, **held):
    (root / LEASE_FILE).write_text(json.dumps({"token": "theirs", "host": "elsewhere", "pid": 1, **held}))


def ended():
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_store_has_one_driver_of_a_cluster_and_no_other_runner(tmp_path):
    with Lease(tmp_path) as mine:
        assert holds(tmp_path, mine.token)
        for other in (Lease, lambda root: Store(root).prepare(), lambda root: remove([], root, root)):
            with pytest.raises(StoreError, match=f"in use by process {os.getpid()} on {platform.node()}"):
                other(tmp_path)
        Store(tmp_path, cluster=True).prepare()
        mine.check()
    assert not holds(tmp_path, mine.token)
    Store(tmp_path).prepare()


def test_a_driver_that_is_dead_on_this_machine_holds_nothing(tmp_path):
    write(tmp_path, host=platform.node(), pid=ended())
    with Lease(tmp_path) as mine:
        assert holds(tmp_path, mine.token)


@pytest.mark.parametrize("moment", ["read_bytes", "rename"])
def test_of_two_who_find_a_dead_driver_one_wins(tmp_path, monkeypatch, moment):
    """The other one takes the store while this one is about to remove what the dead driver left."""
    write(tmp_path, host=platform.node(), pid=ended())
    others, real = [], getattr(Path, moment)

    def act(path, *arguments):
        if path.name == LEASE_FILE and not others:
            others.append(None)
            if moment == "read_bytes":  # this one goes on with what it read before
                found = real(path, *arguments)
                others.append(Lease(tmp_path))
                return found
            others.append(Lease(tmp_path))
        return real(path, *arguments)

    monkeypatch.setattr(Path, moment, act)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        Lease(tmp_path)
    with others[1] as winner:
        assert holds(tmp_path, winner.token) and [path.name for path in tmp_path.iterdir()] == [LEASE_FILE]


def test_processes_of_another_container_are_not_ours(tmp_path):
    write(tmp_path, host=platform.node(), pid=ended(), pids="pid:[1]")
    with pytest.raises(StoreError, match="in use"):
        Lease(tmp_path)


def test_elsewhere_its_age_tells(tmp_path):
    write(tmp_path)
    with pytest.raises(StoreError, match="process 1 on elsewhere"):
        Lease(tmp_path)
    old = (tmp_path / LEASE_FILE).stat().st_mtime - lease.STALE_SECONDS - 1
    os.utime(tmp_path / LEASE_FILE, (old, old))
    with Lease(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LEASE_FILE]


def test_a_lease_that_cannot_be_read_is_held(tmp_path):
    (tmp_path / LEASE_FILE).write_text("{")
    with pytest.raises(StoreError, match="in use"):
        require_free(tmp_path)


def test_a_lease_is_renewed_and_its_loss_noticed(tmp_path, monkeypatch, until_it_raises):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with Lease(tmp_path) as mine:
        os.utime(tmp_path / LEASE_FILE, (0, 0))
        while (tmp_path / LEASE_FILE).stat().st_mtime == 0:
            mine.check()
        write(tmp_path)
        with pytest.raises(StoreError, match="taken over by another run"):
            until_it_raises(mine.check)
    assert holds(tmp_path, "theirs")


def test_a_renewal_that_fails_is_tried_again_until_the_lease_is_stale(tmp_path, monkeypatch, until_it_raises):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    tried, fault = threading.Semaphore(0), StoreError("the store cannot be used")
    answers = [fault, OSError("no answer"), fault, None]

    def renew(place, content):
        tried.release()
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is not None:
            raise answer

    monkeypatch.setattr(lease.InFolder, "renew", renew)
    with Lease(tmp_path) as mine:
        for _ in range(6):
            assert tried.acquire(timeout=10)
        mine.check()
        answers[0] = fault
        monkeypatch.setattr(lease, "STALE_SECONDS", 0.0)
        with pytest.raises(StoreError, match="cannot be reached any more"):
            until_it_raises(mine.check)


def test_a_lease_whose_renewal_hangs_is_looked_at(tmp_path, monkeypatch):
    with Lease(tmp_path) as mine:
        monkeypatch.setattr(lease, "STALE_SECONDS", -1.0)
        mine.check()  # nobody took it
        write(tmp_path)
        with pytest.raises(StoreError, match="taken over by another run"):
            mine.check()


def test_nodes_take_no_locks_and_what_they_left_is_swept(tmp_path, environment, make_record):
    store = Store(tmp_path, cluster=True)
    store.prepare()
    left = store.claim("toy", "ab" * 16, environment)
    claim = store.claim("toy", "ab" * 16, environment)  # the driver gave it to another node
    assert left.folder != claim.folder and not is_locked(tmp_path / "locks" / f"{'ab' * 16}-{environment.key()}")
    with claim:
        claim.write(make_record())
    assert store.lookup("toy", "ab" * 16, environment) is not None
    Store(tmp_path).prepare()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_record_of_a_node_that_was_given_up_is_replaced(tmp_path, environment, make_record):
    store = Store(tmp_path, cluster=True)
    store.prepare()
    first, second = (store.claim("toy", "ab" * 16, environment) for _ in range(2))
    for claim, seconds in ((first, 1.0), (second, 2.0)):
        with claim:
            claim.write(make_record(seconds=seconds))
    assert store.lookup("toy", "ab" * 16, environment).record.seconds == 2.0
    assert list((tmp_path / "tmp").iterdir()) == []
