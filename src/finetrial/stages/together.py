"""Several training stages in one pass over one base: LoRA cells that differ in seed, learning rate and rank.

Each stage's files and values are those of `Train.run`, up to rounding. Where cells turn out not to be alike, or anything
fails but a single cell, an error goes to the runner, which computes every one of them alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetrial import catalog
from finetrial.errors import ModelError
from finetrial.spec.slots import Carry
from finetrial.stages.adapted import loaded, streams_of
from finetrial.stages.base import Diverged, StageContext, StageTimeout
from finetrial.train.config import Training

if TYPE_CHECKING:
    from finetrial.models.adapters import Adapter
    from finetrial.stages.train import Phase

OWN = ("learning_rate", "seed", "replicate", "num_train")  # of a spec: what cells of a stack may differ in
OWN_OPTIONS = ("rank", "alpha", "dropout")  # of their method


def shared_by_stack(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What training stages that share a pass have in common; None for one that is computed alone.

    One component, whose method can be stacked, on the untouched base or in place of what was there; full-precision base;
    no loss scaler, whose state would be one cell's.
    """
    training, components = Training.model_validate(spec["training"]), spec["components"]
    if len(components) != 1 or training.precision == "fp16" or "quantization" in spec:
        return None
    [component] = components
    method = component.get("method")
    if method is None or not catalog.find("method", method["kind"]).stackable:  # type: ignore[attr-defined]
        return None
    if spec.get("phase", 1) > 1 and component["carry"] != Carry.FRESH.value:
        return None
    alike = {name: value for name, value in method.items() if name not in OWN_OPTIONS}
    return {**{name: value for name, value in spec.items() if name not in OWN},
            "components": [{**component, "method": alike}]}


def train_together(contexts: Sequence[StageContext]) -> list[Mapping[str, Any] | Diverged | StageTimeout]:
    """What `Train.run` returns, or how it failed, for each context, in order. Raises ModelError for cells not alike."""
    from finetrial.models.load import LoadedBase
    from finetrial.models.params import frozen_digest
    from finetrial.models.stacked import StackedAdapters, shell
    from finetrial.stages.train import Phase
    from finetrial.train.checkpoint import Checkpoints
    from finetrial.train.stack import Cell, train_stacked

    first = contexts[0]
    base = loaded(first.spec, first.locations["base"], first.device)
    carrier = base.model.to(first.device)
    phases = [Phase(context, LoadedBase(shell(carrier), base.tokenizer, base.config)) for context in contexts]
    for phase in phases:
        phase.to_device()
    adapters = StackedAdapters(carrier, _alike(phases))
    frozen = frozen_digest(phases[0].model)  # the others share every frozen weight, under the same names
    with contextlib.ExitStack() as files:
        recorders = [files.enter_context(phase.recording()) for phase in phases]
        cells = [Cell(model=phase.model, components=phase.adapted.components, dataset=phase.dataset, config=phase.training,
                      learning_rate=phase.context.spec["learning_rate"], streams=streams_of(phase.context.spec),
                      on_metrics=recorder, validate=phase.validator(None),
                      checkpoints=Checkpoints(phase.context.checkpoint))
                 for phase, recorder in zip(phases, recorders, strict=True)]
        ended = train_stacked(carrier, adapters, cells, device=first.device, micro_batch=first.micro_batch,
                              deadline=first.deadline)
    assert frozen == frozen_digest(phases[0].model), "training changed weights that no component owns"
    for context in contexts:
        context.execution["stacked_cells"] = len(contexts)
    return [result if isinstance(result, (Diverged, StageTimeout)) else phase.finish(recorder, result, frozen)
            for phase, recorder, result in zip(phases, recorders, ended, strict=True)]


def _alike(phases: Sequence[Phase]) -> list[Adapter]:
    """The one adapter of each. Raises ModelError unless they can share a carrier."""
    from finetrial.methods.lora import AdapterComponent
    from finetrial.models.stacked import can_stack

    adapters = []
    for phase in phases:
        active = list((phase.adapted.active or {}).values())
        if phase.adapted.state.merged or len(active) != 1 or not isinstance(active[0], AdapterComponent):
            raise ModelError("cells of a stack hold more than one fresh adapter each", "they are computed one by one")
        adapters.append(active[0].adapter)
    if not can_stack(adapters):
        raise ModelError("the adapters of a stack are not on the same layers", "they are computed one by one")
    return adapters
