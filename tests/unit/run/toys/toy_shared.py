"""A stage that several processes compute together, of which one may fail while the others wait for it."""

from __future__ import annotations

import threading

from finetrial.stages.base import StageContext, StageKind


class ToyShared(StageKind):
    """Adds up over the processes, step by step. `raises`: (rank, text) of the one that fails after the first step."""

    parallel = True

    def run(self, context: StageContext):
        return {"sum": self._sum(context)}

    def assist(self, context: StageContext):
        self._sum(context)

    def _sum(self, context):
        import torch

        parallel, total = context.parallel, 0.0
        rank, text = context.spec.get("raises", (None, ""))
        if rank is not None:
            torch.distributed.destroy_process_group = threading.Event().wait  # as NCCL's, which waits for all
        for step in range(3):
            number = torch.tensor([float(step + parallel.rank)])
            parallel.add_up([], number)
            total += float(number)
            if parallel.rank == rank and step == 0:
                raise ValueError(text)
        return total
