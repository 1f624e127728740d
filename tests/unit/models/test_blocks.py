from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial.errors import ModelError
from finetrial.models import blocks
from finetrial.models.shapes import architecture
from finetrial.plan.bases import ResolvedBase


def _model(model_type: str, tiny_model: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GemmaConfig, T5Config

    with torch.random.fork_rng():
        if model_type == "gemma":
            return AutoModelForCausalLM.from_config(GemmaConfig(
                vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=1, head_dim=8))
        if model_type == "t5":
            return AutoModelForSeq2SeqLM.from_config(T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=64, num_layers=2,
                                                              num_decoder_layers=3, num_heads=4,
                                                              decoder_start_token_id=0))
    return tiny_model(model_type)


@pytest.mark.parametrize(("model_type", "depths"), [("gpt2", [2]), ("llama", [2]), ("gemma", [2]), ("t5", [2, 3])])
def test_parts_are_found(model_type: str, depths: list[int], tiny_model: Any) -> None:
    model = _model(model_type, tiny_model)
    assert [len(stack) for stack in blocks.stacks(model)] == depths
    assert blocks.embedding(model) is model.get_input_embeddings()
    assert blocks.head(model) is model.get_output_embeddings()
    assert len(blocks.final_norms(model)) == len(depths)
    names = set(blocks.linears(model))
    assert "lm_head" not in names
    for ending in architecture(model_type).attention:
        assert any(name.endswith(f".{ending}") for name in names)


def test_a_sliding_window_is_the_longest_document() -> None:
    from transformers import MistralConfig, Qwen2Config

    assert blocks.max_positions(MistralConfig(sliding_window=4096, max_position_embeddings=32768)) == 4096
    assert blocks.max_positions(MistralConfig(sliding_window=None, max_position_embeddings=32768)) == 32768
    assert blocks.max_positions(Qwen2Config(use_sliding_window=False, max_position_embeddings=512)) == 512


def test_max_positions(tiny_model: Any) -> None:
    assert blocks.max_positions(tiny_model("gpt2").config) == 64
    assert blocks.max_positions(_model("t5", tiny_model).config) is None


@pytest.mark.parametrize(("config", "limit"), [
    ({"model_type": "t5", "n_positions": 512}, None),  # as t5-small's has it, and means nothing
    ({"model_type": "gpt2", "n_positions": 1024}, 1024),
    ({"model_type": "mistral", "max_position_embeddings": 32768, "sliding_window": None}, 32768),
    ({"model_type": "mistral", "max_position_embeddings": 32768}, 4096),
    ({"model_type": "llama", "max_position_embeddings": 2048}, 2048)])
def test_a_plan_reads_the_same_limit_from_the_file(config: dict[str, Any], limit: int | None, tmp_path: Path) -> None:
    from transformers import AutoConfig

    kind = config.pop("model_type")
    assert ResolvedBase("b", tmp_path, "", "", {"model_type": kind, **config}).max_positions == limit
    assert blocks.max_positions(AutoConfig.for_model(kind, **config)) == limit


def test_a_model_without_a_head_is_refused(tiny_model: Any) -> None:
    with pytest.raises(ModelError, match=r"GPT2Model has no output head \(lm_head\)"):
        blocks.head(blocks.backbone(tiny_model("gpt2")))


def test_unknown_architecture() -> None:
    with pytest.raises(ModelError, match="unknown model architecture 'lama'; did you mean 'llama'"):
        architecture("lama")
