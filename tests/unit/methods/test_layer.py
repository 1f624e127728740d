import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from finetrial.errors import ModelError
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.models import blocks, insert, params
from finetrial.models.new_block import OUTPUTS
from finetrial.streams import Streams

IDS = torch.arange(24).reshape(2, 12)
POSITIONS = ("end", "start", "interleaved", 1)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        targets = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
        return model(input_ids=IDS, **targets).logits


@pytest.mark.parametrize("init", ["copy", "random"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("family", "stack"), [
    ("gpt2", "decoder"), ("llama", "decoder"), ("t5", "encoder"), ("t5", "both"), ("t5-gated", "decoder")])
def test_exactly_the_base_before_the_first_step(tiny_model: Any, family: str, stack: Any, position: Any,
                                                init: Any) -> None:
    model, base = tiny_model(family), logits(tiny_model(family))
    component = Layer(position=position, stack=stack, init=init, count=2).attach(model, Streams(0), "new")
    assert torch.equal(logits(model), base)
    params.own(model, [component])
    assert torch.equal(logits(model.train()), base)
    model(input_ids=IDS, labels=IDS).loss.backward()
    first = {name for name, parameter in component.parameters().items() if parameter.grad.abs().sum() > 0}
    zeroed = {name for name in component.parameters() if any(f".{ending}." in name for ending in OUTPUTS)}
    assert first == zeroed
    assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)


def test_what_was_zeroed_moves_and_so_does_the_rest(tiny_model: Any, architecture: str) -> None:
    model = tiny_model(architecture)
    component = Layer().attach(model, Streams(0), "new")
    parameters = params.own(model, [component])
    start, before = logits(model), {name: p.detach().clone() for name, p in component.parameters().items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    for _ in range(20):
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = component.parameters()
    assert all(not torch.equal(after[name], tensor) for name, tensor in before.items())
    assert (logits(model.eval()) - start).abs().max() > 0.1


def test_where_the_blocks_go(tiny_model: Any) -> None:
    def gaps(**options: Any) -> list[int]:
        model = tiny_model("gpt2")
        Layer(**options).attach(model, Streams(0), "new")
        marks = [insert.mark_of(block) for block in blocks.stacks(model)[0]]
        return [mark.gap for mark in marks if mark]

    assert gaps() == [2] and gaps(count=3) == [2, 2, 2] and gaps(position="start") == [0]
    assert gaps(position="middle") == [1] and Layer(position="middle", count=2).gaps(5) == [2, 2]
    assert gaps(position="interleaved", count=2) == [1, 2] and gaps(position=1) == [1]
    assert Layer(position="interleaved", count=3).gaps(12) == [4, 8, 12]
    with pytest.raises(ModelError, match="position = 3: the base has 2 blocks"):
        gaps(position=3)
    with pytest.raises(ModelError, match="count = 3 interleaved blocks: the base has only 2"):
        gaps(position="interleaved", count=3)
    with pytest.raises(ModelError, match="stack encoder: this model has no encoder"):
        gaps(stack="encoder")


def test_a_copy_is_of_the_block_below_without_its_adapters(tiny_model: Any) -> None:
    model = tiny_model("llama")
    Lora().attach(model, Streams(0), "low")
    Layer(position="start", output_scale=1.0).attach(model, Streams(0), "a")
    Layer(output_scale=0.5).attach(model, Streams(0), "b")
    plain = [block.state_dict() for block in blocks.stacks(tiny_model("llama"))[0]]
    first, _, _, last = blocks.stacks(model)[0]
    assert all(torch.equal(tensor, plain[0][name]) for name, tensor in first.state_dict().items())
    outputs = [name for name in plain[1] if any(name == f"{ending}.weight" for ending in OUTPUTS)]
    assert outputs and all(torch.equal(last.state_dict()[name], 0.5 * plain[1][name]) for name in outputs)


def test_a_random_block_has_the_spread_of_a_new_model(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    Layer(init="random", output_scale=1.0).attach(model, Streams(3), "new")
    new = blocks.stacks(model)[0][-1]
    assert new.attn.c_attn.weight.detach().std() == pytest.approx(0.1, rel=0.1)  # initializer_range
    assert new.mlp.c_proj.weight.detach().std() == pytest.approx(0.1 / 4**0.5, rel=0.1)  # divided by sqrt(2 * 2 blocks)
    digests = []
    for seed, slot, instance in ((3, "new", ""), (3, "new", ""), (4, "new", ""), (3, "old", ""), (3, "new", "2")):
        component = Layer(init="random").attach(tiny_model("gpt2"), Streams(seed), slot, instance)
        digests.append(component.trainable_digest())
    assert digests[0] == digests[1] and len(set(digests)) == 4


@pytest.mark.parametrize(("size", "expected"), [("gpt2", 7_087_872), ("TinyLlama-1.1B", 44_044_288)])
def test_known_sizes(size: str, expected: int) -> None:
    from transformers import GPT2Config, LlamaConfig

    config: Any = GPT2Config() if size == "gpt2" else LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4)
    assert Layer().count_trainable(config.to_dict()) == expected
    assert Layer(count=3, position="interleaved").count_trainable(config.to_dict()) == 3 * expected


def test_known_sizes_of_codet5_small() -> None:
    config = {"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
              "feed_forward_proj": "relu", "vocab_size": 32_100}
    counts = {stack: Layer(stack=stack).count_trainable(config) for stack in ("encoder", "decoder", "both")}
    assert counts == {"encoder": 3_146_752, "decoder": 4_195_840, "both": 7_342_592}
    assert Layer().count_trainable({"model_type": "gpt2"}) is None
    assert Layer().count_trainable({"model_type": "bert"}) is None


def test_the_recipe_says_where_the_blocks_belong(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("t5")
    component = Layer(stack="both", inner=8).attach(model, Streams(0), "new")
    component.save(tmp_path)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["blocks"] == [{"stack": "encoder.block", "base_blocks_below": 2},
                                {"stack": "decoder.block", "base_blocks_below": 2}]
    assert (recipe["model_type"], recipe["inner"], recipe["init"]) == ("t5", 8, "copy")
    with pytest.raises(ModelError, match="count, stack and widths"):
        Layer(stack="both", inner=9).attach(tiny_model("t5"), Streams(0), "new").load(tmp_path)


def test_options() -> None:
    assert Layer(position=0).step_0 == "exact" and Layer(output_scale=0.1).step_0 == "other"
    for bad in ({"count": 0}, {"position": "centre"}, {"position": -1}, {"inner": 0}, {"init": "zero"}, {"stack": "all"}):
        with pytest.raises(ValidationError):
            Layer.model_validate(bad)
