"""New transformer blocks, inserted into the base and trained; the base's own blocks stay as they are.

With zeroed output projections (`output_scale` 0) a new block adds exactly nothing before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from finetrial.errors import ModelError
from finetrial.methods.base import Component, Method, component_name, stream_of
from finetrial.models import block_sizes
from finetrial.models.block_sizes import StackName
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_WEIGHTS, _RECIPE = "blocks.safetensors", "recipe.json"


class Layer(Method):
    """Insert `count` new blocks into the decoder, the encoder, or each of both.

    `position`: after the last of the base's blocks, before the first, above its lower half, one after each of `count` groups
    of blocks (interleaved), or all of them below the block with this number. `init`: a copy of the block below (at the start, of
    the block above), or random as the library initialises a new model; either way the output projections are multiplied
    by `output_scale`. `inner` and `heads` make the block narrower than the base's; merged, it is padded with zeros.
    """

    summary: ClassVar[str] = "new transformer blocks inside a frozen base"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {}, {"position": "start"}, {"position": "interleaved", "count": 2}, {"inner": 24, "position": 1},
        {"init": "random", "output_scale": 0.5})

    count: int = Field(1, ge=1)
    position: Literal["end", "start", "middle", "interleaved"] | Annotated[int, Field(ge=0)] = "end"
    stack: StackName = "decoder"
    init: Literal["copy", "random"] = "copy"
    output_scale: float = Field(0.0, ge=0)
    inner: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)

    @property
    def step_0(self) -> Literal["exact", "rounding", "other"]:
        """Exact unless the output projections have weights."""
        return "exact" if self.output_scale == 0 else "other"

    @property
    def takes_quantized(self) -> bool:
        """New blocks are in fp32; a copy starts from the values that the copied block computes with."""
        return True

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str, instance: str = "") -> Component:
        """Insert the blocks; a random one is drawn from the component's stream."""
        from finetrial.models import insert, new_block
        from finetrial.models.blocks import architecture_of, stacks

        insert.check_insertable(model)
        config = model.config.to_dict()
        widths = block_sizes.narrow_widths(config, self.inner, self.heads)
        placed = []
        with streams.torch_fork(stream_of(slot, instance)):
            for number in block_sizes.stack_indices(architecture_of(model).encoder_decoder, self.stack):
                stack = stacks(model)[number]
                for gap in self.gaps(len(insert.own_blocks(stack))):
                    block = new_block.make(model, stack, max(gap - 1, 0), widths, self.init, self.output_scale)
                    placed.append(_Placed(stack, architecture_of(model).stacks[number], gap, block))
        for place in placed:  # once all are drawn: the spread of a random block may depend on the model's depth
            insert.insert(model, place.stack, place.gap, place.block, component_name(slot, instance))
        return _Component(slot, instance, model, self, placed, widths)

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """`count` times the parameters of such a block in each stack; None if the architecture is not known."""
        if config.get("model_type") not in ("gpt2", "llama", "gemma", "mistral", "t5"):
            return None
        try:
            widths = block_sizes.narrow_widths(config, self.inner, self.heads)
            sizes = [(self.gaps(block_sizes.depth(config, stack)), block_sizes.block_parameters(config, stack, widths))
                     for stack in block_sizes.stack_indices(config["model_type"] == "t5", self.stack)]
        except KeyError:
            return None
        return None if any(size is None for _, size in sizes) else sum(len(gaps) * (size or 0) for gaps, size in sizes)

    def gaps(self, depth: int) -> list[int]:
        """How many of the base's `depth` blocks lie below each new one. Raises ModelError if they do not fit."""
        if self.position == "end":
            return [depth] * self.count
        if self.position == "start":
            return [0] * self.count
        if self.position == "middle":
            return [depth // 2] * self.count
        if self.position == "interleaved":
            if self.count > depth:
                raise ModelError(f"count = {self.count} interleaved blocks: the base has only {depth} blocks",
                                 f"choose a count of at most {depth}, or another position")
            return [number * depth // self.count for number in range(1, self.count + 1)]
        if self.position > depth:
            raise ModelError(f"position = {self.position}: the base has {depth} blocks",
                             f"choose a number from 0 (start) to {depth} (end)")
        return [self.position] * self.count


@dataclass(frozen=True)
class _Placed:
    """A new block and where it belongs."""

    stack: nn.ModuleList
    path: str
    gap: int
    block: nn.Module


class _Component(Component):
    def __init__(self, slot: str, instance: str, model: PreTrainedModel, method: Layer, placed: list[_Placed],
                 widths: block_sizes.Widths) -> None:
        super().__init__(slot, instance)
        self._model, self._method, self._placed, self._widths = model, method, placed, widths
        self._active = True

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._weights() if self._active else {}

    def _weights(self) -> dict[str, nn.Parameter]:
        """`decoder.block.new.0.layer.0...`: by stack and number among this component's blocks."""
        from finetrial.models.insert import POSITION_BIAS

        return {f"{place.path}.new.{number}.{name}": parameter for number, place in enumerate(self._placed)
                for name, parameter in place.block.named_parameters() if POSITION_BIAS not in name}

    def save(self, folder: Path) -> None:
        """`blocks.safetensors`, and `recipe.json`: where each block belongs in the base."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in self._weights().items()}
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        recipe = {"model_type": self._model.config.model_type, **self._method.model_dump(mode="json"),
                  "blocks": [{"stack": place.path, "base_blocks_below": place.gap} for place in self._placed]}
        (folder / _RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        from finetrial.models.params import fill

        fill(self._weights(), folder / _WEIGHTS, "load it with the count, stack and widths that it was trained with")

    def merge(self) -> None:
        """The blocks become part of the model, padded to the base's width."""
        from finetrial.models import insert, narrow

        self.set_active(True)
        kind, full = self._model.config.model_type, block_sizes.full_widths(self._model.config.to_dict())
        for place in self._placed:
            narrow.widen(place.block, kind, self._widths, full)
            insert.merge(place.block)

    def unload(self) -> None:
        self.set_active(False)

    def set_active(self, active: bool) -> None:
        """Take the blocks out of the model, or put them back where they were."""
        from finetrial.models import insert

        if active == self._active:
            return
        for place in self._placed:
            if active:
                place.block.to(self._model.device)  # it may have moved meanwhile
                insert.insert(self._model, place.stack, place.gap, place.block, self.name)
            else:
                insert.remove(self._model, place.stack, place.block)
        self._active = active
