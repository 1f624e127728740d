"""The sizes of a model from its config.json, for any architecture of transformers. No torch here.

A family says what the configurations of an architecture leave unsaid: which norm, which biases, whether the head is the
embedding's. An architecture that is not in the table is read by the names that most configurations share, and
`assumed` says what was taken for granted; one that lacks a size, or is a mixture of experts, gives None.

D width, A width of all heads together, K width of all key heads, I inner width of the MLP, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Config = Mapping[str, Any]

# The same size under the names that architectures give it.
NAMES: Mapping[str, tuple[str, ...]] = {
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "depth": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "inner": ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size"),
    "vocabulary": ("vocab_size",)}
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Family:
    """What architectures of one family have in common."""

    rms: bool = True  # RMSNorm (one vector); False: LayerNorm (weight and bias)
    gated: bool = True  # an MLP of three matrices; False: of two
    biases: tuple[str, ...] = ()  # of the matrices called "in", "out" (attention), "mlp"
    tied: bool = False  # where the configuration does not say
    positions: str = ""  # the name of the number of learned positions; empty: none are learned
    more_positions: int = 0
    norms: int = 2  # in a block
    head_norms: bool = False  # norms of queries and keys, each one head wide
    fused: bool = False  # queries, keys and values are one matrix


_LLAMA = Family()
FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(rms=False, gated=False, biases=("in", "out", "mlp"), tied=True, positions="n_positions", fused=True),
    "opt": Family(rms=False, gated=False, biases=("in", "out", "mlp"), tied=True, positions="max_position_embeddings",
                  more_positions=2),
    "gpt_neox": Family(rms=False, gated=False, biases=("in", "out", "mlp"), fused=True),
    "llama": _LLAMA, "mistral": _LLAMA, "phi3": replace(_LLAMA, fused=True),
    "gemma": Family(tied=True), "gemma2": Family(tied=True, norms=4),
    "gemma3_text": Family(tied=True, norms=4, head_norms=True),
    "qwen2": Family(biases=("in",)), "qwen3": Family(head_norms=True)}


@dataclass(frozen=True)
class Stack:
    """Blocks of one kind. `cross`: they also attend to what an encoder read."""

    depth: int
    heads: int
    key_heads: int
    head_width: int
    inner: int
    gated: bool
    cross: bool = False

    @property
    def attention_width(self) -> int:
        """A."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """K."""
        return self.key_heads * self.head_width

    def matrices(self, width: int) -> int:
        """Parameters of the matrices of one block."""
        attention = 2 * width * (self.attention_width + self.key_width) * (2 if self.cross else 1)
        return attention + (3 if self.gated else 2) * width * self.inner


@dataclass(frozen=True)
class ModelShapes:
    """A model's sizes. `other` counts norms, biases and position tables; `head` is 0 where it is the embedding's."""

    model_type: str
    width: int
    vocabulary: int
    stacks: tuple[Stack, ...]  # of an encoder-decoder, the encoder first
    other: int
    head: int
    rms: bool
    relu: bool
    fused: bool
    norms: int = 2  # in a block, without those of heads
    head_norms: bool = False
    assumed: tuple[str, ...] = ()

    @property
    def matrices(self) -> int:
        """Parameters of the matrices inside the blocks."""
        return sum(stack.depth * stack.matrices(self.width) for stack in self.stacks)

    @property
    def quantizable(self) -> int:
        """Parameters of those that transformers quantises: all but the last matrix of T5's MLP."""
        kept = sum(stack.depth * stack.inner for stack in self.stacks) * self.width if self.encoder_decoder else 0
        return self.matrices - kept

    @property
    def embedding(self) -> int:
        """Parameters of the token embedding."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        return self.matrices + self.embedding + self.head + self.other

    @property
    def encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt."""
        return len(self.stacks) > 1


def read_shapes(config: Config) -> ModelShapes | None:
    """The sizes that a config.json states; None where one is missing or the architecture is of another kind."""
    if any(config.get(name) for name in EXPERTS):
        return None
    try:
        if config.get("model_type") in ("t5", "mt5"):
            return _t5(config)
        if config.get("is_encoder_decoder"):
            return None
        return _decoder(config)
    except KeyError:
        return None


def _decoder(config: Config) -> ModelShapes | None:
    family = FAMILIES.get(config.get("model_type", ""))
    assumed: tuple[str, ...] = ()
    if family is None:
        family, assumed = _guessed(config)
    if config.get("word_embed_proj_dim", _size(config, "width")) != _size(config, "width"):
        return None  # OPT-350m: an embedding narrower than the model
    width, heads, vocabulary = _size(config, "width"), _size(config, "heads"), _size(config, "vocabulary")
    inner = _size(config, "inner", 4 * width)
    head_width = config.get("head_dim") or width // heads
    stack = Stack(_size(config, "depth"), heads, config.get("num_key_value_heads") or heads, head_width, inner,
                  family.gated)
    tied = config.get("tie_word_embeddings", family.tied)
    return ModelShapes(
        config.get("model_type", "unknown"), width, vocabulary, (stack,), _other(config, family, stack, width),
        0 if tied else vocabulary * width, family.rms, _activation(config).startswith("relu"), family.fused,
        family.norms, family.head_norms, assumed)


def _other(config: Config, family: Family, stack: Stack, width: int) -> int:
    """Parameters of norms, biases and learned positions."""
    norm = width if family.rms else 2 * width
    biases = set(family.biases)
    if config.get("attention_bias"):
        biases |= {"in", "out"}
    if config.get("mlp_bias"):
        biases.add("mlp")
    block = family.norms * norm
    block += stack.attention_width + 2 * stack.key_width if "in" in biases else 0
    block += width if "out" in biases else 0
    block += ((2 if stack.gated else 1) * stack.inner + width) if "mlp" in biases else 0
    block += 2 * stack.head_width if family.head_norms else 0
    positions = (config[family.positions] + family.more_positions) * width if family.positions else 0
    return int(stack.depth * block + norm + positions)


def _guessed(config: Config) -> tuple[Family, tuple[str, ...]]:
    """The family that the names in a configuration speak for, and what that takes for granted."""
    rms = "rms_norm_eps" in config
    gated = rms or _activation(config) in ("silu", "swiglu", "geglu")
    tied = config.get("tie_word_embeddings")
    name = config.get("model_type", "the architecture")
    first = (f"{name} is not a known architecture; taken for a decoder whose blocks have {'RMSNorm' if rms else 'LayerNorm'}, "
             f"an MLP of {'three' if gated else 'two'} matrices, no biases, no learned positions")
    said = [first]
    if not any(name in config for name in NAMES["inner"]):
        said.append("the MLP is taken to be four times as wide as the model")
    if tied is None:
        said.append("the head is taken to be a matrix of its own")
    return Family(rms=rms, gated=gated), tuple(said)


def _t5(config: Config) -> ModelShapes:
    width, heads, vocabulary = config["d_model"], config["num_heads"], config["vocab_size"]
    forward = str(config.get("feed_forward_proj", "relu" if config["model_type"] == "t5" else "gated-gelu"))
    stack = Stack(config["num_layers"], heads, heads, config["d_kv"], config["d_ff"], forward.startswith("gated"))
    decoder = replace(stack, depth=config.get("num_decoder_layers") or stack.depth, cross=True)
    norms = (2 * stack.depth + 3 * decoder.depth + 2) * width
    biases = 2 * config.get("relative_attention_num_buckets", 32) * heads
    tied = config.get("tie_word_embeddings", True) and config.get("scale_decoder_outputs", True)
    return ModelShapes(config["model_type"], width, vocabulary, (stack, decoder), norms + biases,
                       0 if tied else vocabulary * width, rms=True, relu=forward == "relu", fused=False)


def _activation(config: Config) -> str:
    named = (config.get(name) for name in ("hidden_act", "activation_function", "hidden_activation"))
    return str(next((name for name in named if name), ""))


def _size(config: Config, what: str, default: int | None = None) -> int:
    """A size by any of its names. Raises KeyError where the configuration has none of them."""
    for name in NAMES[what]:
        if config.get(name) is not None:
            return int(config[name])
    if default is None:
        raise KeyError(what)
    return default
