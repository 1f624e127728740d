"""Cost: what one arm needs in time and memory, measured in a process of its own while nothing else runs.

Warm-up steps are left out; the step time is a median. Memory is the peak over the baseline taken before the model was
loaded, so that libraries and the parent's pages do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.errors import ModelError
from finetrial.stages.adapted import begin, streams_of
from finetrial.stages.base import StageContext, StageKind
from finetrial.stages.memory import MemoryMeter
from finetrial.stages.switching import switch
from finetrial.stages.train import training_rows
from finetrial.train.config import Budget, Training

if TYPE_CHECKING:
    from finetrial.methods.base import Component

WARMUP_STEPS = 2
MEASURED_STEPS = 5
PREDICTED_ROWS = 24
SWAPS = 5


class Profile(StageKind):
    """Returns tokens per second, step seconds, peaks, parameter counts, the optimizer's bytes, and what a swap takes
    (unknown in records of before it was measured)."""

    version: ClassVar[int] = 3  # 1 counted the code of an architecture, 2 predicted in fp32 whatever was asked, cold

    @classmethod
    def batch_rows(cls, spec: Mapping[str, Any]) -> int:
        """Rows of one optimizer step."""
        return Training.model_validate(spec["training"]).batch_sequences

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Train a few steps at a rate that changes nothing that is timed, and read the meters."""
        from finetrial.models.load import import_code
        from finetrial.models.params import count
        from finetrial.models.quantized import import_package
        from finetrial.train.loop import train
        from finetrial.train.loss import item_losses
        spec = {"seed": context.spec["repeat"], **context.spec}
        training = Training.model_validate(spec["training"]).model_copy(
            update={"budget": Budget(amount=WARMUP_STEPS + MEASURED_STEPS, unit="steps"), "evaluations": 0,
                    "early_stopping": None})
        dataset = training_rows(spec, context)
        import_code(Path(context.locations["base"]))  # libraries are not what the arm needs
        if spec.get("quantization"):
            import_package(spec["quantization"])
        memory = MemoryMeter(context.device)
        adapted = begin(spec, context.locations["base"], before=spec.get("before", ()), device=context.device)
        model = adapted.base.model.to(context.device)
        if spec.get("quantization"):
            memory.begin_again()
        steps: list[Mapping[str, Any]] = []
        result = train(model, adapted.components, dataset, training, 1e-6, streams_of(spec), device=context.device,
                       micro_batch=context.micro_batch, on_metrics=lambda metrics: steps.append(dict(metrics)),
                       flush_steps=1)
        peaks = memory.peaks()
        timed = [_step_rate(before, after) for before, after in zip(steps[WARMUP_STEPS - 1:], steps[WARMUP_STEPS:],
                                                                    strict=False)]
        rows = dataset.select(range(min(PREDICTED_ROWS, len(dataset))))
        for _ in ("warm-up", "timed"):
            _wait_for(context.device)
            started = time.perf_counter()
            item_losses(model, rows, precision=spec["predict_precision"])
            predict_seconds = time.perf_counter() - started
        counts = count(model)
        num_tokens = len(rows.ids) + (0 if rows.source_ids is None else len(rows.source_ids))
        return {"tokens_per_second": statistics.median(rate for rate, _ in timed),
                "step_seconds": statistics.median(seconds for _, seconds in timed),
                "predict_tokens_per_second": num_tokens / predict_seconds,
                "params_total": counts.total, "params_trainable": counts.trainable,
                "optimizer_bytes": result.optimizer_bytes, **peaks,
                "swap_seconds": _swap_seconds(adapted.components, context.device)}


def _swap_seconds(components: Sequence[Component], device: str) -> float | None:
    """Of taking one task's part out of the model and putting another's in: median of switching this one off and on.

    Measured last: of weights that were trained in place it makes the copies that switching needs. None where a method
    cannot be switched off.
    """
    times = []
    for component in components:
        component.remember()
    for _ in range(SWAPS):
        _wait_for(device)
        started = time.perf_counter()
        try:
            switch(components, [])
        except ModelError:
            return None
        switch([], components)
        _wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _wait_for(device: str) -> None:
    """Until an accelerator has done what it was given."""
    if device.startswith(("cuda", "mps")):
        import torch

        torch.accelerator.synchronize()


def _step_rate(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[float, float]:
    """(tokens per second, seconds) of the step between two lines of metrics."""
    seconds = after["seconds"] - before["seconds"]
    return (after["tokens"] - before["tokens"]) / seconds, seconds
