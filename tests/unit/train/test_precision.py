import contextlib
import os
from typing import Any

import pytest
import torch
from accelerate.state import PartialState

from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.models import params
from finetrial.streams import Streams
from finetrial.train import precision
from finetrial.train.batch import make_batch
from finetrial.train.loss import summed_loss
from finetrial.train.precision import FrozenMatrices, accelerator, autocast


def test_frozen_matrices_in_bf16_change_no_bit(tiny_model: Any, tiny_documents: Any, architecture: str) -> None:
    model = tiny_model(architecture)
    component = Lora(rank=2, targets="all-linear").attach(model, Streams(0), "adapter")
    params.own(model, [component])
    batch = make_batch(tiny_documents(4), [(0, 1), (2, 3)])
    before = params.frozen_digest(model)

    def loss_and_gradients() -> list[torch.Tensor]:
        with autocast(torch.device("cpu"), "bf16"):
            loss = summed_loss(model, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(component.parameters().values()))]

    expected = loss_and_gradients()
    held = FrozenMatrices(model, "bf16")
    with held:
        assert params.frozen_digest(model) != before
        found = loss_and_gradients()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert params.frozen_digest(model) == before


@pytest.mark.parametrize("method", [Lora(), Peft(options={"r": 4, "use_dora": True}), Peft(type="ia3")])
def test_frozen_matrices_change_nothing_for_adapters(tiny_model: Any, method: Any) -> None:
    ids, seen = torch.arange(24).reshape(2, 12), []
    for held in (False, True):
        model = tiny_model("llama")
        parameters = params.own(model, [method.attach(model, Streams(0), "main")])
        frozen = FrozenMatrices(model, "bf16") if held else contextlib.nullcontext()
        with frozen, autocast(torch.device("cpu"), "bf16"):
            loss = model.train()(input_ids=ids, labels=ids).loss
            loss.backward()
        seen.append([loss.detach(), *(p.grad for p in parameters.values())])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_originals_come_back_after_an_error(tiny_model: Any) -> None:
    model = tiny_model("gpt2").requires_grad_(False)
    before = params.frozen_digest(model)
    with pytest.raises(KeyError), FrozenMatrices(model, "bf16"):
        raise KeyError
    assert params.frozen_digest(model) == before


def test_originals_may_wait_on_the_host(tiny_model: Any) -> None:
    """Between steps too the weights are held in bf16, and nothing of the device's is kept beside them."""
    model = tiny_model("llama").requires_grad_(False)
    before, weight = params.frozen_digest(model), model.model.layers[0].mlp.up_proj.weight
    held = FrozenMatrices(model, "bf16", offload=True)
    for _ in range(2):
        for _ in range(2):
            with held:
                assert weight.dtype == torch.bfloat16
        assert weight.dtype == torch.bfloat16 and params.frozen_digest(model) != before
        held.restore()
        assert params.frozen_digest(model) == before


def test_fp32_touches_nothing(tiny_model: Any) -> None:
    model = tiny_model("gpt2").requires_grad_(False)
    before = params.frozen_digest(model)
    with FrozenMatrices(model, "fp32"):
        assert params.frozen_digest(model) == before


@pytest.mark.parametrize(("free_bytes", "offload"), [(1 << 20, False), (1 << 16, True)])
def test_copies_for_inference_lie_on_a_gpu_only_where_there_is_room(tiny_model: Any, monkeypatch: pytest.MonkeyPatch,
                                                                    free_bytes: int, offload: bool) -> None:
    model, asked = tiny_model("llama"), []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, 1 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 16)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 15)
    monkeypatch.setattr(precision, "FrozenMatrices", lambda model, kind, **options: asked.append(options))
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "device", torch.device("cuda:0"))
        precision.held_for_inference(model, "bf16")
    assert asked == [{"offload": offload, "inference": True}]
    precision.held_for_inference(model, "bf16")
    assert asked[1:] == [{"inference": True}]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that accelerate looks at the machine, which on CUDA starts a program of the driver's."""
    found: list[str] = []
    look = PartialState.set_device
    monkeypatch.setattr(PartialState, "set_device", lambda state: (found.append("look"), look(state)))
    PartialState._reset_state()
    return found


def test_the_machine_is_looked_at_once_for_all_precisions(looks: list[str]) -> None:
    made = [accelerator("cpu", kind) for kind in ("fp32", "bf16", "fp32")]
    assert [each.mixed_precision for each in (made[0], made[-1])] == ["no", "no"] and len(looks) == 1
    assert accelerator("cpu", "bf16").mixed_precision == "bf16"
    PartialState._shared_state["device"] = torch.device("meta")  # as after training on a device of another kind
    assert accelerator("cpu", "fp32").device.type == "cpu" and len(looks) == 2


def test_cards_that_cannot_reach_each_other_are_used_alone(looks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def look(state: PartialState) -> None:
        state.device = torch.device("cpu")
        if not all(name in os.environ for name in names):
            raise NotImplementedError("RTX 4000")

    monkeypatch.setattr(PartialState, "set_device", look)
    assert accelerator("cpu", "bf16").device.type == "cpu" and os.environ["NCCL_P2P_DISABLE"] == "1"
