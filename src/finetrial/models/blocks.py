"""The parts of a loaded model, found by the table in `shapes`: stacks of blocks, backbone, embedding, norms, head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from finetrial.errors import ModelError
from finetrial.models import shapes
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


def encoder(model: nn.Module) -> nn.Module:
    """The encoder of an encoder-decoder: source ids to hidden states."""
    return model.get_submodule(architecture_of(model).stacks[0].rpartition(".")[0])


def decoder(model: nn.Module) -> nn.Module:
    """The decoder of an encoder-decoder, without the head."""
    return model.get_submodule(architecture_of(model).stacks[-1].rpartition(".")[0])


def encode(model: nn.Module, source_ids: Tensor, source_mask: Tensor | None) -> Tensor:
    """The encoder's hidden states (R, S, D) of sources (R, S); the mask (R, S) is True where a token is real."""
    output = encoder(model)(inputs_embeds=embedding(model)(source_ids), attention_mask=source_mask)
    states: Tensor = output.last_hidden_state
    return states


def embedding(model: nn.Module) -> nn.Embedding:
    """The token embedding."""
    module = model.get_submodule(architecture_of(model).embedding)
    assert isinstance(module, nn.Embedding)
    return module


def final_norms(model: nn.Module) -> list[nn.Module]:
    """The norm after the last block of each stack."""
    return [model.get_submodule(path) for path in architecture_of(model).norms]


def head(model: nn.Module) -> nn.Linear:
    """The output head, hidden states to logits; its weight may be the embedding's.

    Raises ModelError for a model that was loaded without one.
    """
    module = getattr(model, architecture_of(model).head, None)
    if not isinstance(module, nn.Linear):
        raise ModelError(f"{type(model).__name__} has no output head ({architecture_of(model).head})",
                         "load it as a model that predicts tokens (AutoModelForCausalLM, AutoModelForSeq2SeqLM)")
    return module


def head_scale(model: Any) -> float:
    """What hidden states are multiplied by before the head: d_model**-0.5 for a T5 of the first kind (tied), else 1."""
    return float(model.config.d_model**-0.5) if getattr(model.config, "scale_decoder_outputs", False) else 1.0


def start_id(model: Any) -> int:
    """The token that opens an encoder-decoder's output; 0 for a decoder, which has none.

    Raises ModelError for an encoder-decoder whose configuration names none.
    """
    if not architecture_of(model).encoder_decoder:
        return 0
    found = getattr(model.config, "decoder_start_token_id", None)
    if found is None:
        raise ModelError(f"this {model.config.model_type} model's config.json has no decoder_start_token_id",
                         "set it to the id of the padding token, as T5 does")
    return int(found)


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """The matrix layers (Linear, and GPT-2's Conv1D) by path, without the head."""
    from transformers.pytorch_utils import Conv1D

    skipped = architecture_of(model).head
    return {name: module for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and name != skipped}


def recompute(model: Any, switched_on: bool) -> None:
    """Let each block keep only its input for the backward pass and be computed again then (Chen et al. 2016, arXiv
    1604.06174), or no longer.

    Transformers would make the embeddings' output need a gradient as well, for a kind of checkpointing that it does not
    use here; blocks below everything that is trained would then be computed again for nothing.
    """
    named_anew = hasattr(model, "activation_checkpointing_enable")  # transformers 5.23 and later
    if not switched_on:
        (model.activation_checkpointing_disable if named_anew else model.gradient_checkpointing_disable)()
        return
    if named_anew:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()


def max_positions(config: Any) -> int | None:
    """The most tokens a document may have, as `shapes.max_positions` tells from a config.json."""
    return shapes.max_positions(config.to_dict())
