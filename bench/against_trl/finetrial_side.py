"""A measurement of finetrial's loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from against_trl.inputs import LORA_RANK, SEED, SLOT
from against_trl.job import Job, Outcome, between, now


def run(job: Job) -> Outcome:
    """Train as the stage `train` does, noting when each step is done."""
    import torch

    from finetrial.methods.full import Full
    from finetrial.methods.lora import Lora
    from finetrial.models.load import load_base
    from finetrial.stages.memory import MemoryMeter
    from finetrial.streams import Streams
    from finetrial.tasks.encoded import TokenDataset
    from finetrial.train.batch import pack
    from finetrial.train.config import Budget, Training
    from finetrial.train.loop import train

    torch.set_num_threads(job.threads)
    rows = TokenDataset.load(job.rows)
    memory = MemoryMeter(job.device)
    base = load_base(job.model)
    streams = Streams(SEED)
    method = Full() if job.method == "full" else Lora(rank=LORA_RANK)
    component = method.attach(base.model, streams, SLOT)
    num_rows = len(rows)
    if job.variant.packing:
        order = streams.generator("order/0").permutation(len(rows))
        num_rows = len(pack(order, rows.offsets[1:] - rows.offsets[:-1], job.sequence_length))
    steps = job.max_steps or num_rows // job.batch_sequences
    config = Training(budget=Budget(amount=steps, unit="steps"), sequence_length=job.sequence_length,
                      batch_sequences=job.batch_sequences, packing=job.variant.packing, warmup=0.0,
                      schedule="cosine", precision=job.precision, evaluations=0)
    marks = [now(job.clock)]
    tokens, losses = [0], []

    def note(metrics: Mapping[str, Any]) -> None:
        marks.append(now(job.clock))
        tokens.append(metrics["tokens"])
        losses.append(metrics["loss"])

    train(base.model, [component], rows, config, job.learning_rate, streams, device=job.device, on_metrics=note)
    return Outcome(step_tokens=tuple(int(count) for count in between(tokens)), step_seconds=between(marks),
                   losses=tuple(losses) if job.every_loss else (), peak_host_bytes=memory.peaks()["peak_host_bytes"])
