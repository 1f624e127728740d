"""A measurement of TRL's SFTTrainer, on the same model, rows, order, batch, optimizer and precision."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from against_trl.inputs import epoch_order
from against_trl.job import Job, Outcome, between, now

INSTALL = "pip install 'trl==1.16.0' 'datasets==5.2.0'"


def run(job: Job) -> Outcome:
    """Train with SFTTrainer, noting when each step is done."""
    import torch
    from trl import SFTTrainer

    from finetrial.stages.memory import MemoryMeter

    torch.set_num_threads(job.threads)
    prepared = "dataset_kwargs" in dict(job.variant.options)
    dataset = _packed_dataset(job) if prepared else _dataset(job)
    memory = MemoryMeter(job.device)
    model, tokenizer = _model(job)
    with tempfile.TemporaryDirectory() as folder:
        clock = _Clock(job.clock)
        trainer = SFTTrainer(model=model, args=_config(job, folder), train_dataset=dataset,
                             processing_class=tokenizer, callbacks=[clock.callback()])
        lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
        steps = job.max_steps or len(lengths) // job.batch_sequences
        losses = _record_losses(trainer) if job.every_loss else []
        trainer.train()
    size = job.batch_sequences
    step_tokens = [sum(lengths[step * size:(step + 1) * size]) for step in range(steps)]
    return Outcome(step_tokens=tuple(step_tokens), step_seconds=between(clock.marks),
                   losses=tuple(losses), peak_host_bytes=memory.peaks()["peak_host_bytes"])


def _config(job: Job, folder: str) -> Any:
    from trl import SFTConfig

    options = {"max_length": job.sequence_length, **dict(job.variant.options)}
    return SFTConfig(
        output_dir=folder, use_cpu=job.device == "cpu", bf16=job.precision == "bf16", fp16=job.precision == "fp16",
        per_device_train_batch_size=job.batch_sequences, max_steps=job.max_steps or -1, num_train_epochs=1,
        learning_rate=job.learning_rate, lr_scheduler_type="cosine", warmup_steps=0, optim="adamw_torch_fused",
        adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.0, max_grad_norm=1.0,
        completion_only_loss=True, train_sampling_strategy="sequential", dataloader_drop_last=True,
        dataloader_pin_memory=job.device != "cpu", report_to="none", save_strategy="no", disable_tqdm=True, **options)


def _model(job: Job) -> tuple[Any, Any]:
    """The base in fp32 without dropout and, for LoRA, the same first adapter as finetrial's."""
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(job.model)
    for name, value in config.to_dict().items():
        if (name.endswith("pdrop") or "dropout" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_pretrained(job.model, config=config, dtype=torch.float32,
                                                 attn_implementation="sdpa")
    if job.method == "lora":
        model = PeftModel.from_pretrained(model, job.adapter, is_trainable=True)
    return model, AutoTokenizer.from_pretrained(job.model)


def _dataset(job: Job) -> Any:
    """Pre-tokenised rows with a completion mask, in finetrial's order."""
    from datasets import Dataset

    rows = _rows(job)
    return Dataset.from_list([{"input_ids": ids.tolist(), "completion_mask": mask.astype(int).tolist()}
                              for ids, mask in (rows[row] for row in epoch_order(len(rows)))])


def _packed_dataset(job: Job) -> Any:
    """The rows that finetrial packs, as TRL's own packing writes them."""
    from datasets import Dataset

    from finetrial.train.batch import pack

    rows = _rows(job)
    lengths = np.asarray([len(ids) for ids, _ in rows])
    packed = []
    for documents in pack(epoch_order(len(rows)), lengths, job.sequence_length):
        ids = np.concatenate([rows[document][0] for document in documents])
        mask = np.concatenate([rows[document][1] for document in documents])
        packed.append({"input_ids": ids.tolist(), "labels": np.where(mask, ids, -100).tolist(),
                       "seq_lengths": [int(lengths[document]) for document in documents]})
    return Dataset.from_list(packed)


def _rows(job: Job) -> list[tuple[Any, Any]]:
    from finetrial.tasks.encoded import TokenDataset

    data = TokenDataset.load(job.rows)
    return [(data.ids[first:last].astype(np.int64), data.loss_mask[first:last])
            for first, last in zip(data.offsets, data.offsets[1:], strict=False)]


class _Clock:
    """Moments: the start of training and the end of each step."""

    def __init__(self, clock: str) -> None:
        self.clock = clock
        self.marks: list[float] = []

    def callback(self) -> Any:
        """A callback of transformers' Trainer."""
        from transformers import TrainerCallback

        marks, clock = self.marks, self.clock

        class Clock(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                marks.append(now(clock))

            def on_step_end(self, *_: Any, **__: Any) -> None:
                marks.append(now(clock))

        return Clock()


def _record_losses(trainer: Any) -> list[float]:
    """Every step's loss unrounded (the trainer's log rounds): what `compute_loss` returns, one micro-batch a step."""
    losses: list[float] = []
    compute = trainer.compute_loss

    def noting(*arguments: Any, **options: Any) -> Any:
        loss = compute(*arguments, **options)
        losses.append(float(loss))
        return loss

    trainer.compute_loss = noting
    return losses
