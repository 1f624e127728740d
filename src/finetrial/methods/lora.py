"""LoRA (Hu et al. 2021, arXiv 2106.09685), through peft: low-rank matrices beside frozen ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from finetrial.errors import ModelError, unknown
from finetrial.methods.base import Component, Method
from finetrial.models.shapes import ARCHITECTURES, linear_shapes, matching
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_PREFIX = "base_model.model."  # of keys in peft's files
_WEIGHTS = "adapter_model.safetensors"


class Lora(Method):
    """W x + (alpha / rank) B A x, with A and B trained and W frozen.

    `alpha` is twice the rank unless given. `targets`: the attention projections, every linear layer but the head, or
    names of layers (as endings of their paths: `q_proj`, `mlp.c_proj`).
    """

    summary: ClassVar[str] = "low-rank adapters beside frozen matrices"

    rank: int = Field(8, gt=0)
    alpha: float | None = Field(None, gt=0)
    targets: Literal["attention", "all-linear"] | tuple[str, ...] = "attention"
    dropout: float = Field(0.0, ge=0, lt=1)

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str) -> Component:
        """Put an adapter named `slot` into `model`; its A is drawn from `adapter/<slot>`, its B is zero."""
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D

        from finetrial.models.blocks import linears

        layers = linears(model)
        shapes = {name: _sides(layer) for name, layer in layers.items()}
        chosen = self._chosen(model.config.model_type, shapes)
        self._check_rank({name: shapes[name] for name in chosen})
        config = LoraConfig(
            r=self.rank, lora_alpha=self._alpha(), lora_dropout=self.dropout, bias="none", task_type="CAUSAL_LM",
            target_modules=self._patterns(model.config.model_type, shapes),
            fan_in_fan_out=any(isinstance(layers[name], Conv1D) for name in chosen))
        with streams.torch_fork(f"adapter/{slot}"):
            inject_adapter_in_model(config, model, adapter_name=slot)
        component = _Component(slot, model, config)
        adapted = {name.rpartition(".lora_A.")[0] for name in component.parameters() if ".lora_A." in name}
        assert adapted == set(chosen), f"peft adapted {sorted(adapted)}, chosen were {sorted(chosen)}"
        return component

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """rank * (inputs + outputs) for each adapted layer; None if the architecture is not known without loading."""
        shapes = linear_shapes(config)
        if shapes is None:
            return None
        chosen = self._chosen(config["model_type"], shapes)
        self._check_rank({name: shapes[name] for name in chosen})
        return sum(self.rank * sum(shapes[name]) for name in chosen)

    def _alpha(self) -> float:
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        return int(alpha) if float(alpha).is_integer() else alpha

    def _patterns(self, model_type: str, shapes: Mapping[str, Any]) -> list[str]:
        """Name endings, as peft takes them."""
        if self.targets == "attention":
            return list(ARCHITECTURES[model_type].attention)
        if self.targets == "all-linear":
            return sorted({name.rpartition(".")[2] for name in shapes})
        return list(self.targets)

    def _chosen(self, model_type: str, shapes: Mapping[str, Any]) -> list[str]:
        """The layers to adapt. Raises ModelError for a name that matches none."""
        chosen = set()
        for target in self._patterns(model_type, shapes):
            found = matching(shapes, target)
            if not found:
                endings = {name.rpartition(".")[2] for name in shapes}
                raise ModelError(f"{unknown('LoRA target', target, endings)}: no linear layer of this {model_type} "
                                 "model has a path that ends so", "every name in `targets` must match a layer")
            chosen.update(found)
        return sorted(chosen)

    def _check_rank(self, chosen: Mapping[str, tuple[int, int]]) -> None:
        smallest = min(chosen, key=lambda name: min(chosen[name]))
        limit = min(chosen[smallest])
        if self.rank > limit:
            rows, columns = chosen[smallest]
            raise ModelError(f"LoRA rank {self.rank} is above {limit}, the smaller side of {smallest} "
                             f"({rows} x {columns})", f"choose a rank of at most {limit}, or other targets")


def _sides(layer: Any) -> tuple[int, int]:
    rows, columns = layer.weight.shape
    return rows, columns


class _Component(Component):
    def __init__(self, slot: str, model: PreTrainedModel, config: Any) -> None:
        super().__init__(slot)
        self._model, self._config = model, config

    def parameters(self) -> Mapping[str, nn.Parameter]:
        marks = (f".lora_A.{self.slot}.", f".lora_B.{self.slot}.")
        return {name: parameter for name, parameter in self._model.named_parameters()
                if any(mark in name for mark in marks)}

    def save(self, folder: Path) -> None:
        """PEFT's format: adapter_config.json and adapter_model.safetensors."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {self._key(name): parameter.detach().cpu().contiguous()
                   for name, parameter in self.parameters().items()}
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        self._config.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        import torch

        from finetrial.models.load import read_weights

        weights = read_weights(folder / _WEIGHTS)
        own = {self._key(name): parameter for name, parameter in self.parameters().items()}
        if {name: tensor.shape for name, tensor in weights.items()} != {name: p.shape for name, p in own.items()}:
            raise ModelError(f"{folder / _WEIGHTS} does not fit this adapter ({len(weights)} tensors in the file, "
                             f"{len(own)} in the model, or other shapes)",
                             "load it with the rank and targets that it was trained with")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(weights[name])

    def _key(self, name: str) -> str:
        return _PREFIX + name.replace(f".{self.slot}.", ".")
