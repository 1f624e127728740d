"""Train the components of one phase, from where the phase before left, and keep what was learned.

The frozen weights' digest is taken before and after: a method that touches what it does not own fails here. The
learning curve holds validation on the new task; everything else is left to `predict`.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetrial.spec.arm import read_method
from finetrial.stages.adapted import (
    WEIGHTS,
    Adapted,
    answer_digest,
    answer_with,
    begin,
    instance_folder,
    keep,
    streams_of,
)
from finetrial.stages.base import Diverged, StageContext, StageKind, StageTimeout
from finetrial.stages.together import shared_by_stack, train_together
from finetrial.train.config import EIGHT_BIT, Training

if TYPE_CHECKING:
    from finetrial.models.load import LoadedBase
    from finetrial.tasks.encode import TokenDataset
    from finetrial.train.meter import CurvePoint, OnMetrics, TrainResult
    from finetrial.train.reuse import Reuse

CURVE_ROWS = 32  # validation rows behind a point of the learning curve; all of them where it decides when to stop


class Train(StageKind):
    """Writes `weights/<instance>/`, `state.json` and `metrics.jsonl`; returns what was trained and the curve.

    Inputs: `data` (and `data+<task>` for each further task of joint training), `parent` (the phase before).
    """

    version: ClassVar[int] = 2
    parallel: ClassVar[bool] = True

    @classmethod
    def batch_rows(cls, spec: Mapping[str, Any]) -> int:
        """Rows of one optimizer step."""
        return Training.model_validate(spec["training"]).batch_sequences

    @classmethod
    def unsplittable(cls, spec: Mapping[str, Any]) -> str:
        """For a base in 4 bits, and for what reads whole parameters or gradients between steps."""
        if spec.get("quantization"):
            return f"its base is held in 4 bits (quantization {spec['quantization']}), which are not split"
        optimizer = Training.model_validate(spec["training"]).optimizer
        if optimizer == EIGHT_BIT:
            return f"the optimizer {optimizer} does not know parameters of which it has a part"
        for component in spec["components"]:
            method = read_method(component["method"]) if component["method"] else None
            if method is not None and not method.takes_shards:
                return f"{method.kind} in slot {component['slot']!r} reads whole gradients after each step"
        return ""

    @classmethod
    def shared_by_stack(cls, spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What LoRA cells of one base, task and batch shape have in common."""
        return shared_by_stack(spec)

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises Diverged, StageTimeout, or the library's out-of-memory error."""
        from finetrial.models.params import frozen_digest

        phase = Phase(context)
        frozen = frozen_digest(phase.model)  # before it moves, so that nothing is copied back for it
        phase.to_device()
        reuse = phase.reuse()
        with phase.recording() as recorder:
            result = phase.train(reuse, recorder)
        assert frozen == frozen_digest(phase.model), "training changed weights that no component owns"
        if reuse is not None:
            context.execution["frozen_prefix"] = reuse.counts
        return phase.finish(recorder, result, frozen)

    def assist(self, context: StageContext) -> None:
        """Take the steps with the process that runs the stage."""
        phase = Phase(context)
        phase.to_device()
        phase.train(phase.reuse())

    def run_together(self, contexts: Sequence[StageContext]) -> list[Mapping[str, Any] | Diverged | StageTimeout]:
        """Cells that `shared_by_stack` finds alike, in one pass."""
        return train_together(contexts)


class Phase:
    """One cell's phase: the model it begins with, on `base` if that is loaded already, its rows, and what it leaves."""

    def __init__(self, context: StageContext, base: LoadedBase | None = None) -> None:
        spec, self._parent = context.spec, context.inputs.get("parent")
        self.context = context
        self.training = Training.model_validate(
            {**spec["training"], "activation_checkpointing": context.activation_checkpointing})
        self.adapted = begin(spec, context.locations["base"], parent=self._parent.folder if self._parent else None,
                             device=context.device, base=base)
        self.model = self.adapted.base.model
        self.dataset = training_rows(spec, context)

    def to_device(self) -> None:
        """Move the model to where it is trained; of one that is split, only the parts go there, in training."""
        if not self.context.parallel.sharded:
            self.model.to(self.context.device)

    @contextlib.contextmanager
    def recording(self) -> Iterator[_Recorder]:
        """Takes the loop's metrics, and writes them to `metrics.jsonl`."""
        with (self.context.folder / "metrics.jsonl").open("w", encoding="utf-8") as lines:
            yield _Recorder(lines, self.context)

    def reuse(self) -> Reuse | None:
        """The states of the frozen first blocks, if there are any below what is trained; not of a sharded model, whose
        processes must compute the same blocks at the same time."""
        from finetrial.train.reuse import reuse_below

        if self.context.parallel.sharded:
            return None
        return reuse_below(self.model, (p for p in self.model.parameters() if p.requires_grad), self.context.cache)

    def train(self, reuse: Reuse | None, on_metrics: OnMetrics | None = None) -> TrainResult:
        """Train, alone or with other processes. Raises Diverged, StageTimeout, or the library's out-of-memory error."""
        from finetrial.train.checkpoint import Checkpoints
        from finetrial.train.loop import train

        context = self.context
        return train(self.model, self.adapted.components, self.dataset, self.training, context.spec["learning_rate"],
                     streams_of(context.spec), device=context.device, micro_batch=context.micro_batch,
                     on_metrics=on_metrics, validate=self.validator(reuse), checkpoints=Checkpoints(context.checkpoint),
                     deadline=context.deadline, reuse=reuse, parallel=context.parallel)

    @functools.cached_property
    def validation_rows(self) -> TokenDataset:
        """The new task's, behind a point of the learning curve."""
        most = None if self.training.early_stopping else CURVE_ROWS
        return joined(self.context, "val", lambda _, rows: rows.select(range(len(rows))[:most]))

    def validator(self, reuse: Reuse | None) -> _Validator:
        """The loss on the new task's validation rows."""
        return _Validator(self.adapted, self.validation_rows, reuse)

    def finish(self, recorder: _Recorder, result: TrainResult, frozen: str) -> Mapping[str, Any]:
        """Keep the weights, and the model in memory for predictions; what is recorded of the phase."""
        from finetrial.models.params import count

        keep(self.adapted, self.context.folder, self._parent)
        answer_with(self.context, self.adapted)
        counts = count(self.model)
        curve = [{**point, "n": len(self.validation_rows)} for point in recorder.curve(result.curve)]
        return {"curve": curve, "steps": result.steps, "tokens": result.tokens,
                "target_tokens": result.target_tokens, "epochs": result.epochs, "final_loss": result.final_loss,
                "skipped_steps": result.skipped_steps, "seconds": result.seconds,
                "params_total": counts.total, "params_trainable": counts.trainable, "frozen_digest": frozen,
                "stored_bytes": _stored_bytes(self.context, self.adapted), "answer_digest": answer_digest(self.context, self.adapted)}


def training_rows(spec: Mapping[str, Any], context: StageContext) -> TokenDataset:
    """The rows this cell trains on: of each task all, or the first `num_train` of a permutation that only the seed
    governs. Smaller subsets of one seed are contained in larger ones, and every arm sees the same rows."""
    return joined(context, "train", lambda name, rows: _subset(spec, name, rows))


def joined(context: StageContext, split: str, chosen: Callable[[str, TokenDataset], TokenDataset],
           ) -> TokenDataset:
    """The rows of one split of every task that is trained on, one task after the other."""
    from finetrial.tasks.encoded import TokenDataset, concatenated

    names = sorted(name for name in context.inputs if name == "data" or name.startswith("data+"))
    return concatenated([chosen(name, TokenDataset.load(context.inputs[name].folder / f"{split}.npz"))
                         for name in names])


def _subset(spec: Mapping[str, Any], name: str, rows: TokenDataset) -> TokenDataset:
    wanted = spec.get("num_train", {}).get(name)
    if wanted is None or wanted >= len(rows):
        return rows
    order = streams_of(spec).generator("subset").permutation(len(rows))
    return rows.select(np.sort(order[:wanted]))


class _Recorder:
    """Writes metrics as JSON lines, passes progress on, and keeps the training losses for the learning curve."""

    def __init__(self, lines: Any, context: StageContext) -> None:
        self._lines, self._context = lines, context
        self._losses: list[tuple[int, float]] = []  # (step, loss)

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(metrics) + "\n")
        self._losses.append((metrics["step"], metrics["loss"]))
        self._context.progress({"fraction": metrics["step"] / metrics["num_steps"], "loss": metrics["loss"]})

    def curve(self, validated: Sequence[CurvePoint]) -> list[dict[str, float | None]]:
        """At each validation: its loss, and the mean training loss since the one before. Steps that a resumed run
        took before it was interrupted are not in the mean."""
        points, last = [], 0
        for point in validated:
            since = [loss for step, loss in self._losses if last < step <= point.step]
            points.append({"step": point.step, "tokens": point.tokens, "val": point.value,
                           "train": sum(since) / len(since) if since else None})
            last = point.step
        return points


class _Validator:
    """Mean validation loss of the new task, in nats per target token, in fp32."""

    def __init__(self, adapted: Adapted, rows: TokenDataset, reuse: Reuse | None) -> None:
        self._model, self._rows, self._reuse = adapted.base.model, rows, reuse

    def __call__(self, step: int) -> float:
        from finetrial.train.loss import item_losses

        sums, counts = item_losses(self._model, self._rows, reuse=self._reuse)
        return float(sums.sum() / counts.sum())


def _stored_bytes(context: StageContext, adapted: Adapted) -> int:
    """What must be kept for this phase: the weight files of the instances that it trained."""
    slots = {component.slot for component in adapted.components}
    folders = {context.folder / WEIGHTS / instance_folder(newest) for slot in slots
               if (newest := adapted.state.newest(slot)) is not None}
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*.safetensors"))
