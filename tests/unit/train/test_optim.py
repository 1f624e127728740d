import gc
import weakref
from typing import Any

import pytest
import torch
from parallel_runs import scaled

from finetrial.errors import UserError
from finetrial.methods.full import Full
from finetrial.streams import Streams
from finetrial.train import optim
from finetrial.train.config import Training
from finetrial.train.loop import Run


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_orthogonalise_keeps_directions_and_evens_out_singular_values(products: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((24, 40), (40, 24)):
        matrix = torch.randn(*shape, generator=generator)
        result = optim.orthogonalise(matrix, products)
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.6 and values.max() < 1.25
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        cosine = (result * (u @ vh)).sum() / (result.norm() * (u @ vh).norm())
        assert cosine > 0.97


def test_muon_agrees_with_torch() -> None:
    """One step against torch.optim.Muon, which does the same in bf16."""
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(32, 48, generator=generator), torch.randn(32, 48, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = optim.Muon([ours], weight_decay=0.1)
    optim.set_learning_rate([mine], 0.01)
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_muon_takes_the_matrices_of_the_blocks(tiny_model: Any, architecture: str) -> None:
    model = tiny_model(architecture)
    parameters = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    muon, adamw = optim.optimizers(model, parameters, Training(optimizer="muon", weight_decay=0.1))
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert taken | rest == set(parameters) and not taken & rest
    assert all(parameters[name].ndim == 2 and (".h." in name or ".layers." in name) for name in taken)
    assert len(taken) == 2 * (4 if architecture == "gpt2" else 7)


def test_weight_decay_spares_norms_and_biases(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    [adamw] = optim.optimizers(model, dict(model.named_parameters()), Training(weight_decay=0.1))
    decay = {p.ndim: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert decay == {2: 0.1, 1: 0.0}


def test_eight_bits_are_for_cuda() -> None:
    with pytest.raises(UserError, match="paged_adamw_8bit is not possible on the device cpu"):
        optim.optimizers(torch.nn.Linear(2, 2), {"weight": torch.nn.Parameter(torch.zeros(2, 2))},
                         Training(optimizer="paged_adamw_8bit"))


def test_a_step_that_the_loss_scaler_skips_is_seen(tiny_model: Any) -> None:
    """A fused AdamW skips it inside its kernel, and says nothing."""
    model = tiny_model("gpt2")
    for precision, fused in (("fp16", False), ("fp32", True)):
        (made,) = optim.optimizers(model, dict(model.named_parameters()), Training.model_validate(
            {"budget": "1 step", "sequence_length": 8, "batch_sequences": 1, "precision": precision}))
        assert bool(made.defaults["fused"]) is fused


def test_on_a_gpu_every_adamw_takes_all_parameters_at_once() -> None:
    """Without `fused` torch would otherwise take one after the other, and in a run that is resumed wait for each."""
    for precision, expected in (("fp16", {"fused": False, "foreach": True}), ("bf16", {"fused": True})):
        config = Training.model_validate({"budget": "1 step", "sequence_length": 8, "batch_sequences": 1, "precision": precision})
        assert optim._adamw(config, torch.device("cuda")) == (torch.optim.AdamW, expected)
    assert optim._adamw(config.model_copy(update={"precision": "fp16"}), torch.device("cpu"))[1]["foreach"] is False


def test_moments_and_parameters_go_when_training_ends(tiny_model: Any, tiny_documents: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a collection of garbage, though a wrapped optimizer with a loss scaler refers to itself."""
    monkeypatch.setattr("finetrial.train.precision.accelerator", scaled)
    model = tiny_model("gpt2")
    component = Full().attach(model, Streams(0), "main")
    run = Run(model, [component], tiny_documents(8), Training.model_validate(
        {"budget": "2 steps", "sequence_length": 32, "batch_sequences": 4, "evaluations": 0}), 1e-3, Streams(0), "cpu", None)
    steps = run.steps(None, None, None, None)
    steps.send(run.gradients(next(steps)))
    gc.collect()
    gc.disable()
    try:
        held = [weakref.ref(value) for optimizer in run.optimizers for state in optimizer.state.values()
                for value in state.values()] + [weakref.ref(parameter) for parameter in model.parameters()]
        assert held and all(each() is not None for each in held)
        steps.close()
        run.close()
        del run, steps, component, model
        assert not any(each() is not None for each in held)
    finally:
        gc.enable()
