from typing import Any

import pytest
import torch

from finetrial.errors import ModelError
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.models import params
from finetrial.streams import Streams


def test_own_freezes_the_rest(tiny_model: Any, architecture: str) -> None:
    model = tiny_model(architecture)
    lora = Lora(rank=2).attach(model, Streams(0), "adapter")
    owned = params.own(model, [lora])
    assert set(owned) == set(lora.parameters())
    assert all(parameter.requires_grad == (name in owned) for name, parameter in model.named_parameters())
    counts = params.count(model)
    assert counts.trainable == sum(p.numel() for p in lora.parameters().values())
    assert counts.total == sum(p.numel() for p in model.parameters()) > counts.trainable > 0


def test_two_owners_are_refused(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    first, second = (Full().attach(model, Streams(0), slot) for slot in ("a", "b"))
    with pytest.raises(ModelError, match="components a and b are both to train"):
        params.own(model, [first, second])


def test_nothing_owned_freezes_everything(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    assert params.own(model, []) == {} and params.count(model).trainable == 0


def test_tied_weights_count_once(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert params.count(model).trainable == model.num_parameters()


def test_frozen_digest_sees_frozen_bits_only(tiny_model: Any) -> None:
    model = tiny_model("llama")
    lora = Lora(rank=2).attach(model, Streams(0), "adapter")
    params.own(model, [lora])
    before = params.frozen_digest(model)
    assert params.frozen_digest(model) == before
    with torch.no_grad():
        next(iter(lora.parameters().values())).add_(1)
    assert params.frozen_digest(model) == before
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-7
        model.model.norm.weight[0] += 1
    assert params.frozen_digest(model) != before


def test_digest_tells_name_type_shape_and_bytes_apart() -> None:
    zeros = torch.zeros(4)
    digests = [params.digest(tensors) for tensors in (
        {"a": zeros}, {"b": zeros}, {"a": zeros.view(2, 2)}, {"a": zeros.to(torch.int32)}, {"a": zeros + 1},
        {"a": zeros.bfloat16()}, {})]
    assert len(set(digests)) == len(digests)
    assert params.digest({"a": zeros, "b": zeros + 1}) == params.digest({"b": zeros + 1, "a": zeros})


def test_optimizer_bytes() -> None:
    parameter = torch.nn.Parameter(torch.zeros(10, 10))
    optimizer = torch.optim.AdamW([parameter])
    assert params.optimizer_bytes([optimizer]) == 0
    parameter.grad = torch.ones(10, 10)
    optimizer.step()
    assert params.optimizer_bytes([optimizer]) == 2 * 100 * 4 + 4  # two moments and the step
