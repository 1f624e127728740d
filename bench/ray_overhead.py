"""What a cluster costs beside the work: milliseconds of each phase, and the driver's time and memory for a large plan.

    python bench/ray_overhead.py phases [--num 100]
    python bench/ray_overhead.py driver [--phases 10000] [--nodes 100]

`phases` starts a Ray cluster of one node with one place on this machine and runs phases that do nothing, one after the
other, on it and with local workers: time of a phase, medians over stages that follow the first ten.

`driver` needs no ray. Simulated nodes answer at once, in random order, and write the record that a phase would have
written; so what is measured is the driver alone: its walk over the plan, its looks at the store, its status file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetrial import catalog
from finetrial.records.record import Environment, Outcome
from finetrial.run.events import StageFinished
from finetrial.run.execute import execute
from finetrial.run.executor import OpenExecutor
from finetrial.run.job import Job, make_record, utc_now
from finetrial.run.messages import Message
from finetrial.run.store import Store
from finetrial.stages.base import Chosen, Stage

PLACES_OF_NODE = 8
PRELOAD = tuple(kind.base_module for kind in catalog.KINDS.values())
HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")
NOTHING = '''from finetrial.stages.base import StageKind


class Nothing(StageKind):
    """Does no work."""

    def run(self, context):
        return {"chosen": context.spec.get("chosen")}
'''


class SimulatedNodes:
    """An executor whose jobs are done as soon as somebody asks."""

    def __init__(self, circumstances: Job, places: int) -> None:
        self._store, self._places = Store(circumstances.store, cluster=True), places
        self._jobs: list[Job] = []
        self._random = random.Random(0)
        self.seconds = 0.0  # of processor time, spent on what the nodes would have done

    def places(self) -> int:
        return self._places

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def kill(self, number: int) -> None:
        raise AssertionError("no phase of this plan is late")

    def wait(self, timeout: float) -> list[Message]:
        """The end of one job, chosen at random."""
        began = time.process_time()
        job = self._jobs.pop(self._random.randrange(len(self._jobs)))
        messages: list[Message] = []
        for order in job.orders:
            claim = self._store.claim(order.kind, order.key, job.environment)
            assert claim is not None
            with claim:
                claim.write(make_record(job, order, Outcome.OK, "", {"chosen": order.spec.get("chosen")}, utc_now(), 1.0))
            about = {"job": job.number, "stage": order.stage_id}
            messages += [{"type": "started", "micro_batch": None, **about}, {"type": "finished", **about}]
        self.seconds += time.process_time() - began
        return [*messages, {"type": "exit", "job": job.number, "status": 0, "oom_killed": False}]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None: ...


def grid(num_phases: int) -> list[Stage]:
    """A study of two phases: cells of one training and two predictions each, a selection between the phases."""
    rates, stages = [f"rate-{index}" for index in range(5)], [Stage("data", "nothing", 1, {"name": "data"})]
    seeds = range(num_phases // (2 * len(rates)))

    def phase(name: str, inputs: dict[str, Any]) -> None:
        stages.append(Stage(f"{name}/train", "nothing", 1, {"name": name}, inputs, group=name))
        stages.extend(Stage(f"{name}/{split}", "nothing", 1, {"name": f"{name}/{split}"}, {"model": f"{name}/train"}, group=name)
                      for split in ("val", "test"))

    for seed in seeds:
        for rate in rates:
            phase(f"1/{seed}/{rate}", {"data": "data"})
        stages.append(Stage(f"select/{seed}", "nothing", 1, {"name": f"select/{seed}", "chosen": rates[seed % 5]},
                            {rate: f"1/{seed}/{rate}/val" for rate in rates}))
        parent = Chosen(f"select/{seed}", {rate: f"1/{seed}/{rate}/train" for rate in rates})
        for rate in rates:
            phase(f"2/{seed}/{rate}", {"data": "data", "parent": parent})
    return stages


def driver(num_phases: int, num_nodes: int, folder: Path) -> None:
    """Print the driver's seconds and memory."""
    stages = grid(num_phases)
    pools: list[SimulatedNodes] = []

    def nodes(circumstances: Job) -> SimulatedNodes:
        pools.append(SimulatedNodes(circumstances, num_nodes * PLACES_OF_NODE))
        return pools[-1]

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = _run(stages, folder, None, nodes, Store(folder / "store", cluster=True, trusting=True), HERE, [])
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    assert result
    phases = len({stage.group for stage in stages if stage.group})
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{phases} phases, {len(stages)} stages, {num_nodes} nodes with {PLACES_OF_NODE} places each")
    print(f"driver: {used - pools[0].seconds:.0f} s of processor time, {(used - pools[0].seconds) / phases * 1e3:.1f} ms a phase; "
          f"{pools[0].seconds:.0f} s more went to writing records for the nodes; {wall:.0f} s in all")
    print(f"memory: {after.ru_maxrss / 1024:.0f} MiB at most, {before.ru_maxrss / 1024:.0f} MiB before")


def phases(num: int, folder: Path) -> None:
    """Print the milliseconds of a phase that does nothing, on this machine and on a cluster of one node."""
    from ray.cluster_utils import Cluster as OwnCluster

    from finetrial.run.lease import Lease
    from finetrial.run.local import on_this_machine
    from finetrial.run.on_ray import Cluster, RayPool

    stages = [Stage(f"phase-{index}", "nothing", 1, {"name": index}) for index in range(num)]
    own = OwnCluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    try:
        with Cluster(own.address, "cpu") as cluster, Lease(folder / "ray") as lease:
            node = cluster.describe()
            store = Store(folder / "ray", cluster=True, trusting=True)
            ray = _milliseconds(stages, folder / "on-ray", lambda _: RayPool(cluster, lease), store, node.environment)
    finally:
        own.shutdown()
    local = _milliseconds(stages, folder / "on-local", on_this_machine, Store(folder / "local", trusting=True), node.environment)
    for name, found in (("local", local), ("ray", ray)):
        quarter, half, three = statistics.quantiles(found, n=4)
        print(f"{name:6} {half:7.1f} ms a phase (quartiles {quarter:.1f} to {three:.1f}, {len(found)} phases)")
    print(f"ray costs {statistics.median(ray) - statistics.median(local):+.1f} ms a phase")


def _milliseconds(stages: Sequence[Stage], folder: Path, executor: OpenExecutor, store: Store,
                  environment: Environment) -> list[float]:
    """From the end of one stage to that of the next, without the first ten."""
    ends: list[float] = []
    assert _run(stages, folder, 1, executor, store, environment, ends)
    return [(after - before) * 1e3 for before, after in itertools.pairwise(ends[10:])]


def _run(stages: Sequence[Stage], folder: Path, jobs: int | None, executor: OpenExecutor, store: Store,
         environment: Environment, ends: list[float]) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    plugin = folder / "nothing.py"
    plugin.write_text(NOTHING, encoding="utf-8")

    def listener(event: object) -> None:
        if isinstance(event, StageFinished):
            ends.append(time.perf_counter())

    return execute(stages, store, folder, device="cpu", jobs=jobs, environment=environment, plugins=[plugin], preload=PRELOAD,
                   executor=executor, listener=listener).complete


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["phases", "driver"])
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--phases", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        if asked.what == "phases":
            phases(asked.num, Path(folder))
        else:
            driver(asked.phases, asked.nodes, Path(folder))


if __name__ == "__main__":
    main()
