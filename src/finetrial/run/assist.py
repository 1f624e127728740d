"""One of the processes that compute a stage with a worker (`ranks.py`): `assist.py WORKER`, its part on standard input.

It says that it is ready with one byte on standard output, writes nothing but to the stage's log, and ends: with 0 if
the stage has come to any end that the worker knows of by itself, too. It ends at once, by `os._exit`: what torch takes
down as an interpreter ends may wait for the others, who wait for this process or its end.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any, NoReturn

from finetrial import catalog
from finetrial.errors import is_out_of_memory
from finetrial.run.machine import compute_with, keep_freed_memory
from finetrial.run.ranks import OUT_OF_MEMORY, Part, device_of, num_processes
from finetrial.run.remote_store import open_store
from finetrial.run.server import die_with, end_with
from finetrial.run.worker import redirect_output, stage_context
from finetrial.stages.base import Diverged, StageKind, StageTimeout
from finetrial.train.data_parallel import DataParallel, process_group


def main(arguments: list[str]) -> NoReturn:
    """Do the part and end the process."""
    end_with(lambda: _ended(arguments))


def _ended(arguments: list[str]) -> int:
    """The exit code."""
    die_with(int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    part = Part.model_validate_json(sys.stdin.buffer.read())
    ready = os.dup(1)
    redirect_output(part.job.log_file(part.job.orders[0].stage_id), part.job.log_level)
    try:
        _assist(part, ready)
    except (Diverged, StageTimeout):
        return 0  # the worker has come to the same
    except Exception as error:  # noqa: BLE001 (the process ends here: the worker sees the code, the log the reason)
        traceback.print_exc()
        return OUT_OF_MEMORY if is_out_of_memory(error) else 1
    return 0


def _assist(part: Part, ready: int) -> None:
    import torch

    job, [order] = part.job, part.job.orders
    keep_freed_memory()
    compute_with(order.threads)
    for plugin in job.plugins:
        catalog.add_file(plugin)
    kind = catalog.find("stage", order.kind)()
    assert isinstance(kind, StageKind)
    os.write(ready, b".")
    os.close(ready)
    count = num_processes(job, order)
    device = device_of(job.device, DataParallel(part.rank, count))
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    with process_group(part.meeting_place, part.rank, count, job.device, sharded=job.shard) as parallel:
        kind.assist(stage_context(job, order, open_store(job.store, cluster=job.cluster), part, {}, _unheard, parallel=parallel))


def _unheard(message: Any) -> None:
    """Rank 0 reports progress."""


if __name__ == "__main__":
    main(sys.argv[1:])
