"""Run on a Ray cluster: every job is a Ray task with the resources of its phases, started on any node that has them.

The driver stays one process that walks the plan, looks up and decides, as on one machine. A task is a generator: it
yields what its worker says, and Ray's own report of a task that was lost stands for the exit of one whose node is gone.
Ray is never asked to retry: a job that is lost comes back to the runner, which looks at what had been recorded.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from signal import SIGKILL
from types import ModuleType, TracebackType
from typing import Any, Self

from finetrial import __version__
from finetrial.errors import MissingPackage, UserError
from finetrial.run import on_node
from finetrial.run.job import Job
from finetrial.run.lease import Lease
from finetrial.run.messages import Message

LOOK_SECONDS = 5.0  # between two looks at the nodes of the cluster
PATIENCE_SECONDS = 10.0  # for the first node, before we say that we wait
CLOSING_SECONDS = 20.0


@dataclass(frozen=True)
class Needs:
    """What a phase reserves: cores, GPUs, bytes of main memory (None = it is not counted)."""

    cpus: int = 1
    gpus: int = 0
    memory_bytes: int | None = None

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many such phases a node with these resources has room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes or 0}
        return math.floor(min(resources.get(name, 0.0) / count for name, count in wanted.items() if count))

    def options(self) -> dict[str, Any]:
        """As Ray's task options."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **({"memory": self.memory_bytes} if self.memory_bytes else {})}

    def __str__(self) -> str:
        parts = [f"{self.cpus} CPU", f"{self.gpus} GPU" if self.gpus else "",
                 f"{self.memory_bytes / 1e9:.1f} GB of memory" if self.memory_bytes else ""]
        return ", ".join(part for part in parts if part)


class Cluster:
    """A connection to a Ray cluster. Leaving its context ends it, and whatever still runs for it."""

    def __init__(self, address: str | None, device: str, memory_bytes: int | None = None, processes: int = 1) -> None:
        """`address`: `host:port`; None = RAY_ADDRESS, or the cluster that this machine is a node of. `device` "auto" takes
        CUDA where the cluster has GPUs. Raises MissingPackage without ray, UserError where there is no such cluster."""
        self.ray = _connected(address)
        try:
            self.device = self._device(device)
            self.needs = Needs(processes, processes * int(self.device == "cuda"), memory_bytes)
            self._looked, self._places, self._alone = -LOOK_SECONDS, 0, ""
            if self.room() < 1:
                raise UserError(f"no node of the cluster has what a phase needs: {self.needs}",
                                f"it has: {self._has()}; change --device or --memory, or add such nodes", code="cluster")
        except BaseException:
            self.ray.shutdown()
            raise

    def describe(self, say: Callable[[str], None] | None = None) -> on_node.Node:
        """What the results of a node are like. Waits until one has a place for a phase."""
        task = self.ray.remote(**self.needs.options(), max_retries=3)(on_node.describe).remote(self.device)
        ready, _ = self.ray.wait([task], timeout=PATIENCE_SECONDS)
        if not ready and say is not None:
            say(f"waiting for a node of the cluster with a free place ({self.needs})")
        try:
            node: on_node.Node = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            raise explained(self.ray, error) from error
        return node

    def room(self) -> int:
        """How many phases the nodes that are alive can hold at once."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._places = sum(max(0, self.needs.fits(resources)) for resources in self._nodes())
        return self._places

    def whole_node(self) -> dict[str, Any]:
        """The options of a task that must have a node to itself: all cores of the largest that suits it, and of the same one
        as long as it lives, since what is measured on two of them may not compare."""
        cores = {node["NodeID"]: (int(node["Resources"].get("CPU", 0)), node.get("NodeManagerHostname", ""))
                 for node in self._alive() if self.needs.fits(node["Resources"]) >= 1}
        if not cores:  # until a node comes back
            return self.needs.options()
        if self._alone not in cores:
            self._alone = max(cores, key=lambda node: (*cores[node], node))
        scheduling = importlib.import_module("ray.util.scheduling_strategies")
        return {**self.needs.options(), "num_cpus": cores[self._alone][0],
                "scheduling_strategy": scheduling.NodeAffinitySchedulingStrategy(self._alone, soft=True)}

    def close(self) -> None:
        """Leave the cluster. Ray ends what still runs for us."""
        self.ray.shutdown()

    def _alive(self) -> list[Mapping[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._alive()]

    def _device(self, wanted: str) -> str:
        if wanted == "auto":
            return "cuda" if any(resources.get("GPU") for resources in self._nodes()) else "cpu"
        if wanted not in ("cpu", "cuda"):
            raise UserError(f"--device {wanted} is not for a cluster", "its nodes compute on cpu or cuda", code="cluster")
        return wanted

    def _has(self) -> str:
        nodes = [Needs(int(found.get("CPU", 0)), int(found.get("GPU", 0)), int(found.get("memory", 0)))
                 for found in self._nodes()]
        return "; ".join(map(str, nodes)) or "no node that is alive"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()


class RayPool:
    """The executor of a cluster."""

    def __init__(self, cluster: Cluster, lease: Lease) -> None:
        self._cluster, self._ray, self._lease = cluster, cluster.ray, lease
        self._phase = self._ray.remote(num_returns="streaming", max_retries=0)(on_node.run_phase)
        self._tasks: dict[Any, int] = {}  # generator of messages -> number of the job

    def places(self) -> int:
        """As many phases as the nodes have room for. Where all nodes are gone, one waits for the first to come back."""
        return max(1, self._cluster.room())

    def start(self, job: Job) -> None:
        """Submit a job as a task. Ray starts it as soon as a node has its resources."""
        options = self._cluster.whole_node() if job.exclusive else self._cluster.needs.options()
        threads = max((order.threads for order in job.orders), default=1)
        options |= {"num_cpus": max(options["num_cpus"], threads * job.processes), "name": job.orders[0].stage_id}
        task = self._phase.options(**options).remote(job.model_dump_json(), self._lease.token, __version__)
        self._tasks[task] = job.number
        self._logs = job.logs

    def kill(self, number: int) -> None:
        """Kill the worker process that has the job; what it started dies with it."""
        for task in [task for task, job in self._tasks.items() if job == number]:
            self._ray.cancel(task, force=True)

    def wait(self, timeout: float) -> list[Message]:
        """Messages of all tasks. Raises UserError where a node cannot take part, StoreError if the lease is lost."""
        self._lease.check()
        if not self._tasks:
            time.sleep(timeout)
            return []
        found: list[Message] = []
        for task in self._ready(timeout):
            found += self._next(task)
        return found

    def close(self) -> None:
        """Cancel what still runs, and wait until Ray has ended it."""
        for number in list(self._tasks.values()):
            self.kill(number)
        deadline = time.monotonic() + CLOSING_SECONDS
        while self._tasks and time.monotonic() < deadline:
            for task in self._ready(1.0):
                with contextlib.suppress(UserError):  # the run ends anyway, for a reason of its own
                    self._next(task)
        self._tasks.clear()

    def _ready(self, timeout: float) -> list[Any]:
        """The tasks that have something to say."""
        tasks = list(self._tasks)
        ready, _ = self._ray.wait(tasks, timeout=timeout, fetch_local=False)
        if not ready:
            return []
        every, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0, fetch_local=False)
        return list(every)

    def _next(self, task: Any) -> list[Message]:
        """What a task that is ready says next."""
        number = self._tasks[task]
        try:
            messages: list[Message] = self._ray.get(next(task))
        except StopIteration:
            del self._tasks[task]
            return []
        except self._ray.exceptions.RayError as error:
            del self._tasks[task]
            return [self._lost(number, error)]
        for message in messages:
            if message["type"] == "broken":
                raise UserError(message["problem"], message["mend"], code="cluster")
            if message["type"] == "log":
                with (self._logs / message["name"]).open("a", encoding="utf-8") as file:
                    file.write(message["text"])
        return [message for message in messages if message["type"] != "log"]

    def _lost(self, number: int, error: Any) -> Message:
        """The exit of a worker that cannot report it."""
        exceptions = self._ray.exceptions
        out_of_memory = isinstance(error, exceptions.OutOfMemoryError)
        cancelled = isinstance(error, exceptions.TaskCancelledError)
        if isinstance(error, exceptions.RayTaskError) and not cancelled:
            raise explained(self._ray, error) from error
        lost = "" if out_of_memory or cancelled else f"lost on the cluster: {type(error).__name__}"
        return {"type": "exit", "job": number, "status": -SIGKILL, "oom_killed": out_of_memory, "lost": lost}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()


def explained(ray: ModuleType, error: Exception) -> UserError:
    """What a node could not do, for people."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return cause
    last = (str(cause or error).strip().splitlines() or [type(error).__name__])[-1]
    return UserError(f"a node of the cluster cannot run phases: {last}",
                     f"install finetrial {__version__} on every node, in the Python that Ray runs there", code="cluster")


def _connected(address: str | None) -> ModuleType:
    """Ray, connected."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise MissingPackage("ray", "running on a cluster", extra="ray") from error
    if address is not None and address.startswith("ray://"):
        raise UserError(f"--address {address} is a Ray Client's, which cannot follow phases",
                        "start the run on a node of the cluster, or submit it: ray job submit -- finetrial run ...",
                        code="cluster")
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"at {address}" if address else "that this machine is a node of"
        raise UserError(f"there is no Ray cluster {where}: {' '.join(str(error).split())[:200]}",
                        "start one: ray start --head, and on other machines ray start --address HOST:PORT", code="cluster",
                        ) from error
    return ray
