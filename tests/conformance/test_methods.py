"""What every method promises, whoever wrote it: a new file in `methods/` is tested here without being listed.

Each is tried with the options that it names as examples, on every family of models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial import catalog
from finetrial.methods.base import Component, InPlace, Method
from finetrial.models import params
from finetrial.spec.model import plugin_from, plugin_identity
from finetrial.streams import Streams

FAMILIES = ("gpt2", "llama", "t5", "t5-gated")
IDS = torch.arange(24).reshape(2, 12)


def examples() -> list[Any]:
    found = []
    for name in catalog.names("method"):
        for options in catalog.find("method", name).examples:  # type: ignore[attr-defined]
            label = ",".join(f"{key}={value}" for key, value in options.items())
            found.append(pytest.param({"kind": name, **options}, id=f"{name}:{label}".rstrip(":")))
    return found


pytestmark = pytest.mark.parametrize("written", examples())
families = pytest.mark.parametrize("family", FAMILIES)


def attached(tiny_model: Any, family: str, written: Mapping[str, Any], seed: int = 0, slot: str = "main",
             instance: str = "") -> tuple[Any, Component]:
    model = tiny_model(family)
    component = plugin_from("method", written).attach(model, Streams(seed), slot, instance)
    params.own(model, [component])
    return model, component


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        targets = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
        return model.eval()(input_ids=IDS, **targets).logits


def step(model: Any, component: Component, number: int = 0) -> None:
    """One step of gradient descent on what the component owns."""
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    with torch.no_grad():
        for parameter in component.parameters().values():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    component.after_step(number)
    for parameter in model.parameters():
        assert parameter.requires_grad or parameter.grad is None
        parameter.grad = None


def method_of(written: Mapping[str, Any]) -> Method:
    method: Method = plugin_from("method", written)
    return method


@families
def test_it_starts_at_the_base_trains_what_it_owns_and_comes_back(tiny_model: Any, family: str, written: Any,
                                                                   tmp_path: Path) -> None:
    base = tiny_model(family)
    counted = method_of(written).count_trainable(base.config.to_dict())
    model, component = attached(tiny_model, family, written)
    before, start, claimed = logits(base), logits(model), method_of(written).step_0
    assert torch.equal(before, start) == (claimed == "exact")
    if claimed == "rounding":
        torch.testing.assert_close(start, before, rtol=1e-5, atol=1e-4)
    assert counted in (None, sum(parameter.numel() for parameter in component.parameters().values()))

    frozen, digest = params.frozen_digest(model), component.trainable_digest()
    for number in range(2):
        step(model, component, number)
    assert params.frozen_digest(model) == frozen and component.trainable_digest() != digest
    output = logits(model)
    assert not torch.equal(output, start)

    component.save(tmp_path / "saved")
    again, other = attached(tiny_model, family, written, seed=1, slot="other", instance="2")
    other.load(tmp_path / "saved")
    assert torch.equal(logits(again), output)
    other.save(tmp_path / "again")
    for path in (tmp_path / "saved").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@families
def test_it_is_switched_off_and_on_and_taken_out(tiny_model: Any, family: str, written: Any) -> None:
    model, component = attached(tiny_model, family, written)
    component.remember()
    step(model, component)
    base, output, digest = tiny_model(family), logits(model), component.trainable_digest()
    for _ in range(2):
        component.set_active(False)
    assert torch.equal(logits(model), logits(base))
    for _ in range(2):
        component.set_active(True)
    assert torch.equal(logits(model), output) and component.trainable_digest() == digest
    component.unload()
    assert torch.equal(logits(model), logits(base))
    assert params.digest(dict(model.named_parameters())) == params.digest(dict(base.named_parameters()))


@families
def test_merged_it_is_a_plain_model(tiny_model: Any, family: str, written: Any, tmp_path: Path) -> None:
    """Saved, it loads in plain transformers with equal logits, and generates the same with and without a cache."""
    model, component = attached(tiny_model, family, written)
    step(model, component)
    output = logits(model)
    component.merge()
    torch.testing.assert_close(logits(model), output, rtol=1e-4, atol=1e-4)
    assert set(dict(model.named_parameters())) >= set(dict(tiny_model(family).named_parameters()))
    model.save_pretrained(tmp_path)
    plain = type(model).from_pretrained(tmp_path, dtype=torch.float32,
                                        attn_implementation=model.config._attn_implementation)
    assert torch.equal(logits(plain), logits(model))
    if written["kind"] == "layer":
        prompt = IDS[:, 2:8]
        cached, uncached = (plain.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5,
                                           do_sample=False, use_cache=use, pad_token_id=0) for use in (True, False))
        assert torch.equal(cached, uncached)


def test_draws_follow_the_stream_and_leave_the_global_generator_alone(tiny_model: Any, written: Any) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    _, first = attached(tiny_model, "llama", written)
    assert torch.equal(torch.random.get_rng_state(), before)  # making the tiny model draws inside a fork of its own
    _, again = attached(tiny_model, "llama", written)
    assert again.trainable_digest() == first.trainable_digest()


@families
def test_it_says_whether_it_trains_weights_that_the_base_has(tiny_model: Any, family: str, written: Any) -> None:
    model = tiny_model(family)
    base = {id(parameter) for parameter in model.parameters()}
    method = plugin_from("method", written)
    component = method.attach(model, Streams(0), "main")
    assert method.in_place == isinstance(component, InPlace)
    assert method.in_place == any(id(parameter) in base for parameter in component.parameters().values())


def test_it_is_written_and_read_back(written: Any) -> None:
    method = method_of(written)
    assert plugin_from("method", plugin_identity(method)) == method and method.kind == written["kind"]
