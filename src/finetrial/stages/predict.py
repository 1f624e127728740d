"""Predict: the loss of every item of one task and split, under the base or an adapted model.

Raw per-item results are kept; every score made of them later needs no model. In fp32 an item's result does not depend
on who shares its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.stages.adapted import Adapted, adapt
from finetrial.stages.base import StageContext, StageKind
from finetrial.stages.train import LIVE, WEIGHTS

if TYPE_CHECKING:
    from finetrial.tasks.encode import TokenDataset

PREDICTIONS = "predictions.parquet"
CHECKED_ROWS = 4
UNTOUCHED = "the untouched base"  # in the place of a stage's id, beside the live model


class Predict(StageKind):
    """Writes `predictions.parquet`: item, cluster, nll (nats, summed over target tokens), num_tokens, num_bytes."""

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """One row an item, in the order of the data."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from finetrial.tasks.encode import TokenDataset
        from finetrial.train.loss import item_losses

        spec = context.spec
        dataset = TokenDataset.load(context.inputs["data"].folder / f"{spec['split']}.npz")
        model = _model(context).to(context.device)
        if "model" not in context.inputs:
            _check(model, dataset)
        nll, num_tokens = item_losses(model, dataset, precision=spec["precision"])
        table = pa.table({"item": list(dataset.items), "cluster": list(dataset.clusters), "nll": nll,
                          "num_tokens": num_tokens, "num_bytes": dataset.num_bytes})
        pq.write_table(table, context.folder / PREDICTIONS)
        return {"num_items": len(dataset), "nll": float(nll.sum()), "num_tokens": int(num_tokens.sum())}


def _check(model: Any, dataset: TokenDataset) -> None:
    """Once for each base: our loss, with logits only at targets, equals the model's own. Raises ModelError if not."""
    from finetrial.train.batch import make_batch
    from finetrial.train.loss import check_base

    rows = [(row,) for row in range(min(CHECKED_ROWS, len(dataset)))]
    check_base(model, make_batch(dataset, rows).to(next(model.parameters()).device))


def _model(context: StageContext) -> Any:
    """The live model of this phase, or one made from the files of the training stage."""
    trained = context.inputs.get("model")
    if trained is None:
        return _base(context)
    stage_id, live = context.shared.get(LIVE, (None, None))
    if stage_id == trained.record.stage_id:
        assert isinstance(live, Adapted)
        return live.base.model
    adapted = adapt(trained.record.identity["spec"], context.locations["base"], weights=trained.folder / WEIGHTS)
    context.shared[LIVE] = (trained.record.stage_id, adapted)
    return adapted.base.model


def _base(context: StageContext) -> Any:
    """The untouched base, loaded once for all predictions of its group."""
    from finetrial.models.load import load_base

    owner, live = context.shared.get(LIVE, ("", None))
    if owner != UNTOUCHED:
        live = Adapted(load_base(Path(context.locations["base"]), attention=context.spec["attention"]), [])
        context.shared[LIVE] = (UNTOUCHED, live)
    return live.base.model
