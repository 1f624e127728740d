"""The parts of a loaded model, found by the table in `shapes`: stacks of blocks, backbone, embedding, norms, head."""

from __future__ import annotations

from typing import Any

from torch import nn

from finetrial.models.shapes import Architecture, architecture


def architecture_of(model: Any) -> Architecture:
    """The row of the table for a loaded model. Raises ModelError for an unknown one."""
    return architecture(model.config.model_type)


def stacks(model: nn.Module) -> list[nn.ModuleList]:
    """The lists of blocks; for an encoder-decoder, the encoder's first."""
    found = [model.get_submodule(path) for path in architecture_of(model).stacks]
    return [stack for stack in found if isinstance(stack, nn.ModuleList)]


def backbone(model: nn.Module) -> nn.Module:
    """The model without its head: ids to hidden states."""
    return model.get_submodule(architecture_of(model).backbone)


def embedding(model: nn.Module) -> nn.Embedding:
    """The token embedding."""
    module = model.get_submodule(architecture_of(model).embedding)
    assert isinstance(module, nn.Embedding)
    return module


def final_norms(model: nn.Module) -> list[nn.Module]:
    """The norm after the last block of each stack."""
    return [model.get_submodule(path) for path in architecture_of(model).norms]


def head(model: nn.Module) -> nn.Linear:
    """The output head, hidden states to logits; its weight may be the embedding's."""
    module = model.get_submodule(architecture_of(model).head)
    assert isinstance(module, nn.Linear)
    return module


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """The matrix layers (Linear, and GPT-2's Conv1D) by path, without the head."""
    from transformers.pytorch_utils import Conv1D

    skipped = architecture_of(model).head
    return {name: module for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and name != skipped}


def max_positions(config: Any) -> int | None:
    """The most tokens a document may have; None where the architecture sets no limit (relative positions)."""
    value = getattr(config, "max_position_embeddings", None)
    return int(value) if value is not None else None
