"""A short training on every device and precision: the last of the doctor's checks.

A random two-layer model learns rows that repeat one token. It must at least halve its loss in 30 steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetrial.run.machine import one_thread

if TYPE_CHECKING:
    from finetrial.run.doctor import Check
    from finetrial.tasks.encode import TokenDataset

STEPS, ROWS, LENGTH, VOCABULARY = 30, 64, 32, 16
RATE = 1e-2


def training_checks() -> Iterator[Check]:
    """One line a device and precision that torch offers here."""
    import torch
    import transformers  # noqa: F401 (before the clock starts)

    from finetrial.run.doctor import Check

    places: list[tuple[str, Literal["fp32", "bf16", "fp16"]]] = [("cpu", "fp32"), ("cpu", "bf16")]
    if torch.cuda.is_available():
        places += [("cuda", "fp32"), ("cuda", "bf16"), ("cuda", "fp16")]
    elif torch.backends.mps.is_available():
        places += [("mps", "fp32"), ("mps", "fp16")]
    for device, precision in places:
        name = f"{device} {precision}"
        started = time.monotonic()
        try:
            with one_thread():
                first, last = train_a_little(device, precision)
        except Exception as error:  # noqa: BLE001 (a device or precision that cannot train is the finding)
            yield Check(name, "fail", f"training breaks: {type(error).__name__}: {error}",
                        f"use another precision or device than {name}, or update the driver and torch")
            continue
        seconds = time.monotonic() - started
        if last < first / 2:
            yield Check(name, "ok", f"trains: loss {first:.2f} to {last:.2f} in {STEPS} steps, {seconds:.1f} s")
        else:
            yield Check(name, "fail", f"does not learn: loss {first:.2f} to {last:.2f} in {STEPS} steps",
                        f"do not trust {name} on this machine; use another precision or device")


def train_a_little(device: str, precision: Literal["fp32", "bf16", "fp16"]) -> tuple[float, float]:
    """Loss in nats per token at the first and the last step."""
    from transformers import AutoModelForCausalLM, GPT2Config

    from finetrial.methods.full import Full
    from finetrial.streams import Streams
    from finetrial.train.config import Budget, Training
    from finetrial.train.loop import train

    streams = Streams(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    with streams.torch_fork("init"):
        model = AutoModelForCausalLM.from_config(config)
    training = Training(budget=Budget(amount=STEPS, unit="steps"), sequence_length=LENGTH, batch_sequences=8,
                        evaluations=0, precision=precision)
    losses: list[float] = []

    def note(metrics: Mapping[str, Any]) -> None:
        losses.append(float(metrics["loss"]))

    train(model, [Full().attach(model, streams, "smoke")], _rows(), training, RATE, streams, device=device,
          on_metrics=note)
    return losses[0], losses[-1]


def _rows() -> TokenDataset:
    """Row i holds token i, LENGTH times."""
    from finetrial.tasks.encode import TokenDataset

    return TokenDataset(ids=np.repeat(np.arange(ROWS, dtype=np.int32) % VOCABULARY, LENGTH),
                        loss_mask=np.tile(np.arange(LENGTH) > 0, ROWS),
                        offsets=np.arange(ROWS + 1, dtype=np.int64) * LENGTH, num_bytes=np.zeros(ROWS, np.int64),
                        items=[str(row) for row in range(ROWS)], clusters=[str(row) for row in range(ROWS)])
