import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from finetrial.errors import ModelError
from finetrial.methods.layer import Layer
from finetrial.methods.unfreeze import Unfreeze
from finetrial.streams import Streams


def owned(model: Any, **options: Any) -> set[str]:
    return set(Unfreeze(**options).attach(model, Streams(0), "top").parameters())


def test_which_blocks(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    last = {name for name, _ in model.named_parameters() if name.startswith("transformer.h.1.")}
    assert owned(model, last=1) == owned(model, blocks=[1]) == last
    assert owned(model, first=2) == owned(model, last=2) == owned(model, blocks=[1, 0]) > last
    assert owned(model, last=1, final_norm=True) - last == {"transformer.ln_f.weight", "transformer.ln_f.bias"}
    assert owned(model, last=1, embeddings=True) - last == {"transformer.wte.weight", "transformer.wpe.weight"}
    untied = tiny_model("llama")
    assert {"model.embed_tokens.weight", "lm_head.weight"} < owned(untied, last=1, embeddings=True)


def test_which_stack(tiny_model: Any) -> None:
    model = tiny_model("t5-gated")
    assert {name.split(".block.")[0] for name in owned(model, last=1)} == {"decoder"}
    both = owned(model, first=1, stack="both", final_norm=True)
    assert sum("relative_attention_bias" in name for name in both) == 2
    assert {"encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"} < both
    assert any(name.startswith("decoder.block.2.") for name in owned(model, last=1))


def test_blocks_are_the_bases_own(tiny_model: Any) -> None:
    """Whatever is inserted, before or after."""
    model, plain = tiny_model("llama"), owned(tiny_model("llama"), last=1)
    before = Unfreeze(last=1).attach(model, Streams(0), "top")
    Layer(position="start").attach(model, Streams(0), "a")
    Layer().attach(model, Streams(0), "b").merge()
    after = Unfreeze(last=1).attach(model, Streams(0), "top")
    assert set(before.parameters()) == set(after.parameters()) == plain
    assert all(parameter is dict(model.named_parameters())[name.replace("layers.1", "layers.2")]
               for name, parameter in after.parameters().items())


def test_the_file_loads_in_plain_torch(tiny_model: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = tiny_model("gpt2", seed=1)
    Unfreeze(last=1, final_norm=True).attach(model, Streams(0), "top").save(tmp_path)
    plain = tiny_model("gpt2")
    assert plain.load_state_dict(load_file(tmp_path / "unfrozen.safetensors"), strict=False).unexpected_keys == []
    assert torch.equal(plain.transformer.h[1].mlp.c_fc.weight, model.transformer.h[1].mlp.c_fc.weight)
    assert json.loads((tmp_path / "recipe.json").read_text())["last"] == 1
    with pytest.raises(ModelError, match="the blocks that it was trained with"):
        Unfreeze(first=1).attach(plain, Streams(0), "top").load(tmp_path)


def test_counts_without_torch(tiny_model: Any) -> None:
    for family in ("gpt2", "llama", "t5", "t5-gated"):
        config = tiny_model(family).config.to_dict()
        for options in ({"last": 2}, {"blocks": [0], "final_norm": True}, {"first": 1, "embeddings": True}):
            component = Unfreeze(**options).attach(tiny_model(family), Streams(0), "top")
            expected = sum(parameter.numel() for parameter in component.parameters().values())
            assert Unfreeze(**options).count_trainable(config) == expected, (family, options)
    assert Unfreeze(last=1).count_trainable({"model_type": "t5"}) is None


def test_more_blocks_than_there_are(tiny_model: Any) -> None:
    for options, message in (({"last": 3}, "last = 3: the base has 2 blocks"),
                             ({"blocks": [0, 5]}, r"blocks = \[0, 5\]: the base has 2 blocks")):
        with pytest.raises(ModelError, match=message):
            owned(tiny_model("llama"), **options)
        with pytest.raises(ModelError, match=message):
            Unfreeze(**options).count_trainable(tiny_model("llama").config.to_dict())


def test_without_a_copy_there_is_no_way_back(tiny_model: Any) -> None:
    component = Unfreeze(last=1).attach(tiny_model("gpt2"), Streams(0), "top")
    for undo in (component.unload, lambda: component.set_active(False)):
        with pytest.raises(ModelError, match="top changed the base's own weights, and no copy"):
            undo()


def test_options() -> None:
    for bad in ({}, {"last": 1, "first": 1}, {"blocks": []}, {"blocks": [1, 1]}, {"blocks": [-1]}, {"last": 0}):
        with pytest.raises(ValidationError):
            Unfreeze.model_validate(bad)
