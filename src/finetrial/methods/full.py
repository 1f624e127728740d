"""Full fine-tuning: every parameter of the base is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.errors import ModelError
from finetrial.methods.base import Component, Method
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Full(Method):
    """Train all parameters."""

    summary: ClassVar[str] = "all parameters of the base"

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str) -> Component:
        """Own every parameter; draws nothing."""
        return _Component(slot, model)

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """All parameters of the model."""
        from finetrial.models.shapes import count_parameters

        return count_parameters(config)


class _Component(Component):
    def __init__(self, slot: str, model: PreTrainedModel) -> None:
        super().__init__(slot)
        self._model = model

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return dict(self._model.named_parameters())

    def save(self, folder: Path) -> None:
        """The whole model, as transformers saves it (config.json, model.safetensors)."""
        self._model.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        from finetrial.models.load import read_weights

        own = self._model.state_dict()
        weights = {name: tensor for path in sorted(folder.glob("*.safetensors"))
                   for name, tensor in read_weights(path).items()}
        tied = set(getattr(self._model, "all_tied_weights_keys", {}))  # saved once, under the other name
        missing, extra = set(own) - set(weights) - tied, set(weights) - set(own)
        if missing or extra:
            raise ModelError(f"{folder} does not hold this model's weights: missing {sorted(missing)[:3]}, "
                             f"unknown {sorted(extra)[:3]}", "load weights saved from a model of the same shape")
        self._model.load_state_dict(weights, strict=False)
