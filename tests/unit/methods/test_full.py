from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial.errors import ModelError
from finetrial.methods.full import Full
from finetrial.models import params
from finetrial.streams import Streams


def test_owns_everything_and_draws_nothing(tiny_model: Any, architecture: str) -> None:
    model = tiny_model(architecture)
    component = Full().attach(model, Streams(0), "base")
    assert set(params.own(model, [component])) == {name for name, _ in model.named_parameters()}
    assert Full().kind == "full"
    assert Full().count_trainable(model.config.to_dict()) == params.count(model).trainable


def test_saved_weights_load_in_plain_transformers(tiny_model: Any, architecture: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny_model(architecture, seed=1)
    component = Full().attach(model, Streams(0), "base")
    component.save(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, model(input_ids=ids).logits)
    other = Full().attach(tiny_model(architecture, seed=2), Streams(0), "base")
    assert other.trainable_digest() != component.trainable_digest()
    other.load(tmp_path)
    assert other.trainable_digest() == component.trainable_digest()


def test_load_refuses_other_weights(tiny_model: Any, tmp_path: Path) -> None:
    component = Full().attach(tiny_model("gpt2"), Streams(0), "base")
    Full().attach(tiny_model("llama"), Streams(0), "base").save(tmp_path)
    with pytest.raises(ModelError, match="does not hold this model's weights"):
        component.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="truncated or damaged"):
        component.load(tmp_path)
