"""What saves memory: frozen weights held once, activation checkpointing, a base in 4 bits, AdamW in 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpu.checks import LOSS_TOLERANCE
from gpu.setting import Finding, Precision, Run, Setting, release, training

SAME_LOSSES = 1e-5  # nats per token, on a CPU: equal but for the order of sums
LIKE_FP32 = 0.2  # at the end, of half precision and of 8-bit moments
UNPACKED = 1e-3  # a loss in 4 bits against the same weights unpacked, fp32
MISSING = "not checked: bitsandbytes is not installed (pip install 'finetrial[qlora]')"


def held_once(setting: Setting) -> Iterator[Finding]:
    """In half precision a frozen matrix takes 2 bytes on the device while steps are computed, and is bit for bit what it
    was afterwards."""
    from finetrial.models import blocks, params
    from finetrial.models.load import load_base
    from finetrial.train.precision import FrozenMatrices

    for precision in _half_precisions(setting):
        model = load_base(setting.model(setting.shape)).model.to(setting.device).requires_grad_(False)
        matrices = sum(p.numel() for layer in blocks.linears(model).values() for p in layer.parameters(recurse=False))
        before, digest = _allocated(setting), params.frozen_digest(model)
        held = FrozenMatrices(model, precision, offload=True)
        with held:
            release(setting)
            saved = None if before is None else before - (_allocated(setting) or 0)
        held.restore()
        same = params.frozen_digest(model) == digest
        text = "unknown" if saved is None else f"{saved / 1e6:,.0f} MB (2 bytes of each weight: {2 * matrices / 1e6:,.0f} MB)"
        fine = same and (saved is None or saved > 1.9 * matrices)
        yield Finding(f"frozen weights held once: {precision}", fine,
                      f"saved while steps are computed: {text}; afterwards {'bit-equal' if same else 'OTHER BITS'}")
        del model, held
        release(setting)


def checkpoints(setting: Setting) -> Iterator[Finding]:
    """Checkpointing gives the same losses with fewer bytes; on CUDA as near as two runs are, whose backward pass of attention
    adds up in any order."""
    most = LOSS_TOLERANCE if setting.is_cuda else SAME_LOSSES
    for method in ("full", "lora"):
        plain, peak = _measured(setting, method=method, precision="fp32")
        found, less = _measured(setting, method=method, precision="fp32", activation_checkpointing=True)
        apart = float(np.abs(np.array(plain.losses) - np.array(found.losses)).max())
        same = plain.component.trainable_digest() == found.component.trainable_digest()
        fine = apart <= most and (peak is None or less is None or less < peak)
        yield Finding(f"checkpointing: {method}", fine, f"largest difference of a loss {apart:.1e} (at most {most:g}), weights "
                      f"{'bit-equal' if same else 'not bit-equal'}; peak {_megabytes(less)}, without {_megabytes(peak)}")
        del plain, found
        release(setting)


def four_bit(setting: Setting) -> Iterator[Finding]:
    """A base in 4 bits computes what its unpacked weights do, trains in every precision, and takes less memory."""
    from finetrial.models.load import load_base
    from finetrial.train.loss import item_losses

    if find_spec("bitsandbytes") is None:
        yield Finding("base in 4 bits", None, MISSING)
        return
    rows, folder = setting.rows(16), setting.model(setting.shape)
    load = partial(load_base, folder, quantization="nf4", device=setting.device)
    sums, counts = item_losses(load().model, rows)
    unpacked, _ = item_losses(load(dequantized=True).model.to(setting.device), rows)
    apart = float(np.abs((sums - unpacked) / counts).max())
    yield Finding("4 bits compute as unpacked", apart <= UNPACKED,
                  f"largest difference of an item {apart:.1e} nats/token (at most {UNPACKED:g})")
    release(setting)
    for precision in ("fp32", *_half_precisions(setting)):
        run, peak = _measured(setting, method="lora", precision=precision, quantization="nf4")
        losses, skipped = run.losses, run.result.skipped_steps
        fine = bool(np.isfinite(losses).all()) and losses[-1] < losses[0] and skipped < max(1, len(losses) / 4)
        yield Finding(f"QLoRA trains: {precision}", fine, f"loss {losses[0]:.3f} to {losses[-1]:.3f}; {skipped} steps skipped; "
                      f"{run.tokens_per_second(setting.warmup_steps):,.0f} tokens/s; peak {_megabytes(peak)}")
        del run
        release(setting)


def eight_bit(setting: Setting) -> Iterator[Finding]:
    """Paged AdamW in 8 bits ends near AdamW in fp32, in fp16 with the loss scaler too; a CPU refuses it."""
    from finetrial.errors import UserError

    if not setting.is_cuda:
        try:
            _measured(setting, method="lora", precision="fp32", optimizer="paged_adamw_8bit")
        except UserError as error:
            yield Finding("8-bit AdamW on a CPU is refused", True, error.problem)
        else:
            yield Finding("8-bit AdamW on a CPU is refused", False, "it was accepted")
        return
    if find_spec("bitsandbytes") is None:
        yield Finding("8-bit AdamW", None, MISSING)
        return
    for precision in ("fp32", *_half_precisions(setting)):
        plain, _ = _measured(setting, method="full", precision=precision)
        found, peak = _measured(setting, method="full", precision=precision, optimizer="paged_adamw_8bit")
        last = slice(-max(1, len(plain.losses) // 4), None)
        apart = abs(float(np.mean(plain.losses[last])) - float(np.mean(found.losses[last])))
        fewer = found.result.optimizer_bytes / plain.result.optimizer_bytes
        yield Finding(f"8-bit AdamW: {precision}", apart <= LIKE_FP32 and fewer < 0.4,
                      f"at the end {apart:.1e} from AdamW in fp32; {fewer:.2f} times its state; peak {_megabytes(peak)}")
        del plain, found
        release(setting)


def _measured(setting: Setting, **how: Any) -> tuple[Run, int | None]:
    """A run of the main model, and the peak of the device's memory; None = not read on a host."""
    from finetrial.stages.memory import MemoryMeter

    release(setting)
    meter = MemoryMeter(setting.device)
    run = training(setting, device=setting.device, shape=setting.shape, steps=setting.steps, **how)
    return run, meter.peaks()["peak_device_allocated_bytes"]


def _half_precisions(setting: Setting) -> tuple[Precision, ...]:
    return ("bf16", "fp16") if setting.is_cuda else ("bf16",)


def _allocated(setting: Setting) -> int | None:
    if not setting.is_cuda:
        return None
    import torch

    return int(torch.cuda.memory_allocated(setting.device))


def _megabytes(peak: int | None) -> str:
    return "unknown" if peak is None else f"{peak / 1e6:,.0f} MB"
