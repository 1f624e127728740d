"""Data parallelism: several processes take the steps of one run together, each with its share of the micro-batches.

Every process holds the whole model, or a part of each parameter (`sharding.py`), and finds batches, dropout and schedule
by the step's number. Gradients are summed, so all clip and step with the same numbers, and whole models stay equal bit
for bit; the result is that of one process with the same micro-batches up to the order of the sum. What a clock or a disk decides, process 0 decides. Which parameters have a
gradient is told through gloo before gradients travel by the device's own backend: a process that has died shows there
as an error, not as a wait. No torch at import: plans and runners ask `largest_micro_batch`.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

BUCKET_NUMBERS = 1 << 24  # gradients that travel at once, in numbers: 64 MB in fp32
TIMEOUT = datetime.timedelta(days=7)  # of a wait: the others validate and save meanwhile, and a death ends it at once

T = TypeVar("T")


@dataclass(frozen=True)
class DataParallel:
    """This process's place among `count`. Alone, nothing is exchanged."""

    rank: int = 0
    count: int = 1
    sharded: bool = False  # each holds a part of the model, and all take part whenever it computes

    @property
    def is_first(self) -> bool:
        """Whether this process decides, validates and writes."""
        return self.rank == 0

    def micro_batch(self, wanted: int | None, rows: int) -> int | None:
        """Rows at a time of a step of `rows`, so that every process has some; None = all of them."""
        return wanted if self.count == 1 else min(wanted or rows, largest_micro_batch(rows, self.count))

    def share(self, parts: Sequence[T]) -> Iterator[tuple[int, T | None]]:
        """This process's parts, with their numbers among all. Sharded, all have equally many: None where one has run out."""
        turns = len(parts) + (-len(parts) % self.count if self.sharded else 0)
        return ((number, parts[number] if number < len(parts) else None) for number in range(self.rank, turns, self.count))

    def add_up(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> None:
        """Sum gradients and `loss` over the processes, in place. What has a gradient nowhere keeps none; those of a
        sharded model are sums already."""
        if self.count == 1:
            return
        import torch

        every = [] if self.sharded else list(parameters)
        present = torch.tensor([True, *(parameter.grad is not None for parameter in every)], dtype=torch.uint8)
        torch.distributed.all_reduce(present, torch.distributed.ReduceOp.MAX)
        bucket, numbers = [loss], 0
        for parameter, has_gradient in zip(every, present[1:].tolist(), strict=True):
            if not has_gradient:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if numbers + parameter.numel() > BUCKET_NUMBERS:
                _add_up(bucket)
                bucket, numbers = [], 0
            bucket.append(parameter.grad)
            numbers += parameter.numel()
        _add_up(bucket)

    def first(self, value: float) -> float:
        """Process 0's value, bit for bit."""
        if self.count == 1:
            return value
        import torch

        shared = torch.tensor([value], dtype=torch.float64)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    def check_equal(self, digest: str) -> None:
        """Every process holds the same weights: to be called by all of them, with their digests."""
        if self.count == 1:
            return
        import torch

        found: list[str | None] = [None] * self.count
        torch.distributed.all_gather_object(found, digest)
        assert set(found) == {digest}, f"processes that train together hold different weights: {found}"


def largest_micro_batch(rows: int, count: int) -> int:
    """Rows of a micro-batch with which each of `count` processes has one of a step's, and the largest share is smallest."""
    assert count <= rows, f"{count} processes share a step of {rows} rows"
    if count == 1:
        return rows
    return min(-(-rows // count), (rows - 1) // (count - 1))  # more than the second: fewer micro-batches than processes


@contextlib.contextmanager
def process_group(meeting_place: Path, rank: int, count: int, device: str, *, sharded: bool = False) -> Iterator[DataParallel]:
    """The group of `count` processes of this machine that name one `meeting_place`, a file that is not there yet.

    Numbers in host memory go through gloo, on the loopback interface alone; those of CUDA devices through NCCL. The group
    is left together, at the end. After an error it is left as it is, since NCCL waits for all processes to leave, and the
    others wait for a step: this process has to end.
    """
    from torch import distributed

    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(str(meeting_place), count)  # type: ignore[attr-defined]
    distributed.init_process_group(backend_of(device), store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    yield DataParallel(rank, count, sharded)
    distributed.destroy_process_group()


def backend_of(device: str) -> str:
    """What numbers travel by, as torch names it."""
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"


def _add_up(tensors: Sequence[Tensor]) -> None:
    """Sum each over the processes, in place and in one message."""
    import torch

    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    at = 0
    for tensor in tensors:
        tensor.copy_(flat[at:at + tensor.numel()].view_as(tensor))
        at += tensor.numel()
