"""Predict: the loss of every item of one task and split, under the base or an adapted model.

Raw per-item results are kept; every score made of them later needs no model. In fp32 an item's result does not depend
on who shares its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.stages.adapted import answer_digest, answering_model
from finetrial.stages.base import StageContext, StageKind

if TYPE_CHECKING:
    from finetrial.tasks.encode import TokenDataset

PREDICTIONS = "predictions.parquet"
CHECKED_TOKENS = 32


class Predict(StageKind):
    """Writes `predictions.parquet`: item, cluster, nll (nats, summed over target tokens), num_tokens, num_bytes."""

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """One row an item, in the order of the data."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from finetrial.tasks.encode import TokenDataset
        from finetrial.train.loss import item_losses
        from finetrial.train.reuse import reuse_below

        spec = context.spec
        dataset = TokenDataset.load(context.inputs["data"].folder / f"{spec['split']}.npz")
        answers = answering_model(context)
        model = answers.base.model.to(context.device)
        if "model" not in context.inputs:
            _check(model, dataset)
        reuse = None
        if answers.active:  # the items' states below everything that phases have changed serve every cell
            changed = (parameter for component in answers.active.values() for parameter in component.parameters().values())
            reuse = reuse_below(model, changed, context.cache)
        nll, num_tokens = item_losses(model, dataset, precision=spec["precision"], reuse=reuse)
        if reuse is not None:
            context.execution["frozen_prefix"] = reuse.counts
        table = pa.table({"item": list(dataset.items), "cluster": list(dataset.clusters), "nll": nll,
                          "num_tokens": num_tokens, "num_bytes": dataset.num_bytes})
        pq.write_table(table, context.folder / PREDICTIONS)
        return {"num_items": len(dataset), "nll": float(nll.sum()), "num_tokens": int(num_tokens.sum()),
                "answer_digest": answer_digest(context, answers)}


def checked_part(dataset: TokenDataset) -> TokenDataset | None:
    """The beginning of the longest row, at most CHECKED_TOKENS of it (of a pair: of source and ids each), every token a
    target. None where no row has a token that another one predicts.

    The model's own loss makes logits at every place, several times: of whole rows and a large vocabulary they would
    take more memory than everything after.
    """
    import numpy as np

    lengths = np.diff(dataset.offsets)
    if max(lengths, default=0) < (2 if dataset.source_ids is None else 1):
        return None
    row = dataset.select([int(lengths.argmax())])
    ids = row.ids[:CHECKED_TOKENS]
    source = None if row.source_ids is None else row.source_ids[:CHECKED_TOKENS]
    return replace(row, ids=ids, loss_mask=np.ones(len(ids), np.bool_), offsets=np.array([0, len(ids)]), source_ids=source,
                   source_offsets=None if source is None else np.array([0, len(source)]))


def _check(model: Any, dataset: TokenDataset) -> None:
    """Once for each base: our loss, with logits only at targets, equals the model's own. Raises ModelError if not."""
    from finetrial.models.blocks import start_id
    from finetrial.train.batch import make_batch
    from finetrial.train.loss import check_base

    part = checked_part(dataset)
    if part is not None:
        check_base(model, make_batch(part, [(0,)], start_id=start_id(model)).to(next(model.parameters()).device))
