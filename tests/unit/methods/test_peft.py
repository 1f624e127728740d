import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from finetrial.errors import ModelError
from finetrial.methods.peft import TYPES, Peft
from finetrial.models import params
from finetrial.streams import Streams

IDS = torch.arange(24).reshape(2, 12)
SMALL: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 4, "target_r": 2, "total_step": 20, "tinit": 1, "tfinal": 2},
    "fourierft": {"n_frequency": 10}, "oft": {"r": 0, "oft_block_size": 4},
    **{name: {"r": 4} for name in ("loha", "lokr", "delora", "glora", "gralora", "hira", "hra", "miss", "psoft")}}
ON_GPT2 = ("deft", "fourierft", "gralora", "hira", "pvera", "randlora")  # besides the examples of the conformance tests
VARIANTS = [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"},
            {"init_lora_weights": "orthogonal"}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"},
            {"init_lora_weights": "pissa_niter_4", "use_rslora": True}, {"init_lora_weights": False}]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        targets = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
        return model.eval()(input_ids=IDS, **targets).logits


def step(model: Any, component: Any) -> None:
    params.own(model, [component])
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    with torch.no_grad():
        for parameter in component.parameters().values():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    component.after_step(0)
    model.zero_grad()


def in_plain_peft(model: Any, folder: Path) -> torch.Tensor:
    from peft import PeftModel

    return logits(PeftModel.from_pretrained(model, folder))


@pytest.mark.filterwarnings("ignore:.*vera_A and vera_B.*", "ignore:.*vera_A.*", "ignore:.*PRNG.*")
@pytest.mark.parametrize(("family", "method"), [
    *(("llama", Peft(type=name, options=SMALL.get(name, {}))) for name in TYPES),
    *(("gpt2", Peft(type=name, options=SMALL.get(name, {}))) for name in ON_GPT2),
    *(("llama", Peft(options={"r": 4, **variant})) for variant in VARIANTS)],
                         ids=lambda value: value if isinstance(value, str) else f"{value.type}-{value.options}")
def test_trained_and_stored_it_is_the_same_in_plain_peft(tiny_model: Any, family: str, method: Peft, tmp_path: Path,
                                                         ) -> None:
    base, model = tiny_model(family), tiny_model(family)
    component = method.attach(model, Streams(0), "lora")
    difference = (logits(model) - logits(base)).abs().max()
    assert (difference == 0) == (method.step_0 == "exact") and (difference < 1e-5) == (method.step_0 != "other")
    expected = sum(parameter.numel() for parameter in component.parameters().values())
    assert method.count_trainable(model.config.to_dict()) in (None, expected)
    frozen = params.own(model, [component]) and params.frozen_digest(model)
    start = logits(model)
    step(model, component)
    assert params.frozen_digest(model) == frozen
    trained = logits(model)
    assert not torch.equal(trained, start)
    component.save(tmp_path)
    torch.testing.assert_close(in_plain_peft(tiny_model(family), tmp_path), trained, rtol=1e-5, atol=1e-5)
    again = tiny_model(family)
    method.attach(again, Streams(0), "other", "2").load(tmp_path)
    assert torch.equal(logits(again), trained)
    component.merge()
    torch.testing.assert_close(logits(model), trained, rtol=1e-4, atol=1e-5)
    assert dict(model.named_parameters()).keys() == dict(base.named_parameters()).keys()


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_residual_adapter_follows_its_model_to_another_device(tiny_model: Any, tmp_path: Path, kind: str) -> None:
    """To `meta`, which has no values: what would meet tensors of two devices raises there as on a GPU."""
    model = tiny_model("llama")
    component = Peft(options={"r": 4, "init_lora_weights": kind}).attach(model, Streams(0), "main")
    model.to("meta")
    component.set_active(False)
    component.set_active(True)
    with pytest.raises(NotImplementedError, match="meta"):  # from writing tensors without values; joining them worked
        component.save(tmp_path)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_residual_initialisation_leaves_the_base_with_the_rest(tiny_model: Any, tmp_path: Path) -> None:
    import json

    from finetrial.methods.full import Full
    from finetrial.methods.layer import Layer

    model, base = tiny_model("gpt2"), tiny_model("gpt2")
    pissa = Peft(options={"r": 4, "init_lora_weights": "pissa"}).attach(model, Streams(0), "pissa")
    assert len(pissa.rewritten()) == 4
    assert not torch.equal(model.transformer.h[0].attn.c_attn.base_layer.weight, base.transformer.h[0].attn.c_attn.weight)
    Layer(output_scale=1.0).attach(model, Streams(0), "copy")  # of the base's whole block
    assert torch.equal(model.transformer.h[2].attn.c_attn.weight, base.transformer.h[1].attn.c_attn.weight)
    with pytest.raises(ModelError, match="components full and pissa conflict over transformer"):
        params.own(model, [pissa, Full().attach(model, Streams(0), "full")])
    pissa.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_adalora_moves_its_budget_and_goes_on_from_a_checkpoint(tiny_model: Any) -> None:
    def run(interrupted: bool, skipped: int | None = None) -> tuple[str, int]:
        model = tiny_model("llama")
        component = Peft(type="adalora", options=SMALL["adalora"]).attach(model, Streams(0), "main")
        parameters = params.own(model, [component])
        optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
        for number in range(20):
            model.train()(input_ids=IDS, labels=IDS).loss.backward()
            if number == skipped:  # as fp16's scaler does
                for parameter in parameters.values():
                    assert parameter.grad is not None
                    parameter.grad.fill_(math.inf)
            else:
                optimizer.step()
            component.after_step(number)
            optimizer.zero_grad()
            if interrupted and number == 9:
                progress, values = component.progress(), {n: p.detach().clone() for n, p in parameters.items()}
                model = tiny_model("llama")
                component = Peft(type="adalora", options=SMALL["adalora"]).attach(model, Streams(0), "main")
                parameters = params.own(model, [component])
                optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
                with torch.no_grad():
                    for name, parameter in parameters.items():
                        parameter.copy_(values[name])
                component.resume(progress)
        ranks = sum(int((p != 0).sum()) for name, p in component.parameters().items() if "lora_E" in name)
        return component.trainable_digest(), ranks

    digest, ranks = run(False)
    assert ranks == 8 * 2  # target_r in each of 8 layers, wherever they lie
    assert run(True) == (digest, ranks)
    assert run(False, skipped=3)[1] == ranks


def test_defaults_of_ia3_and_targets(tiny_model: Any) -> None:
    names = set(Peft(type="ia3").attach(tiny_model("llama"), Streams(0), "a").parameters())
    assert {name.split(".ia3_l")[0].rpartition(".")[2] for name in names} == {"k_proj", "v_proj", "down_proj"}
    named = Peft(type="ia3", targets=("k_proj", "up_proj"), options={"feedforward_modules": ["up_proj"]})
    component = named.attach(tiny_model("llama"), Streams(0), "a")
    assert sum(p.numel() for p in component.parameters().values()) == 2 * (16 + 32)
    assert named.count_trainable(tiny_model("llama").config.to_dict()) == 2 * (16 + 32)


def test_what_peft_cannot_do(tiny_model: Any) -> None:
    gpt2, llama = tiny_model("gpt2"), tiny_model("llama")
    for method, model, message in (
            (Peft(options={"init_lora_weights": "olora"}), gpt2, r"olora does not work on the layers of a GPT-2"),
            (Peft(type="loha"), gpt2, r"loha does not work on the layers of a GPT-2 \(Conv1D\)"),
            (Peft(options={"rr": 4}), llama, "unknown option of peft's lora 'rr'"),
            (Peft(type="adalora"), llama, "peft refuses these options of adalora: .*total_step"),
            (Peft(type="fourierft"), llama, "peft's FOURIERFT cannot adapt this llama model"),
            (Peft(targets=("q_prj",)), llama, "unknown lora target 'q_prj'; did you mean 'q_proj'")):
        with pytest.raises(ModelError, match=message):
            method.attach(model, Streams(0), "a")
    with pytest.raises(ModelError, match="loha does not work"):
        Peft(type="loha").count_trainable(gpt2.config.to_dict())


def test_options() -> None:
    for bad, message in (({"type": "lorra"}, "unknown peft type 'lorra'; did you mean 'lora'"),
                         ({"type": "prefix_tuning"}, "unknown peft type"),
                         ({"options": {"target_parameters": ["a"]}}, "target_parameters is not an option here"),
                         ({"options": {"modules_to_save": ["lm_head"]}}, "add a component `unfreeze`"),
                         ({"options": {"init_lora_weights": "eva"}}, "init_lora_weights 'eva' is not supported"),
                         ({"options": {"init_lora_weights": "pissa", "use_dora": True}}, "cannot be combined")):
        with pytest.raises(ValidationError, match=message):
            Peft.model_validate(bad)
