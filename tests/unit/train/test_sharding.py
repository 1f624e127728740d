"""Two processes that hold a model between them train what one process trains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_documents, make_tiny_model
from parallel_runs import TRAINING, Outcome, Setting, assert_equal, attached, run
from partner import Partner

from finetrial.errors import UserError
from finetrial.methods.peft import Peft
from finetrial.models import params
from finetrial.streams import Streams
from finetrial.train.config import Training
from finetrial.train.data_parallel import DataParallel
from finetrial.train.loop import Run
from finetrial.train.sharding import held

pytestmark = pytest.mark.usefixtures("one_thread")
slow = pytest.mark.slow


def in_parts(partner: Partner, setting: Setting) -> Outcome:
    """What the first of two processes saw. The other saw the same, and is left without weights."""
    first, second = partner.both(partial(run, setting), sharded=True)
    assert first.losses == second.losses and first.norms == second.norms
    assert not any(weight.numel() for weight in second.weights.values())
    assert first.frozen[0] == first.frozen[1]
    return first


@pytest.mark.parametrize(("family", "method"), [
    ("gpt2", "full"), ("gpt2", "layer"), ("llama", "lora"), ("t5", "full"),
    *(pytest.param(*each, marks=slow) for each in [
        ("gpt2", "lora"), ("llama", "full"), ("llama", "layer"), ("t5", "lora"), ("t5", "layer"), ("t5-gated", "full"), ("t5-gated", "lora")])])
def test_two_processes_with_a_part_each_train_what_one_does(partner: Partner, family: str, method: str) -> None:
    """Gradients are clipped at every step, and validation is the whole model's."""
    setting = Setting(family, method, validates=True)
    found, alone = in_parts(partner, setting), run(setting)
    assert len(found.losses) == 6 and found.losses[-1] < found.losses[0] and len(found.result.curve) == 3
    assert max(alone.norms) > TRAINING["clip_norm"]
    assert_equal(found, alone)


@pytest.mark.parametrize("setting", [
    Setting(training={"batch_sequences": 3, "packing": False}, micro_batch=1),  # the second has no third micro-batch
    Setting("llama", "lora", training={"activation_checkpointing": True}),
    Setting(training={"packing": False, "budget": "8 steps"}, silent=28),  # some steps have no target
    pytest.param(Setting("llama", training={"optimizer": "muon"}), marks=slow),
    pytest.param(Setting("t5", training={"activation_checkpointing": True}), marks=slow)])
def test_other_cuts_and_optimizers(partner: Partner, setting: Setting) -> None:
    assert_equal(in_parts(partner, setting), run(setting))


@pytest.mark.parametrize("setting", [
    Setting("llama", training={"precision": "bf16", "dropout": 0.1}),
    pytest.param(Setting("gpt2", "lora", lora_dropout=0.2, training={"precision": "bf16"}), marks=slow)])
def test_it_is_what_two_with_whole_models_train(partner: Partner, setting: Setting) -> None:
    whole, _ = partner.both(partial(run, setting))
    assert_equal(in_parts(partner, setting), whole)


@pytest.mark.parametrize("sharded_first", [True, False])
def test_a_checkpoint_is_read_by_any_number_of_processes(partner: Partner, tmp_path: Path, sharded_first: bool) -> None:
    """Begun by two with parts and ended by one, or the other way round."""
    setting = Setting("gpt2", "full", training={"dropout": 0.1}, micro_batch=3)
    undisturbed = run(setting)
    broken = replace(setting, checkpoints=tmp_path, validation=(2.0,))  # the second validation finds nothing
    with pytest.raises(RuntimeError, match="StopIteration"):
        _ = partner.both(partial(run, broken), sharded=True) if sharded_first else run(broken)
    again = replace(setting, checkpoints=tmp_path)
    resumed = run(again) if sharded_first else in_parts(partner, again)
    assert 0 < len(resumed.losses) < 6
    assert resumed.losses == pytest.approx(undisturbed.losses[-len(resumed.losses):], rel=1e-5)
    for name, weight in resumed.weights.items():
        torch.testing.assert_close(weight, undisturbed.weights[name], rtol=1e-3, atol=1e-3)


@slow
def test_a_run_resumed_in_parts_is_the_undisturbed_one(partner: Partner, tmp_path: Path) -> None:
    setting = Setting("llama", "lora", checkpoints=tmp_path / "a")
    undisturbed = in_parts(partner, setting)
    with pytest.raises(RuntimeError, match="StopIteration"):
        partner.both(partial(run, replace(setting, checkpoints=tmp_path / "b", validation=(2.0,))), sharded=True)
    resumed = in_parts(partner, replace(setting, checkpoints=tmp_path / "b"))
    assert 0 < len(resumed.losses) < 6 and resumed.losses == undisturbed.losses[-len(resumed.losses):]
    assert params.digest(resumed.weights) == params.digest(undisturbed.weights)


def test_divergence_and_the_clock_end_both(partner: Partner, tmp_path: Path) -> None:
    wild = Setting(rate=1e30, training={"clip_norm": None})
    first, second = partner.both(partial(run, wild), sharded=True)
    assert first.result == second.result and first.result.startswith("Diverged(")
    first, second = partner.both(partial(run, Setting(checkpoints=tmp_path, expired=True)), sharded=True)
    assert first.result == second.result and first.result.startswith("OutOfTime(")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint.json", "step-00000000.pt"]


def test_each_holds_half(partner: Partner) -> None:
    """Of the parameters, of their gradients and of the optimizer's two moments; heads stay tied."""
    for found in partner.both(parts_held, sharded=True):
        assert found["originals"] == 0
        for what in ("parameters", "gradients", "moments"):
            assert found[what] == pytest.approx(found["whole"] * (2 if what == "moments" else 1) / 2, rel=0.01), what
        assert found["tied"]


def parts_held(parallel: DataParallel) -> dict[str, Any]:
    """Numbers in this process after a step of full fine-tuning."""
    model = make_tiny_model("gpt2")
    whole, originals = sum(parameter.numel() for parameter in model.parameters()), list(model.parameters())
    trained = Run(model, [attached(model, Setting())], make_documents(30), Training.model_validate(TRAINING), 1e-2, Streams(1),
                  "cpu", None, parallel=parallel)
    steps = trained.steps(None, None, None, None)
    loss = trained.gradients(next(steps))
    found = {"whole": whole, "originals": sum(parameter.numel() for parameter in originals),
             "parameters": here(model.parameters()),
             "gradients": here(parameter.grad for parameter in trained.parameters.values())}
    steps.send(loss)
    found["moments"] = here(value for optimizer in trained.optimizers for state in optimizer.state.values()
                            for value in state.values() if value.ndim)
    found["tied"] = model.lm_head.weight is model.transformer.wte.weight
    trained.close()
    return found


def here(split: Iterable[Any]) -> int:
    """Numbers of split tensors that this process keeps; those of a block share their memory."""
    kept = {storage.data_ptr(): storage.nbytes() for storage in (each.to_local().untyped_storage() for each in split)}
    return sum(kept.values()) // 4


def test_what_reads_whole_gradients_is_refused() -> None:
    model = make_tiny_model("llama")
    component = Peft(type="adalora", options={"total_step": 20, "tinit": 1, "tfinal": 2}).attach(model, Streams(1), "main")
    with pytest.raises(UserError, match="--shard is not possible with the method in slot 'main'"):
        held(model, [component], torch.device("cpu"), DataParallel(0, 2, sharded=True))
