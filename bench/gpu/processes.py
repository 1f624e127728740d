"""A phase in two processes, with a GPU each, that hold whole models or parts of one: is it the phase in one, and does it
end where one of the two fails?
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from gpu.setting import Finding, Setting
from gpu.trial import study_of

TOLERANCE = 1e-3  # nats per token, after 8 steps in fp32
FAILURE_SECONDS = 180.0  # for a phase of which one process fails; that one waits in vain on a GPU is noticed after 60
STUMBLES = """from finetrial.methods.base import Method
from finetrial.methods.full import Full


class Stumbles(Method):
    def attach(self, model, streams, slot, instance=""):
        component = Full().attach(model, streams, slot, instance)
        component.after_step = stumble
        return component


def stumble(step):
    import torch

    if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
        raise ValueError("stumbled after step 1")
"""


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
    yield _one_fails(setting)


def _one_fails(setting: Setting) -> Finding:
    """A phase whose second process raises after the first step, when the first has gone on to the next."""
    from finetrial.run.options import RunOptions
    from finetrial.run.trial import run_study

    plugin = setting.folder / "stumbles.py"
    plugin.write_text(STUMBLES, encoding="utf-8")
    started = time.monotonic()
    trial = run_study(study_of(setting, ("stumbles",), plugin), RunOptions(
        runs=setting.folder / "runs-of-2-one-fails", device=setting.device, processes=2, jobs=1, view=False, figures=False,
        timeout_seconds=FAILURE_SECONDS))
    seconds = time.monotonic() - started
    outcomes = Counter(row.outcome for row in trial.results.scores if row.arm == "stumbles")
    logs = "".join(path.read_text(encoding="utf-8") for path in (trial.folder / "logs").glob("*.log"))
    told = "ProcessLost: process 2 of 2 failed" in logs and "stumbled after step 1" in logs
    return Finding("two processes, one fails", set(outcomes) == {"FAILED"} and told,
                   f"scores {dict(outcomes)}, {'told' if told else 'not told'} in the log, {seconds:.0f} s")


def _scores(setting: Setting, processes: int, shard: bool = False) -> tuple[dict[Any, float], float]:
    """The losses of the study by their place in it, and how long it took."""
    from finetrial.run.options import RunOptions
    from finetrial.run.trial import run_study

    started = time.monotonic()
    options = RunOptions(runs=setting.folder / f"runs-of-{processes}{'-sharded' if shard else ''}", device=setting.device,
                         processes=processes, shard=shard, jobs=1, view=False, figures=False)
    results = run_study(study_of(setting, ("full", "lora")), options).results
    found = {(row.arm, row.seed, row.phase, row.task, row.split): row.value for row in results.scores
             if row.metric == "nats-per-token" and row.value is not None}
    return found, time.monotonic() - started
