"""The training loop. It knows parameters, batches and a budget; it knows no method.

A step's gradient is that of the mean loss per target token over the whole batch, however it is cut into micro-batches.
Everything random is found by the numbers of step and micro-batch (data order in `batch`, dropout here), so a resumed run
takes the same steps as an undisturbed one, bit for bit on one CPU and thread count (on CUDA attention's backward pass adds up
in any order), and processes can share a step.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from finetrial.fingerprint import key_of
from finetrial.methods.base import Component
from finetrial.models import blocks, params
from finetrial.streams import Streams
from finetrial.train import checkpoint, optim, precision, sharding
from finetrial.train.batch import Batch, Batches, BatchSource, DocumentBatches, Documents
from finetrial.train.checkpoint import Checkpoints, Pace
from finetrial.train.config import Training
from finetrial.train.data_parallel import DataParallel
from finetrial.train.loss import check_positions, summed_loss
from finetrial.train.meter import CurvePoint, Meter, OnMetrics, Totals, TrainResult
from finetrial.train.outcome import Diverged, OutOfTime
from finetrial.train.precision import FrozenMatrices
from finetrial.train.reuse import Reuse
from finetrial.train.widen import filler

FLUSH_STEPS = 16  # on an accelerator the loss is read, and divergence seen, this many steps at a time
DIVERGED_MULTIPLE = 3.0  # of the first loss, and above twice a uniform guess's, ...
DIVERGED_STEPS = 10  # ... this many steps in a row

Validate = Callable[[int], float]


def train(model: Any, components: Sequence[Component], dataset: Documents | BatchSource, config: Training,
          learning_rate: float, streams: Streams, *, device: str = "cpu", micro_batch: int | None = None,
          on_metrics: OnMetrics | None = None, validate: Validate | None = None,
          checkpoints: Checkpoints | None = None, deadline: float | None = None,
          reuse: Reuse | None = None, parallel: DataParallel | None = None,
          flush_steps: int | None = None) -> TrainResult:
    """Train what `components` own, in place, for `config.budget`; everything else is frozen.

    `validate(step)` gives a loss after each of `config.evaluations` equally spaced steps, the last one the end; without
    improvement for `config.early_stopping` of them training stops, keeping its last weights. `deadline` is a value of
    `time.monotonic()`. With `checkpoints` a run that was interrupted goes on where it was. `reuse` (of what lies below
    everything that is trained) saves time and changes no bit. `flush_steps`: metrics are read, and timed, once in so many
    steps; unless given, at every step on a CPU, where nothing waits for it. Processes that call it with their places in `parallel` share
    the work, and each returns the same result; the first alone validates, writes checkpoints and heeds the deadline.

    Raises Diverged, OutOfTime, UserError for data or precision that the model or device cannot take, and lets the
    library's out-of-memory error through; a smaller `micro_batch` then gives the same result up to rounding, or with dropout
    the result of other masks.
    """
    run = Run(model, components, dataset, config, learning_rate, streams, device, micro_batch, reuse, parallel=parallel,
              flush_steps=flush_steps)
    steps = run.steps(on_metrics, validate, checkpoints, deadline)
    try:
        parts = next(steps)
        while True:
            parts = steps.send(run.gradients(parts))
    except StopIteration as end:
        result: TrainResult = end.value
        return result
    finally:
        run.close()


def open_batches(dataset: Documents | BatchSource, config: Training, streams: Streams, *, start_id: int = 0) -> Batches:
    """The batches of a data set of documents, or of pairs (`start_id` opens the decoder's input), or its own."""
    if isinstance(dataset, BatchSource):
        return dataset.batches(config, streams)
    return DocumentBatches(dataset, config, streams, start_id=start_id)


def evaluation_steps(num_steps: int, evaluations: int) -> set[int]:
    """The steps (1-based) after which a run of `num_steps` is validated: equally spaced, the last one the end."""
    return {max(1, round(num_steps * k / evaluations)) for k in range(1, evaluations + 1)} | {num_steps}


def dropout_purpose(step: int, number: int) -> str:
    """The stream that dropout draws from in micro-batch `number` of a step (both 0-based)."""
    return f"dropout/{step}/{number}" if number else f"dropout/{step}"


class Run:
    """One cell's training: what it does between two gradients, which `gradients` computes for it where it is alone."""

    def __init__(self, model: Any, components: Sequence[Component], dataset: Documents | BatchSource, config: Training,
                 learning_rate: float, streams: Streams, device: str, micro_batch: int | None,
                 reuse: Reuse | None = None, frozen: FrozenMatrices | None = None,
                 parallel: DataParallel | None = None, flush_steps: int | None = None) -> None:
        check_positions(model, config.sequence_length)
        self.model, self.components, self.config, self.streams = model, components, config, streams
        self.learning_rate, self.reuse, self.parallel = learning_rate, reuse, parallel or DataParallel()
        self.micro_batch = self.parallel.micro_batch(micro_batch, config.batch_sequences)
        self.accelerator = precision.accelerator(device, config.precision, keeps_casts=not self.parallel.sharded)
        self.device = self.accelerator.device
        self.fill = filler(model, self.device, config.precision)
        self.flush_steps = flush_steps or (1 if self.device.type == "cpu" else FLUSH_STEPS)
        trained = params.own(model, components)
        params.set_dropout(model, config.dropout)
        self.holding = sharding.held(model, components, self.device, self.parallel)
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if name in trained}
        self.frozen = frozen or FrozenMatrices(model, "fp32" if self.parallel.sharded else config.precision,
                                               offload=self.device.type == "cuda")
        if config.activation_checkpointing:
            blocks.recompute(model, True)
        self.batches = open_batches(dataset, config, streams, start_id=blocks.start_id(model))
        self.num_steps = self.batches.num_steps(config.budget)
        self.optimizers = [self.accelerator.prepare_optimizer(optimizer, device_placement=False)
                           for optimizer in optim.optimizers(model, self.parameters, config)]
        self.totals = Totals()
        self.step = 0  # steps done
        self.identity = key_of({"checkpoint": 2, "training": config.identity(), "learning_rate": learning_rate,
                                "seed": streams.seed, "replicate": streams.replicate,
                                "parameters": {name: list(p.shape) for name, p in self.parameters.items()}})

    def steps(self, on_metrics: OnMetrics | None, validate: Validate | None, checkpoints: Checkpoints | None,
              deadline: float | None) -> Generator[list[Batch], torch.Tensor, TrainResult]:
        """Yields the micro-batches of each step; whoever takes them adds their gradients and sends their mean loss."""
        if checkpoints is not None:
            self._restore(checkpoints.folder)
        meter = Meter(on_metrics, self.num_steps, self.flush_steps, self._judge)
        evaluate_at = evaluation_steps(self.num_steps, self.config.evaluations) if validate is not None else set()
        pace = Pace(checkpoints.every_seconds if checkpoints is not None else math.inf)
        self.model.train()
        while self.step < self.num_steps and not self._stops_early():
            if deadline is not None and self.parallel.first(time.monotonic() > deadline):
                self._flush(meter)
                self._save(checkpoints)
                raise OutOfTime(self.step)
            with self.totals.timed():
                parts = self.batches.step(self.step, self.micro_batch)
            loss = yield parts
            with self.totals.timed():
                self._update(parts, loss, meter)
            if self.step in evaluate_at and validate is not None:
                self._flush(meter)
                self._evaluate(validate)
            if checkpoints is not None and self._agreed(pace.is_due()):
                self._flush(meter)
                with pace.saving():
                    self._save(checkpoints)
        self._flush(meter)
        if not self.parallel.sharded and self.parallel.count > 1:
            self.parallel.check_equal(params.digest(self.parameters))
        result = self._result()
        self.holding.take_back()
        return result

    def close(self) -> None:
        """The model as it is evaluated: in eval mode and fp32, without checkpointing."""
        self.holding.close()
        optim.release(self.optimizers)
        self.model.eval()
        self.frozen.restore()
        if self.config.activation_checkpointing:
            blocks.recompute(self.model, False)

    def gradients(self, parts: Sequence[Batch]) -> torch.Tensor:
        """Add the gradient of the mean loss over all targets of `parts`, computed here or by others; the mean loss."""
        num_targets = sum(part.num_targets for part in parts)
        loss = torch.zeros((), device=self.device)
        with self.totals.timed():
            with self.frozen:
                for number, part in self.parallel.share(parts):
                    with self._dropout_stream(number):
                        loss += self._backward(part or parts[-1].without_targets(), num_targets)
            self.parallel.add_up(self.parameters.values(), loss)
        return loss

    def _flush(self, meter: Meter) -> None:
        """Read what is pending: an accelerator's steps end here."""
        with self.totals.timed():
            meter.flush()

    def _update(self, parts: Sequence[Batch], loss: torch.Tensor, meter: Meter) -> None:
        """Take the step whose gradients are there."""
        rate = self.config.learning_rate_at(self.step, self.num_steps, self.learning_rate)
        optim.set_learning_rate(self.optimizers, rate)
        norm = self._step() if any(part.num_targets for part in parts) else torch.zeros((), device=self.device)
        for component in self.components:
            component.after_step(self.step)  # may read the step's gradients
        for parameter in self.parameters.values():
            parameter.grad = None
        self.step += 1
        self.totals.tokens += sum(part.num_tokens for part in parts)
        self.totals.target_tokens += sum(part.num_targets for part in parts)
        meter.add(self.step, loss, norm, rate, self.totals.tokens)

    def _backward(self, part: Batch, num_targets: int) -> torch.Tensor:
        """Add the part's share of the gradient; return its share of the mean loss."""
        if part.num_targets == 0 and not self.parallel.sharded:
            return torch.zeros((), device=self.device)
        batch = self.fill(part.to(self.device))
        with self.accelerator.autocast():
            loss = self.holding.run(lambda: summed_loss(self.model, batch, self.reuse) / max(1, num_targets))
        self.accelerator.backward(loss)
        return loss.detach()

    def _step(self) -> torch.Tensor:
        """Clip and step. Only where the whole step has a target: else nothing has a gradient, which a scaler refuses."""
        norm = self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
        self.totals.skipped_steps += any(optimizer.step_was_skipped for optimizer in self.optimizers)
        return norm

    def _clip(self) -> torch.Tensor:
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(self.parameters.values(), limit)
        return self.holding.whole(norm)

    def _dropout_stream(self, number: int) -> contextlib.AbstractContextManager[None]:
        """What micro-batch `number` of this step draws, whoever computes it: dropout, and the noise of some adapters."""
        return self.streams.torch_fork(dropout_purpose(self.step, number))

    def _judge(self, step: int, loss: float) -> None:
        """Raise Diverged for a loss that is not finite, or far above a uniform guess for many steps in a row."""
        totals = self.totals
        if totals.first_loss is None:
            totals.first_loss = loss
        uniform = math.log(self.model.config.vocab_size)
        high = loss > 2 * uniform and loss > DIVERGED_MULTIPLE * totals.first_loss
        totals.high_steps = totals.high_steps + 1 if high else 0
        totals.final_loss = loss
        if not math.isfinite(loss) or totals.high_steps >= DIVERGED_STEPS:
            raise Diverged(step, loss)

    def _evaluate(self, validate: Validate) -> None:
        self.model.eval()
        self.frozen.restore()
        value = self.parallel.first(self._validated(validate))
        if not math.isfinite(value):  # the last update broke what its own loss did not show yet
            raise Diverged(self.step, value)
        self.totals.curve.append(CurvePoint(self.step, self.totals.tokens, value))
        self.model.train()

    def _validated(self, validate: Validate) -> float:
        """In the first process, and in the others where it needs their parts of the model."""
        if not self.parallel.is_first and not self.parallel.sharded:
            return math.nan
        with torch.no_grad():
            return self.holding.run(lambda: validate(self.step))

    def _stops_early(self) -> bool:
        patience, values = self.config.early_stopping, [point.value for point in self.totals.curve]
        return patience is not None and len(values) > patience and min(values[-patience:]) >= min(values[:-patience])

    def _save(self, checkpoints: Checkpoints | None) -> None:
        if checkpoints is None or not (self.parallel.is_first or self.parallel.sharded):
            return
        scaler = self.accelerator.scaler
        state = self.holding.gathered({
            "step": self.step, "totals": self.totals.state(),
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": None if scaler is None else scaler.state_dict(),
            "components": {component.name: component.progress() for component in self.components}})
        if self.parallel.is_first:
            checkpoint.save(checkpoints.folder, self.step, self.identity, state)

    def _agreed(self, saves: bool) -> bool:
        """Whether to save: by the first process's clock, with all of them where each has a part."""
        return bool(self.parallel.first(saves)) if self.parallel.sharded else saves and self.parallel.is_first

    def _restore(self, folder: Path) -> None:
        from accelerate.utils import send_to_device

        state = checkpoint.load(folder, self.identity)
        step = state["step"] if state is not None else 0
        assert step == self.parallel.first(step), "processes that train together read different checkpoints"
        if state is None:
            return
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.holding.own_part(parameter, state["parameters"][name]))
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(self.holding.own_state(optimizer, saved))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        for component in self.components:
            component.resume(send_to_device(state["components"][component.name], self.device))
        self.step, self.totals = state["step"], Totals.of(state["totals"])

    def _result(self) -> TrainResult:
        totals = self.totals
        return TrainResult(
            steps=self.step, tokens=totals.tokens, target_tokens=totals.target_tokens,
            epochs=self.batches.epoch(self.step), final_loss=totals.final_loss, curve=tuple(totals.curve),
            skipped_steps=totals.skipped_steps, seconds=totals.seconds,
            optimizer_bytes=params.optimizer_bytes(self.optimizers))
