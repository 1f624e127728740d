"""What happens on a node of a Ray cluster: one task is one job, computed by a process forked for it as on one machine.

Ray starts its worker processes here and gives them one task after the other. Each keeps a server with the libraries
imported (`server.py`), so that a task costs a fork. The server ends with the worker process, and kills what it forked:
however Ray ends a worker, whether it cancels the task, loses its driver, or the node dies, nothing is left behind.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetrial import __version__
from finetrial.errors import UserError
from finetrial.records.record import Environment
from finetrial.run.job import Job
from finetrial.run.lease import LEASE_FILE, holds
from finetrial.run.local import LocalPool
from finetrial.run.machine import child_environment, free_accelerator_bytes
from finetrial.run.messages import Message
from finetrial.run.provenance import environment
from finetrial.run.remote import is_url
from finetrial.run.remote_store import open_store

PROGRESS_SECONDS = 1.0  # of a stage, at most this often: a driver listens to many nodes
LOG_BYTES = 1 << 20  # of a log that is told: its end
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Node:
    """What results from a node are like."""

    host: str
    version: str  # of finetrial
    environment: Environment
    free_bytes: int | None = None  # of its GPU


@dataclass(frozen=True)
class _Server:
    """What this process forks workers from, and the GPUs that they see."""

    pool: LocalPool
    preload: tuple[str, ...]
    visible: str | None


_servers: list[_Server] = []  # at most one: a worker process has one task at a time


def describe(device: str) -> Node:
    """This node, as phases on `device` find it. In a process of its own: the asking may load torch and a GPU's driver."""
    command = [sys.executable, "-P", "-m", __name__, device]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=child_environment(),
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{platform.node()} cannot compute on {device}: {lines[-1]}",
                        f"run finetrial doctor on {platform.node()}", code="cluster")
    return Node(platform.node(), __version__, Environment.model_validate_json(done.stdout.splitlines()[-1]),
                free_accelerator_bytes(device))


def run_phase(line: str, token: str, version: str) -> Iterator[list[Message]]:
    """Compute the job that `line` holds as JSON, and yield what its process says, ending with its exit.

    `token`: what the store is leased under. Where this node is none that the results may come from, the only message is
    `broken`.
    """
    job = Job.model_validate_json(line)
    try:
        _require(job.store, job.logs, job.device, job.environment.model_dump_json(), token, version)
        if is_url(job.store) and not job.logs.is_dir():
            job = job.model_copy(update={"logs": open_store(job.store).root / "logs"})
            yield from _with_logs(job)
        else:
            yield from _computed(job)
    except UserError as error:
        yield [{"type": "broken", "job": job.number, "problem": error.problem, "mend": error.mend}]


def _computed(job: Job) -> Iterator[list[Message]]:
    pool = _pool(job)
    pool.start(job)
    yield from _said(pool)


def _with_logs(job: Job) -> Iterator[list[Message]]:
    """The same where the run's folder is not to be seen from here: logs are kept beside, and told before what ends a stage."""
    paths = [job.log_file(order.stage_id) for order in job.orders]
    for path in paths:
        path.unlink(missing_ok=True)
    told = dict.fromkeys(paths, 0)
    for messages in _computed(job):
        if any(message["type"] not in ("started", "progress") for message in messages):
            yield [{"type": "log", "job": job.number, "name": path.name, "text": text} for path in paths if (text := _news(path, told))]
        yield messages


def _news(path: Path, told: dict[Path, int]) -> str:
    """What a log has that was not told; of very much the end."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(told[path], size - LOG_BYTES))
        text = file.read()
        told[path] = file.tell()
    return text.decode("utf-8", errors="replace")


def _said(pool: LocalPool) -> Iterator[list[Message]]:
    """All messages of the one job, signs of life not too often."""
    shown = -PROGRESS_SECONDS
    while pool.jobs:
        messages = []
        for message in pool.wait(PROGRESS_SECONDS):
            if message["type"] == "progress":
                if time.monotonic() - shown < PROGRESS_SECONDS:
                    continue
                shown = time.monotonic()
            messages.append(message)
        if messages:
            yield messages


def _pool(job: Job) -> LocalPool:
    """The server of this process. Ray may give a task other GPUs than the last one had: then it is another server."""
    visible = os.environ.get(VISIBLE)
    if _servers and (_servers[0].preload, _servers[0].visible) != (job.preload, visible):
        _servers.pop().pool.close()
    if not _servers:
        log = job.logs / f"workers-{platform.node()}.log"
        _servers.append(_Server(LocalPool(log, preload=job.preload), job.preload, visible))
    return _servers[0].pool


@functools.lru_cache(maxsize=4)  # once for each run, not for each phase
def _require(location: str, logs: Path, device: str, expected: str, token: str, version: str) -> None:
    """Raises UserError where a phase of this run must not be computed on this node."""
    host = platform.node()
    if version != __version__:
        raise UserError(f"{host} has finetrial {__version__}, and the run was started with {version}",
                        "install the same version on every node", code="cluster")
    store = open_store(location, cluster=True)
    if not holds(store.lease, token):
        raise UserError(f"{host} does not see the store {location} of this run (there is no {LEASE_FILE} of its own)",
                        "name folders that every node mounts under the same path: --runs DIR, --store DIR; or a store that all reach: --store URL", code="cluster")
    if is_url(location):
        store.prepare()  # this machine's copies
    elif not logs.is_dir():
        raise UserError(f"{host} does not see the run's folder {logs.parent}",
                        "name a folder that every node mounts under the same path: --runs DIR", code="cluster")
    wanted, here = Environment.model_validate_json(expected), describe(device).environment
    if here != wanted:
        differ = [f"{name} {getattr(here, name)!r} instead of {value!r}" for name, value in wanted.model_dump().items()
                  if getattr(here, name) != value]
        raise UserError(f"{host} would give results of another environment class: {', '.join(differ)}",
                        "run on nodes of one kind, with the same packages: results of different ones are never mixed",
                        code="cluster")


def main(arguments: list[str]) -> int:
    """Print the environment class of a device as one line of JSON."""
    print(json.dumps(environment(arguments[0]).model_dump(mode="json")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
