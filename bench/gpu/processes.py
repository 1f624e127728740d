"""A phase in two processes, with a GPU each, that hold whole models or parts of one: is it the phase in one?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gpu.setting import Finding, Setting
from gpu.trial import study_of

TOLERANCE = 1e-3  # nats per token, after 8 steps in fp32


def same_result(setting: Setting) -> Iterator[Finding]:
    """Scores and time of a small study, trained by one process, by two, and by two that shard the model."""
    if setting.is_cuda:
        import torch

        if torch.cuda.device_count() < 2:
            yield Finding("two processes", None, "not checked: this machine has one GPU")
            return
    alone, alone_seconds = _scores(setting, 1)
    for name, shard in (("two processes", False), ("two processes, sharded", True)):
        found, seconds = _scores(setting, 2, shard)
        apart = max((abs(found[place] - value) for place, value in alone.items() if place in found), default=float("inf"))
        fine = bool(alone) and set(found) == set(alone) and apart <= TOLERANCE
        yield Finding(name, fine, f"{len(found)} of {len(alone)} scores, largest difference {apart:.1e} (at most "
                      f"{TOLERANCE:g}); {seconds:.0f} s, one process {alone_seconds:.0f} s")


def _scores(setting: Setting, processes: int, shard: bool = False) -> tuple[dict[Any, float], float]:
    """The losses of the study by their place in it, and how long it took."""
    from finetrial.run.trial import RunOptions, run_study

    started = time.monotonic()
    options = RunOptions(runs=setting.folder / f"runs-of-{processes}{'-sharded' if shard else ''}", device=setting.device,
                         processes=processes, shard=shard, jobs=1, view=False, figures=False)
    results = run_study(study_of(setting, ("full", "lora")), options).results
    found = {(row.arm, row.seed, row.phase, row.task, row.split): row.value for row in results.scores
             if row.metric == "nats-per-token" and row.value is not None}
    return found, time.monotonic() - started
