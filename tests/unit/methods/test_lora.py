from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from finetrial.errors import ModelError
from finetrial.methods.lora import Lora
from finetrial.models import params
from finetrial.streams import Streams


def _meta_model(name: str) -> Any:
    from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig

    config: Any = {
        "gpt2": GPT2Config(),
        "TinyLlama-1.1B": LlamaConfig(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                                      num_attention_heads=32, num_key_value_heads=4, vocab_size=32000),
        "gemma-2b": GemmaConfig(hidden_size=2048, intermediate_size=16384, num_hidden_layers=18,
                                num_attention_heads=8, num_key_value_heads=1, head_dim=256, vocab_size=256000),
    }[name]
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(("name", "targets", "modules", "expected"), [
    ("gpt2", ("c_attn",), 12, 294_912),
    ("gpt2", "attention", 24, 442_368),
    ("gpt2", ("c_attn", "c_proj"), 36, 811_008),
    ("gpt2", "all-linear", 48, 1_179_648),
    ("TinyLlama-1.1B", ("q_proj", "v_proj"), 44, 1_126_400),
    ("TinyLlama-1.1B", "attention", 88, 2_252_800),
    ("TinyLlama-1.1B", "all-linear", 154, 6_307_840),
    ("gemma-2b", ("q_proj", "v_proj"), 36, 921_600),
    ("gemma-2b", "all-linear", 126, 9_805_824)])
def test_parameter_counts(name: str, targets: Any, modules: int, expected: int) -> None:
    """The counts that peft gives on the real shapes, and ours from config.json alone."""
    model = _meta_model(name)
    component = Lora(rank=8, targets=targets).attach(model, Streams(0), "adapter")
    assert len(component.parameters()) == 2 * modules
    assert sum(p.numel() for p in component.parameters().values()) == expected
    assert Lora(rank=8, targets=targets).count_trainable(model.config.to_dict()) == expected
    assert Lora(rank=16, targets=targets).count_trainable(model.config.to_dict()) == 2 * expected


def test_counts_equal_peft_itself(tiny_model: Any, architecture: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_model(architecture)
    plain = get_peft_model(tiny_model(architecture), LoraConfig(
        r=3, target_modules=["c_attn", "attn.c_proj"] if architecture == "gpt2" else
        ["q_proj", "k_proj", "v_proj", "o_proj"], fan_in_fan_out=architecture == "gpt2"))
    method = Lora(rank=3)
    component = method.attach(model, Streams(0), "adapter")
    expected = plain.get_nb_trainable_parameters()[0]
    assert sum(p.numel() for p in component.parameters().values()) == expected
    assert method.count_trainable(model.config.to_dict()) == expected


def test_identity_at_step_0_and_initialisation_follows_the_stream(tiny_model: Any, architecture: str) -> None:
    ids = torch.arange(12)[None]
    base = tiny_model(architecture)
    with torch.no_grad():
        expected = base(input_ids=ids).logits
    digests = []
    for seed, slot in ((0, "a"), (0, "a"), (1, "a"), (0, "b")):
        model = tiny_model(architecture)
        state = torch.random.get_rng_state()
        component = Lora(rank=2).attach(model, Streams(seed), slot)
        assert torch.equal(state, torch.random.get_rng_state())
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, expected)
        digests.append(params.digest({name.replace(f".{slot}.", "."): p for name, p in component.parameters().items()}))
    assert digests[0] == digests[1] and len(set(digests)) == 3


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_saved_adapter_loads_in_plain_peft(tiny_model: Any, architecture: str, targets: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny_model(architecture)
    component = Lora(rank=2, targets=targets).attach(model, Streams(0), "adapter")
    with torch.no_grad():
        for parameter in component.parameters().values():
            parameter.add_(0.1)
    component.save(tmp_path)
    plain = PeftModel.from_pretrained(tiny_model(architecture), tmp_path)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, model(input_ids=ids).logits)
        assert not torch.equal(tiny_model(architecture)(input_ids=ids).logits, model(input_ids=ids).logits)
    other = Lora(rank=2, targets=targets).attach(tiny_model(architecture), Streams(5), "adapter")
    other.load(tmp_path)
    assert other.trainable_digest() == component.trainable_digest()
    smaller = Lora(rank=1, targets=targets).attach(tiny_model(architecture), Streams(5), "adapter")
    with pytest.raises(ModelError, match=r"(?s)does not fit .*with the options"):
        smaller.load(tmp_path)


def test_every_target_must_match(tiny_model: Any) -> None:
    method = Lora(targets=("c_attn", "c_atn"))
    with pytest.raises(ModelError, match="unknown LoRA target 'c_atn'; did you mean 'c_attn'"):
        method.attach(tiny_model("gpt2"), Streams(0), "adapter")
    with pytest.raises(ModelError, match="unknown LoRA target 'c_atn'"):
        method.count_trainable(tiny_model("gpt2").config.to_dict())
    with pytest.raises(ModelError, match="unknown LoRA target 'lm_head'"):
        Lora(targets=("lm_head",)).attach(tiny_model("llama"), Streams(0), "adapter")


def test_rank_above_the_matrix(tiny_model: Any) -> None:
    with pytest.raises(ModelError, match=r"rank 17 is above 16, the smaller side of model\.layers\.0\.self_attn\.k_"):
        Lora(rank=17).attach(tiny_model("llama"), Streams(0), "adapter")
    with pytest.raises(ModelError, match="rank 33 is above 32"):
        Lora(rank=33).count_trainable(tiny_model("gpt2").config.to_dict())


def test_options() -> None:
    assert Lora().kind == "lora"
    assert Lora.model_validate({"targets": ["q_proj"]}).targets == ("q_proj",)
    for bad in ({"rank": 0}, {"rnk": 8}, {"dropout": 1.0}, {"targets": "atention"}, {"alpha": -1}):
        with pytest.raises(ValidationError):
            Lora.model_validate(bad)
    assert Lora().count_trainable({"model_type": "t5"}) is None


def test_alpha_is_twice_the_rank_unless_given(tiny_model: Any, tmp_path: Path) -> None:
    import json

    for method, expected in ((Lora(rank=3), 6), (Lora(rank=3, alpha=4.5), 4.5)):
        method.attach(tiny_model("gpt2"), Streams(0), "adapter").save(tmp_path)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, expected, "LORA")
        assert config["fan_in_fan_out"] is True
