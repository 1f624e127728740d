"""Full fine-tuning: every parameter of the base is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.errors import ModelError
from finetrial.methods.base import Component, InPlace, Method
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Full(Method):
    """Train all parameters of the base, merged blocks among them; adapters and blocks of other components are theirs."""

    in_place: ClassVar[bool] = True
    summary: ClassVar[str] = "all parameters of the base"

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str, instance: str = "") -> Component:
        """Own every parameter; draws nothing."""
        return _Component(slot, instance, model)

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """All parameters of the model."""
        from finetrial.models.shapes import count_parameters

        return count_parameters(config)


class _Component(InPlace):
    def __init__(self, slot: str, instance: str, model: PreTrainedModel) -> None:
        super().__init__(slot, instance)
        self._model = model

    def parameters(self) -> Mapping[str, nn.Parameter]:
        from finetrial.models.origin import base_parameters

        return base_parameters(self._model, merged=True)

    def save(self, folder: Path) -> None:
        """The base, as transformers saves it (config.json, model.safetensors), without what others have attached."""
        from finetrial.models.insert import base_config
        from finetrial.models.origin import base_state

        self._model.save_pretrained(folder, state_dict=base_state(self._model, merged=True))
        base_config(self._model).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        import torch

        from finetrial.models.load import read_weights
        from finetrial.models.origin import base_state

        own = base_state(self._model, merged=True)
        weights = {name: tensor for path in sorted(folder.glob("*.safetensors"))
                   for name, tensor in read_weights(path).items()}
        tied = set(getattr(self._model, "all_tied_weights_keys", {}))  # saved once, under the other name
        missing, extra = set(own) - set(weights) - tied, set(weights) - set(own)
        other = [name for name in weights if name in own and weights[name].shape != own[name].shape]
        if missing or extra or other:
            raise ModelError(f"{folder} does not hold this model's weights: missing {sorted(missing)[:3]}, "
                             f"unknown {sorted(extra)[:3]}, of another shape {sorted(other)[:3]}",
                             "load weights saved from a model of the same shape")
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].copy_(tensor)
