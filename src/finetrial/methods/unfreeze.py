"""Training some of the base's own blocks: the last ones, the first ones, or those that are named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from finetrial.errors import ModelError
from finetrial.methods.base import Component, InPlace, Method
from finetrial.models import block_sizes
from finetrial.models.block_sizes import StackName
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_WEIGHTS, _RECIPE = "unfrozen.safetensors", "recipe.json"


class Unfreeze(Method):
    """Train the `last` blocks of the base, the `first` ones, or `blocks` by number (from 0); all else stays frozen.

    `final_norm` adds the norm after the last block; `embeddings` the token embedding, learned positions and the head
    (with tied weights embedding and head are one matrix).
    """

    in_place: ClassVar[bool] = True
    summary: ClassVar[str] = "some of the base's own blocks"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"last": 1}, {"blocks": [0], "final_norm": True, "embeddings": True})

    last: int | None = Field(None, ge=1)
    first: int | None = Field(None, ge=1)
    blocks: tuple[int, ...] | None = Field(None, min_length=1)
    stack: StackName = "decoder"
    final_norm: bool = False
    embeddings: bool = False

    @model_validator(mode="after")
    def _one_choice(self) -> Unfreeze:
        given = [name for name in ("last", "first", "blocks") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of last, first and blocks; given: {', '.join(given) or 'none'}")
        if self.blocks is not None and (min(self.blocks) < 0 or len(set(self.blocks)) < len(self.blocks)):
            raise ValueError(f"blocks are counted from 0 and named once, got {list(self.blocks)}")
        return self

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str, instance: str = "") -> Component:
        """Own the chosen blocks; draws nothing."""
        return _Component(slot, instance, model, self, self._names(model))

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """The chosen blocks, norms and embeddings; None if the architecture is not known."""
        if config.get("model_type") not in ("gpt2", "llama", "gemma", "mistral", "t5"):
            return None
        try:
            return self._count(config)
        except KeyError:
            return None

    def _count(self, config: Mapping[str, Any]) -> int | None:
        total = block_sizes.embedding_parameters(config) if self.embeddings else 0
        for stack in block_sizes.stack_indices(config["model_type"] == "t5", self.stack):
            chosen = self.chosen_blocks(block_sizes.depth(config, stack))
            block = block_sizes.block_parameters(config, stack, block_sizes.full_widths(config))
            if block is None:
                return None
            total += len(chosen) * block + (block_sizes.position_bias_parameters(config) if 0 in chosen else 0)
            total += block_sizes.norm_parameters(config) if self.final_norm else 0
        return total

    def chosen_blocks(self, depth: int) -> list[int]:
        """The blocks to train. Raises ModelError for more than there are."""
        wanted = max(self.blocks) + 1 if self.blocks is not None else self.last or self.first or 0
        if wanted > depth:
            option = {"blocks": self.blocks and list(self.blocks), "last": self.last, "first": self.first}
            name, value = next((name, value) for name, value in option.items() if value is not None)
            raise ModelError(f"{name} = {value}: the base has {depth} blocks", f"choose among 0 to {depth - 1}"
                             if name == "blocks" else f"choose at most {depth}")
        if self.blocks is not None:
            return sorted(self.blocks)
        return list(range(depth - wanted, depth)) if self.last is not None else list(range(wanted))

    def _names(self, model: Any) -> list[str]:
        """The chosen parameters, in the base's numbering."""
        from finetrial.models.blocks import architecture_of, stacks
        from finetrial.models.insert import own_blocks
        from finetrial.models.origin import base_parameters

        parts, kind = [], architecture_of(model)
        for stack in block_sizes.stack_indices(kind.encoder_decoder, self.stack):
            chosen = self.chosen_blocks(len(own_blocks(stacks(model)[stack])))
            parts += [f"{kind.stacks[stack]}.{number}." for number in chosen]
            parts += [f"{kind.norms[stack]}."] if self.final_norm else []
        if self.embeddings:
            parts += [f"{kind.embedding}.", f"{kind.head}.", "transformer.wpe."]
        return [name for name in base_parameters(model) if name.startswith(tuple(parts))]


class _Component(InPlace):
    def __init__(self, slot: str, instance: str, model: PreTrainedModel, method: Unfreeze, names: list[str]) -> None:
        super().__init__(slot, instance)
        self._model, self._method, self._names = model, method, names

    def parameters(self) -> Mapping[str, nn.Parameter]:
        from finetrial.models.origin import base_parameters

        base = base_parameters(self._model)
        return {name: base[name] for name in self._names}

    def save(self, folder: Path) -> None:
        """`unfrozen.safetensors`, names as in the base: `load_state_dict(strict=False)` reads it; and `recipe.json`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in self.parameters().items()}
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        recipe = {"model_type": self._model.config.model_type, **self._method.model_dump(mode="json")}
        (folder / _RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        from finetrial.models.params import fill

        fill(self.parameters(), folder / _WEIGHTS, "load it with the blocks that it was trained with")
