"""A whole trial on the device through the product's runner: forked workers as it comes, and spawned ones."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from gpu.checks import LOSS_TOLERANCE
from gpu.setting import RATES, Finding, Setting

NUM_FILES = 60  # of finetrial's own source text


def trials(setting: Setting) -> Iterator[Finding]:
    """Run a small study in each way of starting workers, then again, when everything must be recorded."""
    from finetrial.run import local

    for mode, methods in (("fork", ("full", "lora")), ("spawn", ("full",))):
        pool = partial(local.LocalPool, fork=mode == "fork")
        with mock.patch.object(local, "on_this_machine", lambda job, check=None, pool=pool: pool(
                job.logs / "workers.log", preload=job.preload, check=check)):
            yield _run(setting, study_of(setting, methods), mode)
    yield _again(setting, study_of(setting, ("full", "lora")))
    yield _stacked(setting)


def _run(setting: Setting, study: Any, mode: str) -> Finding:
    from finetrial.run.options import RunOptions
    from finetrial.run.trial import run_study

    started = time.monotonic()
    options = RunOptions(runs=setting.folder / f"runs-{mode}", device=setting.device, view=False, figures=False)
    trial = run_study(study, options)
    seconds = time.monotonic() - started
    outcomes = Counter(row.outcome for row in trial.results.scores)
    costs = [row for row in trial.results.costs if row.peak_device_allocated_bytes is not None]
    fine = trial.results.status == "complete" and set(outcomes) == {"OK"} and (bool(costs) or not setting.is_cuda)
    return Finding(f"trial: {mode}ed workers", fine,
                   f"{trial.results.status} in {seconds:.0f} s, scores {dict(outcomes)}, {len(costs)} cost rows with "
                   f"device memory; logs in {trial.folder / 'logs'}")


def _again(setting: Setting, study: Any) -> Finding:
    from finetrial.run.options import RunOptions
    from finetrial.run.trial import run_study

    started = time.monotonic()
    run_study(study, RunOptions(runs=setting.folder / "runs-fork", device=setting.device, view=False, figures=False))
    seconds = time.monotonic() - started
    return Finding("trial: again, all recorded", seconds < 20, f"{seconds:.1f} s")


def _stacked(setting: Setting) -> Finding:
    """Two seeds of LoRA, whose dropout the device's generator draws, in one pass over their base, and each alone."""
    from finetrial.records.results import NATS_PER_TOKEN
    from finetrial.run.options import RunOptions
    from finetrial.run.trial import run_study

    study = study_of(setting, ("lora",), seeds=2, dropout=0.1)
    values, cells = [], []
    for stack in (2, 1):
        options = RunOptions(runs=setting.folder / f"runs-stack-{stack}", device=setting.device, stack=stack, view=False, figures=False)
        scores = run_study(study, options).results.scores
        values.append([row.value for row in scores if row.outcome == "OK" and row.metric == NATS_PER_TOKEN])
        records = [json.loads(path.read_bytes()) for path in (options.runs / ".store" / "train").rglob("record.json")]
        cells.append({record["execution"].get("stacked_cells", 1) for record in records})
    apart = max((abs(one - other) for one, other in zip(*values, strict=True)), default=math.inf)
    return Finding("trial: stacked", cells == [{2}, {1}] and apart <= LOSS_TOLERANCE,
                   f"passes of {cells[0]} and {cells[1]} cells, {len(values[0])} losses at most {apart:.1e} apart")


def study_of(setting: Setting, methods: tuple[str, ...], *plugins: Path, seeds: int = 1, **options: Any) -> Any:
    """A study of finetrial's own source text; methods, all with these options, may be those of `plugins`."""
    from finetrial.spec.io import parse_study

    text = setting.folder / "text.txt"
    text.write_text("<|endoftext|>".join(path.read_text(encoding="utf-8") for path in _sources()), encoding="utf-8")
    return parse_study({
        "name": "gpu-check", "plugins": [str(path) for path in plugins], "question": "Does a trial run on this device?",
        "bases": [{"name": "random", "source": str(setting.model("tiny"))}],
        "tasks": [{"name": "source-text", "task": {"kind": "text", "path": str(text)}, "num_val": 8, "num_test": 8}],
        "arms": [{"name": name, "components": {"kind": name, **options}, "learning_rates": [RATES.get(name, RATES["full"])]} for name in methods],
        "training": {"budget": "8 steps", "sequence_length": 128, "batch_sequences": 8, "evaluations": 2},
        "seeds": seeds, "accept_threats": ["few-seeds", "unequal-tuning"]}, "gpu-check", plugins_in=setting.folder)


def _sources() -> list[Path]:
    import finetrial

    return sorted(Path(finetrial.__file__).parent.rglob("*.py"), key=lambda path: str(path))[:NUM_FILES]
