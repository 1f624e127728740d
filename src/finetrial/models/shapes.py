"""What a model's config.json says about its parts and sizes. No torch here: plans are made from it.

One table, one row an architecture, by the paths of its parts; `config.model_type` picks the row. The sizes follow the
architectures of transformers; a configuration this file does not understand gives None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetrial.errors import ModelError, unknown
from finetrial.models.block_sizes import (
    block_parameters,
    depth,
    embedding_parameters,
    full_widths,
    norm_parameters,
    position_bias_parameters,
)

Attention = Literal["sdpa", "eager"]
Quantization = Literal["nf4"]  # how a base's matrices are held, where not in fp32: `models/quantized.py`
MISTRAL_WINDOW = 4096  # of a config.json that does not say
Shapes = dict[str, tuple[int, int]]  # linear layer, by its path in the model: (inputs, outputs)


@dataclass(frozen=True)
class Architecture:
    """Where the parts of one architecture are, as paths from the model with its head."""

    stacks: tuple[str, ...]  # lists of blocks; for an encoder-decoder, the encoder's first
    backbone: str
    embedding: str
    norms: tuple[str, ...]  # the final norm of each stack
    head: str
    attention: tuple[str, ...]  # the attention projections, as endings of their paths
    encoder_decoder: bool = False
    sdpa: bool = True  # False: eager attention, whatever is asked for


_LLAMA = Architecture(("model.layers",), "model", "model.embed_tokens", ("model.norm",), "lm_head",
                      ("q_proj", "k_proj", "v_proj", "o_proj"))

ARCHITECTURES: Mapping[str, Architecture] = {
    "gpt2": Architecture(("transformer.h",), "transformer", "transformer.wte", ("transformer.ln_f",), "lm_head",
                         ("c_attn", "attn.c_proj")),
    "llama": _LLAMA,
    "gemma": _LLAMA,
    "mistral": _LLAMA,
    "t5": Architecture(("encoder.block", "decoder.block"), "", "shared",
                       ("encoder.final_layer_norm", "decoder.final_layer_norm"), "lm_head", ("q", "k", "v", "o"),
                       encoder_decoder=True, sdpa=False),
}


def architecture(model_type: str) -> Architecture:
    """The row of the table for `config.model_type`. Raises ModelError with the known ones."""
    if model_type not in ARCHITECTURES:
        raise ModelError(unknown("model architecture", model_type, ARCHITECTURES),
                         "use a model of one of the known architectures")
    return ARCHITECTURES[model_type]


def attention_used(model_type: str, wanted: Attention) -> Attention:
    """The attention that a model is loaded with.

    T5 is always eager. Its learned position bias is the attention's mask, and torch's fused kernel cannot give a mask a
    gradient: with sdpa an arm that trains the bias (full fine-tuning) would run another kernel than one that does not
    (LoRA), and their logits would differ by up to 0.03 in bf16 before anything is learned.
    """
    return wanted if architecture(model_type).sdpa else "eager"


def max_positions(config: Mapping[str, Any]) -> int | None:
    """The most tokens a document may have; None where the architecture sets no limit (T5's relative positions, whatever
    `n_positions` its config.json still holds).

    Where blocks see no further than a sliding window, its width: masks of packed rows and cached decoding have none. Of what
    a file leaves out, only Mistral's window is filled in.
    """
    kind = config.get("model_type")
    if kind == "t5":
        return None
    window = config.get("sliding_window", MISTRAL_WINDOW if kind == "mistral" else None)
    limits = (config.get("n_positions"), config.get("max_position_embeddings"),
              window if config.get("use_sliding_window", True) else None)
    return min((int(limit) for limit in limits if isinstance(limit, int)), default=None)


def linear_shapes(config: Mapping[str, Any]) -> Shapes | None:
    """The linear layers inside the blocks, without the head; None if the configuration is not known."""
    known: Mapping[str, Callable[[Mapping[str, Any]], Shapes]] = {
        "gpt2": _gpt2_linears, "llama": _llama_linears, "gemma": _llama_linears,
        "mistral": _llama_linears, "t5": _t5_linears}
    if config.get("model_type") not in known:
        return None
    try:
        return known[config["model_type"]](config)
    except KeyError:
        return None


def embedding_shape(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """(tokens, width) of the input embedding; None if the configuration does not say."""
    width = {"gpt2": "n_embd", "t5": "d_model"}.get(config.get("model_type", ""), "hidden_size")
    sizes = (config.get("vocab_size"), config.get(width))
    return (sizes[0], sizes[1]) if isinstance(sizes[0], int) and isinstance(sizes[1], int) else None


def count_parameters(config: Mapping[str, Any]) -> int | None:
    """All parameters of a model, tied ones once; None if the configuration is not known.

    A T5 whose configuration says that its head is not tied (v1.1, Flan) is counted as its checkpoints are published:
    with a head of its own.
    """
    if linear_shapes(config) is None:
        return None
    total = 0
    try:
        for stack in range(len(ARCHITECTURES[config["model_type"]].stacks)):
            block = block_parameters(config, stack, full_widths(config))
            if block is None:
                return None
            total += depth(config, stack) * block + norm_parameters(config) + position_bias_parameters(config)
        return total + embedding_parameters(config)
    except KeyError:
        return None


def matching(names: Mapping[str, Any], target: str) -> list[str]:
    """The paths that `target` names: equal to it, or ending with it at a dot."""
    return [name for name in names if name == target or name.endswith(f".{target}")]


def _gpt2_linears(config: Mapping[str, Any]) -> Shapes:
    width = config["n_embd"]
    inner = config.get("n_inner") or 4 * width
    block = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width),
             "mlp.c_fc": (width, inner), "mlp.c_proj": (inner, width)}
    return {f"transformer.h.{layer}.{name}": shape for layer in range(config["n_layer"])
            for name, shape in block.items()}


def _t5_linears(config: Mapping[str, Any]) -> Shapes:
    width, heads, inner = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    attention = {"q": (width, heads), "k": (width, heads), "v": (width, heads), "o": (heads, width)}
    inputs = ("wi_0", "wi_1") if config.get("feed_forward_proj", "relu").startswith("gated-") else ("wi",)
    forward = {**dict.fromkeys(inputs, (width, inner)), "wo": (inner, width)}
    parts = {"encoder": {"SelfAttention": attention, "DenseReluDense": forward},
             "decoder": {"SelfAttention": attention, "EncDecAttention": attention, "DenseReluDense": forward}}
    return {f"{stack}.block.{block}.layer.{layer}.{part}.{name}": shape
            for number, stack in enumerate(parts) for block in range(depth(config, number))
            for layer, (part, linears) in enumerate(parts[stack].items()) for name, shape in linears.items()}


def _llama_linears(config: Mapping[str, Any]) -> Shapes:
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_width = config.get("head_dim") or width // heads
    keys = (config.get("num_key_value_heads") or heads) * head_width
    block = {"self_attn.q_proj": (width, heads * head_width), "self_attn.k_proj": (width, keys),
             "self_attn.v_proj": (width, keys), "self_attn.o_proj": (heads * head_width, width),
             "mlp.gate_proj": (width, inner), "mlp.up_proj": (width, inner), "mlp.down_proj": (inner, width)}
    return {f"model.layers.{layer}.{name}": shape for layer in range(config["num_hidden_layers"])
            for name, shape in block.items()}
