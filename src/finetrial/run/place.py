"""Where a study's phases are computed: on this machine, or on a Ray cluster. What is computed is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetrial.errors import UserError, unknown
from finetrial.records.record import Environment
from finetrial.run.executor import OpenExecutor
from finetrial.run.lease import Lease
from finetrial.run.local import KeptPool, usable_cores
from finetrial.run.machine import free_accelerator_bytes, may_have_accelerator
from finetrial.run.options import RunOptions
from finetrial.run.provenance import environment
from finetrial.run.remote import is_url
from finetrial.run.remote_store import open_store
from finetrial.run.store import Store

PLACES = ("local", "ray")


@dataclass(frozen=True)
class Place:
    """What a run needs to know of where it computes."""

    device: str
    environment: Environment  # of its results
    store: Store
    executor: OpenExecutor
    jobs: int | None  # phases at once; None = as many as there are places
    places: Callable[[], int]  # how many that is now
    free_bytes: int | None = None  # of the GPU that phases run on; None where that is unknown, or there is none


@contextlib.contextmanager
def open_place(options: RunOptions, say: Callable[[str], None] | None = None) -> Iterator[Place]:
    """The place that the options name. Raises UserError where it cannot be used, StoreError where a cluster's driver has
    the store, MissingPackage without the package that a cluster needs."""
    if options.on not in PLACES:
        raise UserError(unknown("place to run on", options.on, PLACES), "--on local, or --on ray")
    if options.on == "local":
        if options.address is not None or options.memory_bytes is not None:
            raise UserError("an address and a memory to reserve are for a cluster", "add --on ray")
        device = resolve_device(options.device)
        store = open_store(options.store_location(), trusting=True)
        with (Lease(store.lease) if is_url(store.location) else contextlib.nullcontext() as lease,
              KeptPool(lease.check if lease is not None else None) as executor):
            yield Place(device, environment(device), store, executor, options.jobs or default_jobs(device, options.processes),
                        lambda: default_jobs(device, options.processes), free_accelerator_bytes(device))
        return
    from finetrial.run.on_ray import Cluster, RayPool

    store = open_store(options.store_location(), trusting=True, cluster=True)
    with (Lease(store.lease) as lease,  # given back last
          Cluster(options.address, options.device, options.memory_bytes, options.processes) as cluster):
        node = cluster.describe(say)
        yield Place(cluster.device, node.environment, store, lambda _: RayPool(cluster, lease), options.jobs, cluster.room,
                    node.free_bytes)


def resolve_device(wanted: str) -> str:
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises UserError for a device that is not there."""
    if wanted == "cpu" or (wanted == "auto" and not may_have_accelerator()):
        return "cpu"
    import torch

    present = ["cpu"]
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    elif torch.backends.mps.is_available():
        present.insert(0, "mps")
    if wanted == "auto":
        return present[0]
    if wanted.partition(":")[0] not in present:
        raise UserError(unknown("device", wanted, ["auto", *present]), "finetrial doctor shows what this machine has")
    return wanted


def default_jobs(device: str, processes: int = 1) -> int:
    """One phase for each core on a CPU (a phase uses one thread, so results do not depend on it), or for as many cores as
    it has processes; one on a GPU."""
    return max(1, usable_cores() // processes) if device == "cpu" else 1
