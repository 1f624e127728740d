"""What every method promises, whoever wrote it: a new file in `methods/` is tested here without being listed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial import catalog
from finetrial.methods.base import Component
from finetrial.models import params
from finetrial.spec.model import plugin_from, plugin_identity
from finetrial.streams import Streams

ARCHITECTURES = ("gpt2", "llama")
pytestmark = [pytest.mark.parametrize("name", catalog.names("method")),
              pytest.mark.parametrize("model_type", ARCHITECTURES)]


def attached(tiny_model: Any, model_type: str, name: str, seed: int = 0) -> tuple[Any, Component]:
    model = tiny_model(model_type)
    component = plugin_from("method", name).attach(model, Streams(seed), "main")
    params.own(model, [component])
    return model, component


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(24).reshape(2, 12)).logits


def step(model: Any, component: Component) -> None:
    """One step of gradient descent on what the component owns."""
    ids = torch.arange(24).reshape(2, 12)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    with torch.no_grad():
        for parameter in component.parameters().values():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    component.after_step(0)


def test_nothing_changes_before_the_first_step(tiny_model: Any, model_type: str, name: str) -> None:
    model, _ = attached(tiny_model, model_type, name)
    assert torch.equal(logits(model), logits(tiny_model(model_type)))


def test_training_moves_what_is_owned_and_nothing_else(tiny_model: Any, model_type: str, name: str) -> None:
    model, component = attached(tiny_model, model_type, name)
    frozen, before, output = params.frozen_digest(model), component.trainable_digest(), logits(model)
    for _ in range(2):
        step(model, component)
    assert params.frozen_digest(model) == frozen
    assert component.trainable_digest() != before
    assert not torch.equal(logits(model), output)


def test_weights_come_back_from_a_folder(tiny_model: Any, model_type: str, name: str, tmp_path: Path) -> None:
    model, component = attached(tiny_model, model_type, name)
    step(model, component)
    component.save(tmp_path / "saved")
    again, other = attached(tiny_model, model_type, name, seed=1)
    other.load(tmp_path / "saved")
    assert other.trainable_digest() == component.trainable_digest()
    assert torch.equal(logits(again), logits(model))


def test_the_configuration_alone_gives_the_number_of_parameters(tiny_model: Any, model_type: str, name: str) -> None:
    model, component = attached(tiny_model, model_type, name)
    expected = sum(parameter.numel() for parameter in component.parameters().values())
    counted = plugin_from("method", name).count_trainable(model.config.to_dict())
    assert counted in (None, expected)


def test_the_global_generator_is_left_alone(tiny_model: Any, model_type: str, name: str) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    attached(tiny_model, model_type, name)
    # making the tiny model draws inside a fork of its own
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_written_and_read_back(model_type: str, name: str) -> None:
    method = plugin_from("method", name)
    assert plugin_from("method", plugin_identity(method)) == method and method.kind == name
