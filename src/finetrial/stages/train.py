"""Train the components of one phase, and keep what was learned.

The frozen weights' digest is taken before and after: a method that touches what it does not own fails here. The
learning curve holds validation on the new task; everything else is left to `predict`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetrial.stages.adapted import Adapted, adapt, streams_of
from finetrial.stages.base import StageContext, StageKind
from finetrial.train.config import Training

if TYPE_CHECKING:
    from finetrial.tasks.encode import TokenDataset
    from finetrial.train.meter import CurvePoint

WEIGHTS = "weights"  # one folder a slot
CURVE_ROWS = 32  # validation rows behind a point of the learning curve; all of them where it decides when to stop
LIVE = "adapted"  # in StageContext.shared: the model just trained, and the stage that trained it


class Train(StageKind):
    """Writes `weights/<slot>/` and `metrics.jsonl`; returns what was trained and the learning curve."""

    version: ClassVar[int] = 1

    @classmethod
    def batch_rows(cls, spec: Mapping[str, Any]) -> int:
        """Rows of one optimizer step."""
        return Training.model_validate(spec["training"]).batch_sequences

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises Diverged, StageTimeout, or the library's out-of-memory error."""
        from finetrial.models.params import count, frozen_digest
        from finetrial.train.loop import Checkpoints, train

        spec = context.spec
        training = Training.model_validate(spec["training"])
        parent = context.inputs.get("parent")
        adapted = adapt(spec, context.locations["base"], fresh_from_carry=True,
                        weights=parent.folder / WEIGHTS if parent else None)
        model = adapted.base.model.to(context.device)
        dataset = training_rows(spec, context)
        frozen = frozen_digest(model)
        with (context.folder / "metrics.jsonl").open("w", encoding="utf-8") as lines:
            recorder = _Recorder(lines, context)
            result = train(model, adapted.components, dataset, training, spec["learning_rate"], streams_of(spec),
                           device=context.device, micro_batch=context.micro_batch, on_metrics=recorder,
                           validate=_Validator(adapted, context, training),
                           checkpoints=Checkpoints(context.checkpoint),
                           deadline=context.deadline)
        assert frozen == frozen_digest(model), "training changed weights that no component owns"
        for component in adapted.components:
            component.save(context.folder / WEIGHTS / component.slot)
        context.shared[LIVE] = (context.stage_id, adapted)
        counts = count(model)
        return {"curve": recorder.curve(result.curve), "steps": result.steps, "tokens": result.tokens,
                "target_tokens": result.target_tokens, "epochs": result.epochs, "final_loss": result.final_loss,
                "skipped_steps": result.skipped_steps, "seconds": result.seconds,
                "params_total": counts.total, "params_trainable": counts.trainable, "frozen_digest": frozen,
                "stored_bytes": _stored_bytes(context)}


def training_rows(spec: Mapping[str, Any], context: StageContext) -> TokenDataset:
    """The rows this cell trains on: all, or the first `num_train` of a permutation that only the seed governs.

    Smaller subsets of one seed are contained in larger ones, and every arm sees the same rows.
    """
    from finetrial.tasks.encode import TokenDataset

    dataset = TokenDataset.load(context.inputs["data"].folder / "train.npz")
    wanted = spec.get("num_train")
    if wanted is None or wanted >= len(dataset):
        return dataset
    order = streams_of(spec).generator("subset").permutation(len(dataset))
    return dataset.select(np.sort(order[:wanted]))


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

    def __init__(self, adapted: Adapted, context: StageContext, training: Training) -> None:
        from finetrial.tasks.encode import TokenDataset

        self._model = adapted.base.model
        rows = TokenDataset.load(context.inputs["data"].folder / "val.npz")
        wanted = len(rows) if training.early_stopping else min(CURVE_ROWS, len(rows))
        self._rows = rows.select(range(wanted))

    def __call__(self, step: int) -> float:
        from finetrial.train.loss import item_losses

        sums, counts = item_losses(self._model, self._rows)
        return float(sums.sum() / counts.sum())


def _stored_bytes(context: StageContext) -> int:
    """What must be kept for this phase: the weight files of its components."""
    return sum(path.stat().st_size for path in (context.folder / WEIGHTS).rglob("*.safetensors"))
