"""What every check works on: a device, models of random weights, rows, and one short run of finetrial's loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from against_trl import inputs

Precision = Literal["fp32", "bf16", "fp16"]
RATES = {"full": 3e-4, "lora": 3e-3}
SEQUENCE_LENGTH, BATCH = 256, 8


@dataclass(frozen=True)
class Finding:
    """What a check came to: passed, failed, or None for a figure that has no right or wrong."""

    name: str
    passed: bool | None
    text: str

    def line(self) -> str:
        """For the terminal."""
        word = {True: "ok", False: "FAIL", None: "--"}[self.passed]
        return f"{word:<4}  {self.name:<34}  {self.text}"


@dataclass(frozen=True)
class Setting:
    """`dry` = small models and few steps, so that every line runs on a CPU; its figures mean nothing."""

    device: str
    dry: bool
    folder: Path

    @property
    def shape(self) -> str:
        """The shape of the main model: GPT-2 small, or the tiny one."""
        return "tiny" if self.dry else "gpt2"

    @property
    def steps(self) -> int:
        """Steps of a run that is timed; on an accelerator the loop reads its losses 16 steps at a time."""
        return 4 if self.dry else 48

    @property
    def warmup_steps(self) -> int:
        """Steps that are not timed."""
        return 1 if self.dry else 16

    @property
    def is_cuda(self) -> bool:
        """Whether CUDA's own meters and precisions are there."""
        return self.device.startswith("cuda")

    def model(self, shape: str) -> Path:
        """The folder of a model of random weights, made at its first use."""
        folder = self.folder / shape
        return folder if folder.is_dir() else inputs.random_model(shape, folder)

    def rows(self, num_rows: int) -> Any:
        """Synthetic rows with the lengths of pydoc-chat."""
        return inputs.synthetic_rows(num_rows, SEQUENCE_LENGTH)


@dataclass
class Run:
    """A short training and what it reported."""

    model: Any
    component: Any
    result: Any = None
    metrics: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """By step, nats per target token."""
        return [float(entry["loss"]) for entry in self.metrics]

    def tokens_per_second(self, warmup_steps: int) -> float:
        """Over the steps after the warm-up."""
        first, last = self.metrics[warmup_steps - 1], self.metrics[-1]
        return float((last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]))


def training(setting: Setting, *, device: str, shape: str, method: str, precision: Precision, steps: int,
             checkpoints: Any = None, stop: Callable[[int], None] | None = None,
             quantization: Literal["nf4"] | None = None, **more: Any) -> Run:
    """Train for `steps` steps with the loop of the product. `stop(step)` is called after each step is reported; `more`
    are further settings of training."""
    from finetrial.methods.full import Full
    from finetrial.methods.lora import Lora
    from finetrial.models.load import load_base
    from finetrial.streams import Streams
    from finetrial.train.config import Budget, Training
    from finetrial.train.loop import train

    streams = Streams(inputs.SEED)
    model = load_base(setting.model(shape), quantization=quantization, device=device).model
    chosen = Full() if method == "full" else Lora(rank=inputs.LORA_RANK)
    run = Run(model, chosen.attach(model, streams, inputs.SLOT))
    config = Training(budget=Budget(amount=steps, unit="steps"), sequence_length=SEQUENCE_LENGTH,
                      batch_sequences=BATCH, precision=precision, evaluations=0, **more)

    def note(metrics: Mapping[str, Any]) -> None:
        run.metrics.append(dict(metrics))
        if stop is not None:
            stop(int(metrics["step"]))

    run.result = train(model, [run.component], setting.rows(BATCH * 24), config, RATES[method], streams,
                       device=device, on_metrics=note, checkpoints=checkpoints)
    return run


def release(setting: Setting) -> None:
    """Give back what models that are gone held on the device."""
    import gc

    import torch

    gc.collect()
    if setting.is_cuda:
        torch.cuda.empty_cache()
