"""Does the device train, predict and resume as the CPU does, and at what speed and memory?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from against_trl import inputs
from against_trl.job import PACKED, TRL_DEFAULT, TRL_TUNED, Job, measure
from gpu.setting import BATCH, RATES, SEQUENCE_LENGTH, Finding, Precision, Run, Setting, release, training

LOSS_TOLERANCE, LOSS_STEPS = 1e-3, 20  # fp32 on both devices, nats per token
PRECISION_TOLERANCE = 0.2  # bf16 and fp16 against fp32 on one device; fp16 skips a few steps at first
PREDICTION_TOLERANCE = 1e-4
STOPPED_AT = 11


def facts(setting: Setting) -> Iterator[Finding]:
    """What the device is, and whether somebody else is using it."""
    import torch

    yield Finding("torch", None, f"{torch.__version__}, CUDA {torch.version.cuda}, {torch.get_num_threads()} threads")
    if not setting.is_cuda:
        yield Finding("device", None, setting.device)
        return
    device = torch.cuda.get_device_properties(setting.device)
    free, total = torch.cuda.mem_get_info(setting.device)
    yield Finding("device", None, f"{device.name}, capability {device.major}.{device.minor}, "
                  f"{device.multi_processor_count} multiprocessors, {total / 1e9:.1f} GB")
    yield Finding("memory free at the start", free > 0.9 * total, f"{free / 1e9:.1f} of {total / 1e9:.1f} GB (another "
                  "process on the device would spoil the figures below)")
    yield Finding("bf16", None, f"torch says supported: {torch.cuda.is_bf16_supported()}")
    yield Finding("fp32 products", None, f"precision {torch.get_float32_matmul_precision()!r}, TF32 in products: "
                  f"{torch.backends.cuda.matmul.allow_tf32}")
    yield Finding("CUBLAS_WORKSPACE_CONFIG", None, os.environ.get("CUBLAS_WORKSPACE_CONFIG", "not set"))


def trains(setting: Setting) -> Iterator[Finding]:
    """Every method in every precision: finite, falling losses near those of fp32; skipped steps; speed; memory."""
    for method in RATES:
        reference: list[float] = []
        for precision in _precisions(setting):
            run, peak = _timed(setting, method, precision)
            losses, skipped = run.losses, run.result.skipped_steps
            reference = reference or losses
            last = slice(-max(1, len(losses) // 4), None)
            apart = abs(float(np.mean(losses[last])) - float(np.mean(reference[last])))
            finite = bool(np.isfinite(losses).all())
            text = (f"loss {losses[0]:.3f} to {losses[-1]:.3f}, at the end {apart:.1e} from fp32; {skipped} of "
                    f"{len(losses)} steps skipped; {run.tokens_per_second(setting.warmup_steps):,.0f} tokens/s; {peak}")
            fine = finite and losses[-1] < losses[0] and apart <= PRECISION_TOLERANCE
            fine = fine and (skipped < len(losses) / 4 if precision == "fp16" else skipped == 0)
            yield Finding(f"trains: {method}, {precision}", fine, text)
            del run
            release(setting)
    if not setting.is_cuda:
        yield _refuses_fp16(setting)


def same_losses(setting: Setting) -> Iterator[Finding]:
    """The curve of the device against the CPU's, from the same weights, rows and order, in fp32."""
    for method in RATES:
        there, here = (np.array(training(setting, device=device, shape="tiny", method=method, precision="fp32",
                                         steps=LOSS_STEPS).losses) for device in ("cpu", setting.device))
        apart = float(np.abs(there - here).max())
        yield Finding(f"losses as on the CPU: {method}", apart <= LOSS_TOLERANCE,
                      f"largest difference {apart:.1e} over {LOSS_STEPS} steps (at most {LOSS_TOLERANCE:g})")


def resumes(setting: Setting) -> Iterator[Finding]:
    """Two runs are alike, and so is a run that was stopped and resumed from its checkpoint: bit-equal on a CPU; on CUDA, whose
    backward pass of attention adds up in any order, with losses that are as near as those of two devices."""
    from finetrial.train.checkpoint import Checkpoints

    class Stopped(Exception):
        pass

    def stop(step: int) -> None:
        if step == STOPPED_AT:
            raise Stopped

    cases: tuple[tuple[str, Precision], ...] = (("full", "fp32"), ("lora", "fp32"), ("full", "bf16"), ("full", "fp16"))
    for method, precision in cases:
        if precision not in _precisions(setting):
            continue
        run = partial(training, setting, device=setting.device, shape="tiny", method=method, precision=precision,
                      steps=LOSS_STEPS)
        first, second = run(), run()
        yield Finding(f"repeats: {method}, {precision}", *_alike(setting, first, second))
        checkpoints = Checkpoints(setting.folder / f"checkpoint-{method}-{precision}", every_seconds=0.0)
        try:
            run(checkpoints=checkpoints, stop=stop)
        except Stopped:
            resumed = run(checkpoints=checkpoints)
            same, how = _alike(setting, first, resumed)
            began = int(resumed.metrics[0]["step"])
            yield Finding(f"resumes: {method}, {precision}", same and began == STOPPED_AT,
                          f"stopped at step {STOPPED_AT}, went on with step {began}; with the undisturbed run {how}")
        else:
            yield Finding(f"resumes: {method}, {precision}", False, "the run was not stopped")


def _alike(setting: Setting, one: Run, other: Run) -> tuple[bool, str]:
    """Whether two runs of training came to the same, as far as the second has losses, and how near they are."""
    if one.component.trainable_digest() == other.component.trainable_digest():
        return True, "bit-equal"
    apart = float(np.abs(np.array(one.losses)[-len(other.losses):] - np.array(other.losses)).max())
    return setting.is_cuda and apart <= LOSS_TOLERANCE, f"other bits, losses at most {apart:.1e} apart"


def predicts(setting: Setting) -> Iterator[Finding]:
    """The loss of every item, in nats per token, as on the CPU."""
    from finetrial.models.load import load_base
    from finetrial.train.loss import item_losses

    rows = setting.rows(16 if setting.dry else 64)
    model = load_base(setting.model(setting.shape)).model
    sums, counts = item_losses(model, rows)
    here, _ = item_losses(model.to(setting.device), rows)
    apart = float(np.abs((sums - here) / counts).max())
    yield Finding("predictions as on the CPU", apart <= PREDICTION_TOLERANCE,
                  f"largest difference of an item {apart:.1e} nats/token (at most {PREDICTION_TOLERANCE:g})")
    del model
    release(setting)


def masked_attention(setting: Setting) -> Iterator[Finding]:
    """Gradients under a mask in 16 bits, with the kernels that the product chooses: the case of pytorch#196678."""
    import torch

    from finetrial.models.load import load_base

    load_base(setting.model("tiny"))
    length, width = 704, 64
    parts = [0.1 * torch.randn(1, 1, length, width, device=setting.device, dtype=torch.bfloat16) for _ in range(3)]
    parts[0][..., 0], parts[1][..., 0] = 1.0, -120 * width**0.5  # the sums of scores underflow
    query, key, value = (part.requires_grad_() for part in parts)
    mask = torch.full((1, 1, length, length), float("-inf"), device=setting.device, dtype=torch.bfloat16).triu_(1)
    torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()
    bad = sum(int((~part.grad.isfinite()).sum()) for part in (query, key, value) if part.grad is not None)
    yield Finding("attention under a mask, bf16", bad == 0, f"{bad} gradients are no numbers; cuDNN's attention is "
                  f"{'on' if torch.backends.cuda.cudnn_sdp_enabled() else 'off'}")


def meters(setting: Setting) -> Iterator[Finding]:
    """The memory meter against what full fine-tuning in fp32 must need: 16 bytes a parameter."""
    from finetrial.models.params import count
    from finetrial.stages.memory import MemoryMeter

    release(setting)
    meter = MemoryMeter(setting.device)
    run = training(setting, device=setting.device, shape=setting.shape, method="full", precision="fp32", steps=3)
    peaks, least = meter.peaks(), 16 * count(run.model).total
    name = "peak_device_allocated_bytes" if setting.is_cuda else "peak_host_bytes"
    peak, reserved = peaks[name], peaks["peak_device_reserved_bytes"]
    fine = peak is not None
    if peak is not None and setting.is_cuda:  # on the host, memory that was freed before is used again
        fine = peak >= least and reserved is not None and reserved >= peak
    shown = {key: "unknown" if value is None else f"{value / 1e6:,.0f} MB" for key, value in peaks.items()}
    yield Finding("memory meter", fine, f"weights, gradients and optimizer are {least / 1e6:,.0f} MB; read: {shown}")


def against_trl(setting: Setting, script: Path) -> Iterator[Finding]:
    """Tokens/s against TRL's SFTTrainer where it can be imported; fresh processes, in turn."""
    from importlib.util import find_spec

    if find_spec("trl") is None or find_spec("datasets") is None:
        yield Finding("speed against TRL", None, "not measured: trl or datasets is not installed")
        return
    model, data = setting.model(setting.shape), setting.folder / "speed.npz"
    setting.rows(BATCH * setting.steps * 2).save(data)
    adapter = inputs.write_adapter(model, setting.folder / "adapter")
    names = ("TRL chunked loss", "TRL packing (wrapped)")
    variants = (PACKED, TRL_DEFAULT, *(variant for variant in TRL_TUNED if variant.name in names))
    for method in RATES:
        rates = {}
        for variant in variants:
            job = Job(variant, method, model, adapter, data, SEQUENCE_LENGTH, BATCH, RATES[method],
                      _fastest(setting), os.cpu_count() or 1, device=setting.device, max_steps=setting.steps)
            outcome = measure(job, script)
            rates[variant] = 0.0 if outcome.failure else outcome.tokens_per_second(setting.warmup_steps)
            ratio = f", finetrial is {rates[PACKED] / rates[variant]:.2f}x" if rates[variant] else ""
            yield Finding(f"speed: {method}, {variant.name}", None,
                          outcome.failure or f"{rates[variant]:,.0f} tokens/s in {job.precision}{ratio}")


def _timed(setting: Setting, method: str, precision: Precision) -> tuple[Run, str]:
    """A run of the main model, and its peak memory in words."""
    from finetrial.stages.memory import MemoryMeter

    meter = MemoryMeter(setting.device)
    run = training(setting, device=setting.device, shape=setting.shape, method=method, precision=precision,
                   steps=setting.steps)
    peaks = meter.peaks()
    peak = peaks["peak_device_allocated_bytes"] if setting.is_cuda else peaks["peak_host_bytes"]
    return run, "peak memory unknown" if peak is None else f"peak {peak / 1e6:,.0f} MB"


def _refuses_fp16(setting: Setting) -> Finding:
    from finetrial.errors import UserError

    try:
        training(setting, device=setting.device, shape="tiny", method="full", precision="fp16", steps=1)
    except UserError as error:
        return Finding("fp16 on a CPU is refused", True, error.problem)
    return Finding("fp16 on a CPU is refused", False, "it was accepted")


def _precisions(setting: Setting) -> tuple[Precision, ...]:
    return ("fp32", "bf16", "fp16") if setting.is_cuda else ("fp32", "bf16")


def _fastest(setting: Setting) -> str:
    return "bf16" if setting.is_cuda else "fp32"
