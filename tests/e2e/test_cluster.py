"""A tiny study on a Ray cluster of several nodes on this machine: nodes die, the driver is stopped, the answers stay."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from ray_runs import Nodes, command, records, scores, values
from tiny_study import tiny_content

from finetrial.run.lease import LEASE_FILE
from finetrial.run.node_cache import FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.skipif(importlib.util.find_spec("ray") is None,
                                                   reason="ray is not installed: pip install 'finetrial[ray]'")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
_drivers: list[subprocess.Popen[str]] = []  # that were started


def workers(nodes):
    """Processes of ours that nodes have started."""
    found = []
    for node in nodes.alive:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                found += [process] if "finetrial.run.server" in process.cmdline() else []
    return found


@pytest.fixture(scope="module")
def nodes():
    cluster = Nodes()
    yield cluster
    for driver in _drivers:
        driver.kill()  # nothing, unless a test has failed
    cluster.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "study.yaml").write_text(yaml.safe_dump(tiny_content(folder)))
    return folder


def start(folder, runs, *options):
    _drivers.append(subprocess.Popen(command(folder, runs, *options), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True))
    return _drivers[-1]


def ended(process, code=0):
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, f"{out}\n{err}"
    return err


def wait_for(process, true):
    while not true():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_nodes_are_killed_while_a_study_runs(nodes, folder):
    for _ in range(3):
        nodes.add()
    run = start(folder, "cluster", "--on", "ray", "--address", nodes.address)
    kept = {}
    for least in (6, 15):
        wait_for(run, lambda n=least: len(records(folder, "cluster")) >= n)
        kept |= records(folder, "cluster")
        nodes.kill()
    ended(run)
    after = records(folder, "cluster")
    assert {path: after[path] for path in kept} == kept, "a recorded stage was computed again"
    ended(start(folder, "local", "--jobs", "1"))
    assert values(folder, "cluster") == values(folder, "local")
    assert scores(folder, "cluster") == scores(folder, "local")
    status = json.loads((folder / "cluster" / "tiny-custom-small" / "status.json").read_text())
    assert status["state"] == "complete" and list((folder / "cluster" / "tiny-custom-small" / "logs").glob("train__*.log"))
    report = subprocess.run([sys.executable, "-m", "finetrial.cli", "report", "tiny-custom-small", "--runs", str(folder / "cluster")],
                            env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stderr


def test_ctrl_c_leaves_no_process_and_the_next_run_goes_on(nodes, folder):
    if not nodes.alive:
        nodes.add()
    again = ("again", "--on", "ray", "--address", nodes.address)
    run = start(folder, *again)
    wait_for(run, lambda: len(records(folder, "again")) >= 5 and workers(nodes))
    ours = workers(nodes)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    psutil.wait_procs(ours, timeout=30)
    assert not [process for process in ours if alive(process)]
    assert not (folder / "again" / ".store" / LEASE_FILE).exists()
    kept = records(folder, "again")
    ended(start(folder, *again))
    assert {path: found for path, found in records(folder, "again").items() if path in kept} == kept


def alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def finetrial(*arguments):
    done = subprocess.run([sys.executable, "-m", "finetrial.cli", *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_store_that_is_no_folder(nodes, folder, monkeypatch):
    """Nodes are killed meanwhile; another machine then finds all of it, and can report, plan and free."""
    monkeypatch.setenv(FOLDER, str(folder / "nodes"))  # of those that are added now
    monkeypatch.setitem(ENVIRONMENT, FOLDER, str(folder / "driver"))
    while nodes.alive:
        nodes.kill()
    url, objects = f"file://{folder / 'bucket'}", folder / "bucket"
    for _ in range(2):
        nodes.add()
    run = start(folder, "remote", "--on", "ray", "--address", nodes.address, "--store", url)
    wait_for(run, lambda: len(list(objects.glob("records/*/??/*.json"))) >= 6)
    nodes.kill()
    kept = {path: path.stat().st_mtime_ns for path in objects.glob("records/*/??/*.json")}
    ended(run)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a recorded stage was computed again"
    ended(start(folder, "plain", "--jobs", "1"))
    assert scores(folder, "remote") == scores(folder, "plain") and not (objects / LEASE_FILE).exists()
    monkeypatch.setitem(ENVIRONMENT, FOLDER, str(folder / "another machine"))
    results = folder / "remote" / "tiny-custom-small" / "results.json"
    before = json.loads(results.read_text())["scores"]
    finetrial("report", "tiny-custom-small", "--runs", folder / "remote")
    assert json.loads(results.read_text())["scores"] == before
    assert list(folder.glob("another machine/*/predict/*/*/predictions.parquet"))
    assert "nothing is left to do" in finetrial("plan", folder / "study.yaml", "--runs", folder / "remote", "--store", url, "--device", "cpu")
    assert "nothing to free" in finetrial("gc", "--runs", folder / "remote", "--store", url)
    with pytest.raises(AssertionError, match="no run below"):  # of the runs there none names this store
        finetrial("gc", "--runs", folder / "plain", "--store", url)
