"""Blocks that are computed again for the backward pass: the same bits, and nothing left switched on."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedModel

from finetrial.methods.full import Full
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.models import blocks
from finetrial.streams import Streams
from finetrial.train.config import Training
from finetrial.train.loop import train
from finetrial.train.loss import item_losses

CONFIG = Training.model_validate({"budget": "4 steps", "sequence_length": 32, "batch_sequences": 4, "evaluations": 2})
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1}, {"precision": "bf16"}], ids=str)
@pytest.mark.parametrize("method", [Full(), Lora(rank=2, dropout=0.1), Layer(), Layer(init="random")],
                         ids=lambda method: method.kind)
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "t5-gated"])
def test_it_changes_no_bit(family: str, method: Any, changes: dict[str, Any], tiny_model: Any, tiny_documents: Any,
                           tiny_pairs: Any) -> None:
    data = tiny_pairs(12) if family.startswith("t5") else tiny_documents(12)
    seen = []
    for checkpointing in (False, True):
        model = tiny_model(family)
        component = method.attach(model, Streams(0), "main")
        config = CONFIG.model_copy(update={**changes, "activation_checkpointing": checkpointing})
        result = train(model, [component], data, config, 1e-2, Streams(0),
                       validate=lambda step, model=model: float(item_losses(model, data)[0].sum()))
        seen.append((component.trainable_digest(), result.final_loss, result.curve))
    assert seen[0] == seen[1]


@pytest.fixture(params=["today's names", "names before transformers 5.23"])
def _names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the model's methods that switch checkpointing on and off."""
    if request.param == "today's names":
        return

    def enable(model: Any, gradient_checkpointing_kwargs: Any = None) -> None:
        assert gradient_checkpointing_kwargs == {"use_reentrant": False}
        model._activation_checkpointing_enable(gradient_checkpointing_kwargs)

    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable")
    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_disable")
    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_enable", enable)
    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_disable", PreTrainedModel._activation_checkpointing_disable)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("method", [Full(), Layer(init="random")], ids=lambda method: method.kind)
def test_every_block_that_gradients_pass_is_computed_twice(method: Any, architecture: str, tiny_model: Any,
                                                           tiny_documents: Any) -> None:
    model = tiny_model(architecture)
    component = method.attach(model, Streams(0), "main")
    calls: list[int] = []
    for number, block in enumerate(blocks.stacks(model)[0]):
        next(block.children()).register_forward_hook(lambda *_, number=number: calls.append(number))
    config = CONFIG.model_copy(update={"activation_checkpointing": True, "evaluations": 0})
    train(model, [component], tiny_documents(12), config, 1e-3, Streams(0))
    passed = [2] if method.kind == "layer" else [0, 1]
    assert {number: calls.count(number) for number in set(calls)} == {
        number: 8 if number in passed else 4 for number in range(len(blocks.stacks(model)[0]))}
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
