"""Bases in 4 bits against plain models that hold the values which the 4-bit weights stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import save_tiny_base

from finetrial.errors import MissingPackage
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.models import blocks, params, quantized
from finetrial.models.load import load_base
from finetrial.streams import Streams
from finetrial.train.batch import make_batch
from finetrial.train.config import Budget, Training
from finetrial.train.loop import train
from finetrial.train.loss import item_losses, summed_loss
from finetrial.train.precision import FrozenMatrices, autocast

MAPS = Path("/proc/self/maps")
FAMILIES = ("gpt2", "llama", "t5", "t5-gated")
METHODS = (Lora(rank=2, targets="all-linear"), Peft(options={"r": 4, "use_dora": True}), Layer(), Layer(init="random"))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("bitsandbytes", reason="quantised bases need bitsandbytes: pip install 'finetrial[qlora]'")
    return str(request.param)


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    return save_tiny_base(tmp_path / family, family)


@pytest.fixture
def both(folder: Path) -> tuple[Any, Any]:
    """(in 4 bits, the same values in fp32)"""
    return (load_base(folder, quantization="nf4").model,
            load_base(folder, quantization="nf4", dequantized=True).model)


@pytest.fixture
def data(family: str, tiny_documents: Any, tiny_pairs: Any) -> Any:
    return tiny_pairs(12) if family.startswith("t5") else tiny_documents(12)


def gradients(model: Any, component: Any, batch: Any) -> dict[str, torch.Tensor]:
    params.own(model, [component])
    owned = dict(component.parameters())
    found = torch.autograd.grad(summed_loss(model.train(), batch), list(owned.values()))
    return dict(zip(owned, found, strict=True))


def test_it_computes_with_the_values_that_its_weights_stand_for(both: Any, folder: Path, data: Any) -> None:
    packed, plain = both
    assert quantized.layers(packed) and not quantized.layers(plain)
    expected, _ = item_losses(plain, data)
    found, _ = item_losses(packed, data)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    full, _ = item_losses(load_base(folder).model, data)
    assert abs(full - expected).max() > 1e-3


def test_only_matrices_are_quantised(both: Any, folder: Path) -> None:
    packed, plain = both
    whole = load_base(folder).model
    held = quantized.layers(packed)
    for name, weight in whole.named_parameters():
        same = torch.equal(weight, plain.get_parameter(name))
        assert same == (name.removesuffix(".weight") not in held), name
    assert params.count(packed).total == params.count(whole).total
    assert {packed.get_parameter(f"{path}.weight").dtype for path in held} == {torch.uint8}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_gradients_are_those_of_the_dequantised_base(both: Any, data: Any, method: Any) -> None:
    seen = []
    batch = make_batch(data, [(0,), (1,)])
    for model in both:
        component = method.attach(model, Streams(0), "main")
        with torch.no_grad():  # away from zero, so that every factor has a gradient
            for parameter in component.parameters().values():
                parameter.add_(torch.linspace(-0.05, 0.05, parameter.numel()).view_as(parameter))
        seen.append(gradients(model, component, batch))
    found, expected = seen
    assert list(found) == list(expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not MAPS.is_file(), reason="what a process has mapped is read from /proc")
def test_the_file_of_the_weights_is_let_go(folder: Path) -> None:
    model = load_base(folder, quantization="nf4").model
    assert str(folder) not in MAPS.read_text()
    plain = load_base(folder).model
    tied, expected = (blocks.head(one).weight is blocks.embedding(one).weight for one in (model, plain))
    assert tied == expected


def test_evaluating_changes_neither_weights_nor_gradients(folder: Path, data: Any,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has bf16 instructions, bitsandbytes packs weights anew at the first evaluation; here it must not."""
    import bitsandbytes.nn.modules as library

    monkeypatch.setattr(library, "has_avx512bf16", lambda: True)
    model = load_base(folder, quantization="nf4").model
    component = Lora(rank=2, targets="all-linear").attach(model, Streams(0), "main")
    batch = make_batch(data, [(0,), (1,)])
    before, digest = gradients(model, component, batch), params.frozen_digest(model)
    item_losses(model.eval(), data)
    after = gradients(model, component, batch)
    assert params.frozen_digest(model) == digest
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_products_in_bf16_leave_nothing_behind(both: Any, data: Any) -> None:
    """Within a step products are in bf16, bit for bit as those of the dequantised base are under autocast; afterwards everything is as before."""
    seen, batch = [], make_batch(data, [(0,), (1,)])
    for model in both:
        component = Lora(rank=2).attach(model, Streams(0), "main")
        params.own(model, [component])
        digest, losses = params.frozen_digest(model), item_losses(model, data)[0]
        with FrozenMatrices(model, "bf16"):
            with autocast(torch.device("cpu"), "bf16"):
                loss = summed_loss(model, batch)
            seen.append([loss.detach(), *torch.autograd.grad(loss, list(component.parameters().values()))])
        assert params.frozen_digest(model) == digest
        assert (item_losses(model, data)[0] == losses).all()
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_repeats_bit_for_bit(folder: Path, data: Any, precision: Any) -> None:
    config = Training(budget=Budget(amount=4, unit="steps"), sequence_length=32, batch_sequences=4, precision=precision,
                      evaluations=2)
    digests = set()
    for _ in range(2):
        model = load_base(folder, quantization="nf4").model
        component = Lora(rank=2).attach(model, Streams(0), "main")
        result = train(model, [component], data, config, 1e-2, Streams(0),
                       validate=lambda step, model=model: float(item_losses(model, data)[0].sum()))
        digests.add((component.trainable_digest(), result.final_loss))
    assert len(digests) == 1


def test_a_missing_package_is_said_with_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "PACKAGE", "bitsandbytes_that_is_not_here")
    with pytest.raises(MissingPackage, match=r"quantization: nf4 and is not installed\n.*finetrial\[qlora\]"):
        load_base(save_tiny_base(tmp_path / "model"), quantization="nf4")
