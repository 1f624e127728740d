"""LoRA (Hu et al. 2021, arXiv 2106.09685), through peft: low-rank matrices beside frozen ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from finetrial.errors import ModelError
from finetrial.methods.base import Component, Method, component_name, stream_of
from finetrial.models.shapes import linear_shapes
from finetrial.models.targets import Targets, chosen, patterns
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from finetrial.models.adapters import Adapter


class Lora(Method):
    """W x + (alpha / rank) B A x, with A and B trained and W frozen.

    `alpha` is twice the rank unless given. `targets`: the attention projections, every linear layer but the head, or
    names of layers (as endings of their paths: `q_proj`, `mlp.c_proj`). Blocks that another component has inserted are
    not adapted.
    """

    stackable: ClassVar[bool] = True
    summary: ClassVar[str] = "low-rank adapters beside frozen matrices"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"rank": 2, "targets": "all-linear"})

    rank: int = Field(8, gt=0)
    alpha: float | None = Field(None, gt=0)
    targets: Targets = "attention"
    dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def takes_quantized(self) -> bool:
        """LoRA only reads the products of the base's matrices."""
        return True

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str, instance: str = "") -> Component:
        """Put an adapter into `model`; its A is drawn from the component's stream, its B is zero."""
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        from finetrial.models.adapters import Adapter
        from finetrial.models.blocks import architecture_of
        from finetrial.models.origin import base_linears
        from finetrial.models.quantized import shape

        layers = {name: layer for name, (_, layer) in base_linears(model).items()}
        shapes = {name: shape(layer) for name, layer in layers.items()}
        kind = model.config.model_type
        adapted = chosen(self.targets, kind, shapes, "LoRA")
        self._check_rank({name: shapes[name] for name in adapted})
        config = LoraConfig(
            r=self.rank, lora_alpha=self._alpha(), lora_dropout=self.dropout, bias="none",
            task_type="SEQ_2_SEQ_LM" if architecture_of(model).encoder_decoder else "CAUSAL_LM",
            target_modules=patterns(self.targets, kind, shapes),
            fan_in_fan_out=any(isinstance(layers[name], Conv1D) for name in adapted))
        with streams.torch_fork(stream_of(slot, instance)):
            adapter = Adapter(model, config, component_name(slot, instance), adapted, alone=False)
        return AdapterComponent(slot, instance, adapter)

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """rank * (inputs + outputs) for each adapted layer; None if the architecture is not known without loading."""
        shapes = linear_shapes(config)
        if shapes is None:
            return None
        adapted = chosen(self.targets, config["model_type"], shapes, "LoRA")
        self._check_rank({name: shapes[name] for name in adapted})
        return sum(self.rank * sum(shapes[name]) for name in adapted)

    def _alpha(self) -> float:
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        return int(alpha) if float(alpha).is_integer() else alpha

    def _check_rank(self, adapted: Mapping[str, tuple[int, int]]) -> None:
        smallest = min(adapted, key=lambda name: min(adapted[name]))
        limit = min(adapted[smallest])
        if self.rank > limit:
            rows, columns = adapted[smallest]
            raise ModelError(f"LoRA rank {self.rank} is above {limit}, the smaller side of {smallest} "
                             f"({rows} x {columns})", f"choose a rank of at most {limit}, or other targets")


class AdapterComponent(Component):
    """An adapter of peft as a component; files are in peft's format (adapter_config.json, adapter_model.safetensors)."""

    def __init__(self, slot: str, instance: str, adapter: Adapter) -> None:
        super().__init__(slot, instance)
        self.adapter = adapter

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self.adapter.parameters()

    def save(self, folder: Path) -> None:
        self.adapter.save(folder)

    def load(self, folder: Path) -> None:
        self.adapter.load(folder)

    def merge(self) -> None:
        self.adapter.fold()

    def unload(self) -> None:
        self.adapter.unload()

    def set_active(self, active: bool) -> None:
        self.adapter.set_active(active)
