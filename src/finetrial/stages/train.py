"""Train the components of one phase, from where the phase before left, and keep what was learned.

The frozen weights' digest is taken before and after: a method that touches what it does not own fails here. The
learning curve holds validation on the new task; everything else is left to `predict`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetrial.stages.adapted import LIVE, WEIGHTS, Adapted, begin, instance_folder, keep, streams_of
from finetrial.stages.base import StageContext, StageKind
from finetrial.train.config import Training

if TYPE_CHECKING:
    from finetrial.tasks.encode import TokenDataset
    from finetrial.train.meter import CurvePoint
    from finetrial.train.reuse import Reuse

CURVE_ROWS = 32  # validation rows behind a point of the learning curve; all of them where it decides when to stop


class Train(StageKind):
    """Writes `weights/<instance>/`, `state.json` and `metrics.jsonl`; returns what was trained and the curve.

    Inputs: `data` (and `data+<task>` for each further task of joint training), `parent` (the phase before).
    """

    version: ClassVar[int] = 2

    @classmethod
    def batch_rows(cls, spec: Mapping[str, Any]) -> int:
        """Rows of one optimizer step."""
        return Training.model_validate(spec["training"]).batch_sequences

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises Diverged, StageTimeout, or the library's out-of-memory error."""
        from finetrial.models.params import count, frozen_digest
        from finetrial.train.loop import Checkpoints, train
        from finetrial.train.reuse import reuse_below

        spec = context.spec
        training = Training.model_validate({**spec["training"], "activation_checkpointing": context.activation_checkpointing})
        parent = context.inputs.get("parent")
        adapted = begin(spec, context.locations["base"], parent=parent.folder if parent else None, device=context.device)
        model = adapted.base.model.to(context.device)
        dataset = training_rows(spec, context)
        frozen = frozen_digest(model)
        reuse = reuse_below(model, (p for p in model.parameters() if p.requires_grad), context.cache)
        with (context.folder / "metrics.jsonl").open("w", encoding="utf-8") as lines:
            recorder = _Recorder(lines, context)
            result = train(model, adapted.components, dataset, training, spec["learning_rate"], streams_of(spec),
                           device=context.device, micro_batch=context.micro_batch, on_metrics=recorder,
                           validate=_Validator(adapted, context, training, reuse),
                           checkpoints=Checkpoints(context.checkpoint),
                           deadline=context.deadline, reuse=reuse)
        assert frozen == frozen_digest(model), "training changed weights that no component owns"
        if reuse is not None:
            context.execution["frozen_prefix"] = reuse.counts
        keep(adapted, context.folder, parent)
        context.shared[LIVE] = ((context.stage_id, "latest", ""), adapted)
        counts = count(model)
        return {"curve": recorder.curve(result.curve), "steps": result.steps, "tokens": result.tokens,
                "target_tokens": result.target_tokens, "epochs": result.epochs, "final_loss": result.final_loss,
                "skipped_steps": result.skipped_steps, "seconds": result.seconds,
                "params_total": counts.total, "params_trainable": counts.trainable, "frozen_digest": frozen,
                "stored_bytes": _stored_bytes(context, adapted), "answer_digest": adapted.digest}


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

    def __init__(self, adapted: Adapted, context: StageContext, training: Training, reuse: Reuse | None) -> None:
        self._model, self._reuse = adapted.base.model, reuse
        most = None if training.early_stopping else CURVE_ROWS
        self._rows = joined(context, "val", lambda _, rows: rows.select(range(len(rows))[:most]))

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
