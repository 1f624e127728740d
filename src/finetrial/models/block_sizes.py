"""The sizes of a transformer block, of the norms and of the embeddings, from config.json alone. No torch here.

A configuration that this file does not understand gives None, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetrial.errors import ModelError

StackName = Literal["encoder", "decoder", "both"]


@dataclass(frozen=True)
class Widths:
    """The inner widths of a block. `attention` and `keys` are heads times their width."""

    heads: int
    key_heads: int
    attention: int
    keys: int
    inner: int


def stack_indices(encoder_decoder: bool, stack: StackName) -> list[int]:
    """The stacks that are meant, as indices into `Architecture.stacks`. Raises ModelError for an absent encoder."""
    if encoder_decoder:
        return {"encoder": [0], "decoder": [1], "both": [0, 1]}[stack]
    if stack != "decoder":
        raise ModelError(f"stack {stack}: this model has no encoder", "use stack decoder")
    return [0]


def full_widths(config: Mapping[str, Any]) -> Widths:
    """The base's own widths. Raises KeyError for a configuration that does not state them."""
    kind = config["model_type"]
    if kind == "gpt2":
        width, heads = config["n_embd"], config["n_head"]
        return Widths(heads, heads, width, width, config.get("n_inner") or 4 * width)
    if kind == "t5":
        heads = config["num_heads"]
        return Widths(heads, heads, heads * config["d_kv"], heads * config["d_kv"], config["d_ff"])
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head, keys = config.get("head_dim") or width // heads, config.get("num_key_value_heads") or heads
    return Widths(heads, keys, heads * head, keys * head, config["intermediate_size"])


def narrow_widths(config: Mapping[str, Any], inner: int | None, heads: int | None) -> Widths:
    """The widths of a block with `heads` heads and `inner` units; None means the base's.

    Raises ModelError for more than the base has, or for heads that cannot be cut so.
    """
    full = full_widths(config)
    inner, heads = full.inner if inner is None else inner, full.heads if heads is None else heads
    for name, wanted, most in (("inner", inner, full.inner), ("heads", heads, full.heads)):
        if wanted > most:
            raise ModelError(f"{name} = {wanted}: the base's blocks have {most}, and a new block must not be wider, or "
                             "the model could not be saved for plain transformers", f"choose at most {most}")
    if heads < full.heads and config["model_type"] == "t5":
        raise ModelError(f"heads = {heads}: the {full.heads} heads of a T5 share one table of position biases and "
                         "cannot be cut", "leave heads out, and choose a smaller inner")
    group = full.heads // full.key_heads  # query heads for each key head
    if heads > group and heads % group:
        raise ModelError(f"heads = {heads}: {group} query heads share a key head in this base",
                         f"choose a number up to {group}, or a multiple of it")
    keys = max(1, heads // group)
    return Widths(heads, keys, heads * (full.attention // full.heads), keys * (full.keys // full.key_heads), inner)


def depth(config: Mapping[str, Any], stack: int) -> int:
    """The number of blocks of a stack. Raises KeyError for a configuration that does not state it."""
    if config["model_type"] == "t5":
        layers = config["num_layers"]
        return int(layers if stack == 0 else config.get("num_decoder_layers") or layers)
    return int(config["n_layer"] if config["model_type"] == "gpt2" else config["num_hidden_layers"])


def block_parameters(config: Mapping[str, Any], stack: int, widths: Widths) -> int | None:
    """The parameters of one block, without T5's position bias (which belongs to the stack)."""
    width, kind = _model_width(config), config["model_type"]
    if kind == "gpt2":
        matrices = 4 * width * widths.attention + 2 * width * widths.inner
        return matrices + 3 * widths.attention + widths.inner + 2 * width + 4 * width  # biases, norms
    if kind == "t5":
        attentions = stack + 1  # a decoder block also attends to the encoder
        mlp = (3 if str(config.get("feed_forward_proj", "relu")).startswith("gated") else 2) * width * widths.inner
        return attentions * 4 * width * widths.attention + mlp + (attentions + 1) * width
    if config.get("attention_bias") or config.get("mlp_bias"):
        return None
    return 2 * width * (widths.attention + widths.keys) + 3 * width * widths.inner + 2 * width


def position_bias_parameters(config: Mapping[str, Any]) -> int:
    """T5's relative position bias: one number for each bucket and head of a stack."""
    if config["model_type"] != "t5":
        return 0
    return int(config.get("relative_attention_num_buckets", 32) * config["num_heads"])


def norm_parameters(config: Mapping[str, Any]) -> int:
    """The final norm of one stack."""
    return _model_width(config) * (2 if config["model_type"] == "gpt2" else 1)


def embedding_parameters(config: Mapping[str, Any]) -> int:
    """Token embedding, positions where they are learned, and the head where it is not tied to the embedding."""
    width, kind = _model_width(config), config["model_type"]
    tied = config.get("tie_word_embeddings", kind not in ("llama", "mistral"))
    if kind == "t5":  # transformers forces the first to true; the second tells the first kind of T5 from the later one
        tied = tied and config.get("scale_decoder_outputs", True)
    positions = config["n_positions"] if kind == "gpt2" else 0
    return int((config["vocab_size"] * (1 if tied else 2) + positions) * width)


def _model_width(config: Mapping[str, Any]) -> int:
    return int(config[{"gpt2": "n_embd", "t5": "d_model"}.get(config["model_type"], "hidden_size")])
