"""Sizes computed from config.json alone against models built on the meta device."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from finetrial.models import blocks
from finetrial.models.shapes import count_parameters, linear_shapes


def _configs() -> list[Any]:
    from transformers import GemmaConfig, GPT2Config, LlamaConfig, T5Config

    return [
        GPT2Config(),
        GPT2Config(n_inner=300, n_embd=96, n_head=4, tie_word_embeddings=False),
        LlamaConfig(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
                    num_key_value_heads=4, vocab_size=32000),
        LlamaConfig(hidden_size=64, intermediate_size=172, num_hidden_layers=3, num_attention_heads=8,
                    num_key_value_heads=4, vocab_size=512, tie_word_embeddings=True),
        GemmaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=1, head_dim=32, vocab_size=128),
        T5Config(vocab_size=32100),  # codet5-small
        T5Config(vocab_size=97, d_model=32, d_kv=16, num_heads=4, d_ff=48, num_layers=2, num_decoder_layers=3,
                 feed_forward_proj="gated-gelu", relative_attention_num_buckets=8, tie_word_embeddings=False),
    ]


@pytest.mark.parametrize("index", range(7))
def test_sizes_equal_the_built_models(index: int) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.pytorch_utils import Conv1D

    config = _configs()[index]
    with torch.device("meta"):
        model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
    if not getattr(config, "scale_decoder_outputs", True):  # built tied; checkpoints have a head of their own
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    assert count_parameters(config.to_dict()) == sum(p.numel() for p in model.parameters())
    built = {name: tuple(layer.weight.shape) if isinstance(layer, Conv1D) else tuple(layer.weight.shape)[::-1]
             for name, layer in blocks.linears(model).items()}
    assert linear_shapes(config.to_dict()) == built


def test_known_totals() -> None:
    configs = _configs()
    assert count_parameters(configs[0].to_dict()) == 124_439_808
    assert count_parameters(configs[2].to_dict()) == 1_100_048_384
    assert count_parameters(configs[5].to_dict()) == 60_492_288


def test_what_is_not_known_is_none() -> None:
    assert count_parameters({"model_type": "t5"}) is None
    assert count_parameters({"model_type": "gpt2"}) is None
    assert count_parameters({"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "vocab_size": 99, "n_positions": 64}) is None  # no heads
    assert count_parameters({**_configs()[2].to_dict(), "attention_bias": True}) is None


def test_no_torch_is_needed() -> None:
    code = ("import sys; sys.modules['torch'] = None; "
            "import finetrial.models.shapes, finetrial.methods.lora, finetrial.methods.full, finetrial.train.config, "
            "finetrial.train.outcome")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mistral_is_like_llama() -> None:
    """Blocks, head and loss are found, and counts are those of the model that transformers builds."""
    from transformers import AutoModelForCausalLM, MistralConfig

    from finetrial.methods.layer import Layer
    from finetrial.methods.lora import Lora
    from finetrial.models import params
    from finetrial.streams import Streams
    from finetrial.train.batch import Batch
    from finetrial.train.loss import check_base

    config = MistralConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                           num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    assert count_parameters(config.to_dict()) == sum(p.numel() for p in model.parameters())
    ids = torch.arange(40).reshape(2, 20)
    check_base(model, Batch(ids, None, None, torch.arange(19), ids[0, 1:], 40))
    for method in (Lora(rank=2, targets="all-linear"), Layer(inner=24, heads=2)):
        component = method.attach(model, Streams(0), "main")
        assert method.count_trainable(config.to_dict()) == sum(p.numel() for p in component.parameters().values())
        params.own(model, [component])
        component.unload()
