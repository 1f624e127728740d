"""Several components in one model, without code of their own."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial.errors import ModelError
from finetrial.methods.base import Component, Method
from finetrial.methods.full import Full
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.methods.unfreeze import Unfreeze
from finetrial.models import params
from finetrial.streams import Streams

IDS = torch.arange(24).reshape(2, 12)
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama", "t5-gated"])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        targets = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
        return model.eval()(input_ids=IDS, **targets).logits


def train(model: Any, components: list[Component], rate: float = 0.05) -> None:
    parameters = params.own(model, components)
    for _ in range(2):
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        with torch.no_grad():
            for parameter in parameters.values():
                parameter -= rate * parameter.grad
        model.zero_grad()


def attach(model: Any, methods: dict[str, Method]) -> dict[str, Component]:
    """Names are `slot` or `slot@instance`."""
    return {name: method.attach(model, Streams(0), *name.split("@")) for name, method in methods.items()}


@FAMILIES
def test_the_order_of_attaching_changes_nothing(tiny_model: Any, family: str) -> None:
    methods: dict[str, Method] = {
        "layer": Layer(position="start", init="random", output_scale=0.1), "low": Lora(rank=2), "top": Unfreeze(last=1),
        "low@2": Lora(rank=3, targets="all-linear")}
    seen = set()
    for order in itertools.permutations(methods):
        model = tiny_model(family)
        components = attach(model, {name: methods[name] for name in order})
        train(model, [components[name] for name in methods])
        seen.add((*(components[name].trainable_digest() for name in methods), params.digest({"": logits(model)})))
    # equal sums in another order: the deltas of two adapters on one layer are added as they were attached
    assert len({digests[0] for digests in seen}) <= 2


@FAMILIES
def test_draws_do_not_depend_on_other_components(tiny_model: Any, family: str) -> None:
    alone = Lora(rank=2).attach(tiny_model(family), Streams(0), "low").trainable_digest()
    model = tiny_model(family)
    attach(model, {"layer": Layer(), "other": Lora(), "first": Layer(position="start", init="random")})
    among = Lora(rank=2).attach(model, Streams(0), "low")
    assert among.trainable_digest() == alone
    assert not any(".new." in name for name in among.parameters())


@FAMILIES
def test_files_do_not_depend_on_other_components(tiny_model: Any, family: str, tmp_path: Path) -> None:
    """Each saved from a model that holds all, loaded into models in which others come before, after, or not at all."""
    methods: dict[str, Method] = {"low": Lora(rank=2), "layer": Layer(position="start"), "top": Unfreeze(last=1),
                                  "low@2": Lora(rank=3), "late": Layer(position=1, count=2)}
    model = tiny_model(family)
    components = attach(model, methods)
    train(model, list(components.values()))
    for name, component in components.items():
        component.save(tmp_path / name)
    again = tiny_model(family)
    for name in ("low", "top", "low@2", "late", "layer"):  # one at a time, the layers last
        attach(again, {name: methods[name]})[name].load(tmp_path / name)
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-5, atol=1e-4)
    alone, plain = tiny_model(family), tiny_model(family)
    Lora(rank=2).attach(alone, Streams(9), "x").load(tmp_path / "low")
    from peft import PeftModel

    assert torch.equal(logits(alone), logits(PeftModel.from_pretrained(plain, tmp_path / "low")))


@FAMILIES
def test_stacked_adapters_add_up_and_are_switched_one_by_one(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    first = Lora(rank=2).attach(model, Streams(0), "low")
    train(model, [first])
    below = logits(model)
    second = Lora(rank=3, targets="all-linear").attach(model, Streams(0), "low", "2")
    assert torch.equal(logits(model), below)  # the new one starts from the old one
    digest = first.trainable_digest()
    train(model, [second])
    both = logits(model)
    assert first.trainable_digest() == digest and not torch.equal(both, below)
    second.set_active(False)
    assert torch.equal(logits(model), below)
    first.set_active(False)
    assert torch.equal(logits(model), logits(tiny_model(family)))
    second.set_active(True)
    assert not torch.equal(logits(model), both)
    first.set_active(True)
    torch.testing.assert_close(logits(model), both, rtol=1e-5, atol=1e-4)
    first.merge()
    torch.testing.assert_close(logits(model), both, rtol=1e-4, atol=1e-4)
    second.unload()
    torch.testing.assert_close(logits(model), below, rtol=1e-4, atol=1e-4)
    assert dict(model.named_parameters()).keys() == dict(tiny_model(family).named_parameters()).keys()


@FAMILIES
def test_full_owns_the_base_and_not_what_others_brought(tiny_model: Any, family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    attached = attach(model, {"old": Layer(), "layer": Layer(position="start"), "low": Lora(rank=2), "all": Full()})
    attached.pop("old").merge()
    train(model, list(attached.values()), rate=0.01)
    attached["all"].save(tmp_path / "all")
    plain = type(model).from_pretrained(tmp_path / "all", dtype=torch.float32,
                                        attn_implementation=model.config._attn_implementation)
    for name in ("layer", "low"):
        attached[name].set_active(False)
    assert torch.equal(logits(plain), logits(model))
    again = tiny_model(family)
    attach(again, {"old": Layer()})["old"].merge()
    attach(again, {"layer": Layer(position="start")})
    other = attach(again, {"all": Full()})["all"]
    other.load(tmp_path / "all")
    assert other.trainable_digest() == attached["all"].trainable_digest()


@FAMILIES
def test_everything_merged_is_a_plain_model(tiny_model: Any, family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    components = attach(model, {"layer": Layer(inner=8, position=1), "low": Lora(rank=2), "top": Unfreeze(last=1)})
    train(model, list(components.values()))
    output = logits(model)
    for component in components.values():
        component.merge()
    torch.testing.assert_close(logits(model), output, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    plain = type(model).from_pretrained(tmp_path, dtype=torch.float32,
                                        attn_implementation=model.config._attn_implementation)
    assert torch.equal(logits(plain), logits(model))


def test_conflicts_are_named(tiny_model: Any) -> None:
    model = tiny_model("llama")
    components = attach(model, {"all": Full(), "top": Unfreeze(last=1), "below": Unfreeze(first=1), "low": Lora()})
    params.own(model, [components["top"], components["below"], components["low"]])
    with pytest.raises(ModelError, match=r"components all and top are both to train model\.layers\.1"):
        params.own(model, [components["all"], components["top"]])
    for method in (Peft(type="ia3"), Peft(options={"use_dora": True}), Peft(options={"init_lora_weights": "pissa"})):
        with pytest.raises(ModelError, match=r"q_proj|k_proj.* already holds the adapter <low>, and <a>"):
            method.attach(model, Streams(0), "a")
    Peft(options={"use_dora": True}, targets=("up_proj",)).attach(model, Streams(0), "a")
    with pytest.raises(ModelError, match="already holds the adapter <a>, and <b>"):
        Lora(targets=("up_proj",)).attach(model, Streams(0), "b")
    with pytest.raises(ModelError, match=r"slot 'a\.b' has a dot"):
        Lora().attach(model, Streams(0), "a.b")


@pytest.mark.parametrize("slot", ["lora", "layers", "self_attn", "l", "base_layer", "0"])
def test_a_slot_may_be_called_like_a_part_of_the_model(tiny_model: Any, slot: str, tmp_path: Path) -> None:
    model = tiny_model("llama")
    component = Lora(rank=2).attach(model, Streams(0), slot)
    train(model, [component])
    component.save(tmp_path)
    again = tiny_model("llama")
    Lora(rank=2).attach(again, Streams(0), "main").load(tmp_path)
    assert torch.equal(logits(again), logits(model))
