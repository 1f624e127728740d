"""One measurement: what is trained how (Job), and what came of it (Outcome). Both travel as JSON between processes.

Every measurement runs in a process of its own, so that neither side profits from what the other has loaded, compiled
or cached.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter

TIME_LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Variant:
    """One way to train: `side` is finetrial or trl, `options` go to TRL's SFTConfig, `note` says what it is."""

    name: str
    side: str
    packing: bool
    note: str
    options: tuple[tuple[str, object], ...] = ()


PACKED = Variant("finetrial", "finetrial", True, "as it comes: documents packed into rows, without cross-talk")
UNPACKED = Variant("finetrial, no packing", "finetrial", False, "one document a row, padded")
TRL_DEFAULT = Variant("TRL default", "trl", False,
                      "as it comes: one document a row, padded, activation checkpointing, chunked loss")
_NO_CHECKPOINTING = ("gradient_checkpointing", False)
_WRAPPED = (("packing", True), ("packing_strategy", "wrapped"))
TRL_TUNED = (
    Variant("TRL chunked loss", "trl", False, "without activation checkpointing; the chunked loss is always on",
            (_NO_CHECKPOINTING,)),
    Variant("TRL padding-free", "trl", False, "a batch is one long row, attention limited to documents by a mask",
            (_NO_CHECKPOINTING, ("padding_free", True), ("max_length", None))),
    Variant("TRL packing (bfd)", "trl", True, "best fit decreasing, then as padding-free",
            (_NO_CHECKPOINTING, ("packing", True), ("packing_strategy", "bfd"))),
    Variant("TRL packing (wrapped)", "trl", True, "cuts documents at row ends and lets documents see each other",
            (_NO_CHECKPOINTING, *_WRAPPED)),
    Variant("TRL compile", "trl", False, "torch.compile on padded rows", (_NO_CHECKPOINTING, ("torch_compile", True))),
    Variant("TRL compile, wrapped", "trl", True, "torch.compile on rows of one length (wrapped packing)",
            (_NO_CHECKPOINTING, ("torch_compile", True), *_WRAPPED)),
)
# For the comparison of losses: TRL on the rows that finetrial packed, in the same order.
TRL_SAME_ROWS = Variant("TRL, finetrial's rows", "trl", True, "rows packed by finetrial, given to TRL as padding-free",
                        (_NO_CHECKPOINTING, ("padding_free", True), ("max_length", None),
                         ("dataset_kwargs", {"skip_prepare_dataset": True})))
VARIANTS = (PACKED, UNPACKED, TRL_DEFAULT, *TRL_TUNED)


@dataclass(frozen=True)
class Job:
    """One run of training. The learning rate falls as a cosine from its first step; AdamW without weight decay."""

    variant: Variant
    method: str  # full or lora
    model: Path
    adapter: Path  # the adapter that LoRA starts from, in PEFT's format
    rows: Path  # tasks.encoded.TokenDataset
    sequence_length: int
    batch_sequences: int
    learning_rate: float
    precision: str
    threads: int
    device: str = "cpu"
    clock: str = "wall"  # cpu: seconds of processor time, which other load on the machine does not change much
    max_steps: int | None = None  # None: one pass over the rows, a last incomplete step left out
    every_loss: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one run came to, or why it did not run (`failure`). Tokens are real ones, padding not counted."""

    step_tokens: tuple[int, ...] = ()
    step_seconds: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()  # nats per target token, by step; only where they were asked for
    peak_host_bytes: int | None = None
    failure: str = ""

    def tokens_per_second(self, warmup_steps: int) -> float:
        """Over all steps but the first `warmup_steps`."""
        return sum(self.step_tokens[warmup_steps:]) / sum(self.step_seconds[warmup_steps:])


JOB, OUTCOME = TypeAdapter(Job), TypeAdapter(Outcome)  # to JSON and back


def now(clock: str) -> float:
    """Seconds of a clock: `wall`, or `cpu` (this process's processor time, all threads)."""
    return time.process_time() if clock == "cpu" else time.perf_counter()


def between(marks: Sequence[float]) -> tuple[float, ...]:
    """The durations between moments."""
    return tuple(after - before for before, after in pairwise(marks))


def on_one_gpu(job: Job) -> tuple[Job, dict[str, str]]:
    """The job for a process that sees one GPU, and the variable that hides the others from it: with several, transformers'
    Trainer would take them all, and each with a whole batch. A job on a CPU is left as it is."""
    if not job.device.startswith("cuda"):
        return job, {}
    number = int(job.device.partition(":")[2] or 0)
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return replace(job, device="cuda"), {"CUDA_VISIBLE_DEVICES": seen[number] if seen else str(number)}


def measure(job: Job, script: Path) -> Outcome:
    """Run `script --measure JOB` in a fresh process; a run that fails or takes too long becomes an outcome."""
    job, visible = on_one_gpu(job)
    environment = {**os.environ, **visible, "OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads),
                   "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run([sys.executable, str(script), "--measure", JOB.dump_json(job).decode()], env=environment,
                              check=False, capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return Outcome(failure=f"no result after {TIME_LIMIT_SECONDS} s")
    if done.returncode != 0:
        return Outcome(failure=_last_line(done.stderr))
    return OUTCOME.validate_json(done.stdout.splitlines()[-1])


def rounds(jobs: Sequence[Job], script: Path, num_rounds: int) -> Iterator[tuple[int, Job, Outcome]]:
    """Every job once a round, in turn (A B C A B C ...), so that the machine's other load falls on all alike.

    What failed in the first round is not run again.
    """
    failed: set[Job] = set()
    for number in range(num_rounds):
        for job in jobs:
            if job in failed:
                continue
            outcome = measure(job, script)
            if outcome.failure:
                failed.add(job)
            yield number, job, outcome


def with_losses(job: Job, variant: Variant, steps: int) -> Job:
    """The same training with another variant, for `steps` steps, noting every loss."""
    return replace(job, variant=variant, max_steps=steps, every_loss=True)


def median_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least, greatest."""
    return statistics.median(values), min(values), max(values)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(":")[0]]
    return (errors or lines or ["ended without a message"])[-1][:400]
