"""Probe: how far an adapted model has moved from its base, in its predictions and in its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.stages.adapted import answer_digest, answering_model, forget_live, reopen, untouched_base
from finetrial.stages.base import StageContext, StageKind

if TYPE_CHECKING:
    from finetrial.stages.adapted import Adapted

PROBE = "probe.parquet"


class Probe(StageKind):
    """Writes `probe.parquet`: item, cluster, kl (nats, KL(base || adapted) summed over target tokens), num_tokens.

    The base is the one in full precision, of an arm that quantises it too. With `weights` in the spec it returns
    `weight_changes` besides: the relative change of each part of the model, None where a component cannot be folded
    into the base.
    """

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """One row an item, in the order of the data."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from finetrial.models.change import weight_changes
        from finetrial.tasks.encoded import TokenDataset
        from finetrial.train.divergence import item_divergences

        spec = context.spec
        dataset = TokenDataset.load(context.inputs["data"].folder / f"{spec['split']}.npz")
        adapted = answering_model(context)
        base, model = (found.model.to(context.device).eval() for found in (untouched_base(context), adapted.base))
        kl, num_tokens = item_divergences(base, model, dataset)
        pq.write_table(pa.table({"item": list(dataset.items), "cluster": list(dataset.clusters), "kl": kl,
                                 "num_tokens": num_tokens}), context.folder / PROBE)
        values = {"num_items": len(dataset), "kl": float(kl.sum()), "num_tokens": int(num_tokens.sum()),
                  "answer_digest": answer_digest(context, adapted)}
        if not spec.get("weights"):
            return values
        forget_live(context)  # what follows changes the model
        if "quantization" in context.inputs["model"].record.identity["spec"]:
            adapted = reopen(context, dequantized=True)
            model = adapted.base.model.to(context.device)
        return {**values, "weight_changes": weight_changes(base, model) if _merged(adapted) else None}


def _merged(adapted: Adapted) -> bool:
    """Fold every component into the base; False if one cannot be."""
    from finetrial.methods.base import Component

    components = (adapted.active or {}).values()
    if any(type(component).merge is Component.merge for component in components):
        return False
    for component in components:
        component.merge()
    return True
