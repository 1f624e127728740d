"""Several tasks' parts on one base: after every switch the model is the one that was made for that task alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import save_tiny_base

from finetrial.errors import ModelError, UserError
from finetrial.models.load import load_base
from finetrial.spec.arm import Arm
from finetrial.spec.slots import State, advance, answering
from finetrial.stages.adapted import attach, instance_folder, read_state, write_state
from finetrial.stages.profile import _swap_seconds
from finetrial.stages.switching import TaskSwitch
from finetrial.streams import Streams

TASKS = ("a", "b", "c")
IDS = torch.tensor([[5, 17, 40, 2, 63, 31]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("model"))


def trained(base: Path, folder: Path, components: Any) -> Path:
    """What three phases leave, with weights moved at random in the place of training."""
    arm = Arm(name="arm", components=components, learning_rates=(0.1,))
    state = State()
    for number, task in enumerate(TASKS, start=1):
        state, _ = advance(state, number, task, [component.spec() for component in arm.for_task(task)])
    for number, instance in enumerate(state.instances):
        loaded = load_base(base, attention="sdpa")
        component = attach(loaded, instance, Streams(number))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in component.parameters().values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        component.save(folder / instance_folder(instance))
    write_state(folder, state)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits.clone()


def alone(base: Path, folder: Path, task: str) -> torch.Tensor:
    """Of a model that holds what answers for one task, and nothing else."""
    loaded, state = load_base(base, attention="sdpa"), read_state(folder)
    for instance in (*state.merged, *answering(state, "oracle", task)):
        component = attach(loaded, instance, Streams(0))
        component.load(folder / instance_folder(instance))
        if instance in state.merged:
            component.merge()
    return logits(loaded.model)


FRESH = {"lora": {"method": "lora:rank=2", "carry": "fresh"}, "layer": {"method": "layer", "carry": "fresh"},
         "full": {"method": "full", "carry": "fresh"}, "unfreeze": {"method": "unfreeze:last=1", "carry": "fresh"},
         "stacked": {"method": "lora:rank=3", "carry": "stack"}}


@pytest.mark.parametrize("name", FRESH)
def test_each_task_is_answered_by_its_own_parts(name: str, base: Path, tmp_path: Path) -> None:
    folder = trained(base, tmp_path, [FRESH[name]])
    parts = TaskSwitch.open(load_base(base, attention="sdpa"), folder)
    assert parts.tasks == TASKS and parts.task == "c"
    expected = {task: alone(base, folder, task) for task in TASKS}
    for task in ("c", "a", "b", "a", "a", "c"):
        assert parts.to(task) >= 0 and parts.task == task
        assert torch.equal(logits(parts.model), expected[task]), task
    parts.to("")
    assert torch.equal(logits(parts.model), logits(load_base(base, attention="sdpa").model))
    assert len({tuple(expected[task].flatten().tolist()) for task in TASKS}) == 3


def test_an_adapter_and_a_layer_switch_together(base: Path, tmp_path: Path) -> None:
    both = [{"method": "layer", "slot": "block", "carry": "fresh"}, {"method": "lora", "slot": "adapter", "carry": "fresh"}]
    folder = trained(base, tmp_path, both)
    parts = TaskSwitch.open(load_base(base, attention="sdpa"), folder)
    for task in ("a", "c", "b"):
        parts.to(task)
        assert torch.equal(logits(parts.model), alone(base, folder, task))


def test_what_was_merged_is_part_of_the_base(base: Path, tmp_path: Path) -> None:
    lora = {"method": "lora:rank=2"}
    folder = trained(base, tmp_path, {"a": lora, "b": {**lora, "carry": "merge"}, "c": {**lora, "carry": "fresh"}})
    parts = TaskSwitch.open(load_base(base, attention="sdpa"), folder)
    for task in ("b", "c", "b"):
        parts.to(task)
        assert torch.equal(logits(parts.model), alone(base, folder, task))


@pytest.mark.parametrize("components", [
    {"a": {"method": "full", "slot": "whole"}, "*": {"method": "unfreeze:last=1", "slot": "block", "carry": "fresh"}},
    {"a": {"method": "full", "slot": "whole"},
     "*": {"method": {"kind": "peft", "options": {"r": 2, "init_lora_weights": "pissa"}}, "slot": "adapter"}},
], ids=["unfreeze", "pissa"])
def test_two_that_change_the_same_weights_and_answer_together_are_refused(components: Any, base: Path, tmp_path: Path) -> None:
    folder = trained(base, tmp_path, components)
    with pytest.raises(ModelError, match="changed the same weights of the base, and answer together"):
        TaskSwitch.open(load_base(base, attention="sdpa"), folder)


def test_what_cannot_be_switched_to(base: Path, tmp_path: Path) -> None:
    parts = TaskSwitch.open(load_base(base, attention="sdpa"), trained(base, tmp_path, [FRESH["lora"]]))
    with pytest.raises(UserError, match="unknown task 'd'"):
        parts.to("d")


def test_adapters_that_must_be_alone_are_opened_one_at_a_time(base: Path, tmp_path: Path) -> None:
    folder = trained(base, tmp_path, [{"method": {"kind": "peft", "options": {"r": 2, "use_dora": True}}, "carry": "fresh"}])
    with pytest.raises(ModelError, match=r"main@2 cannot stand beside .*\n.*run.model\(arm, task=...\)"):
        TaskSwitch.open(load_base(base, attention="sdpa"), folder)


@pytest.mark.parametrize("method", ["lora", "layer", "full", "unfreeze:last=1"])
def test_a_swap_is_timed_and_leaves_the_model_as_it_was(method: str, base: Path) -> None:
    loaded = load_base(base, attention="sdpa")
    component, = Arm(name="arm", components=method, learning_rates=(0.1,)).for_task("a")
    state, _ = advance(State(), 1, "a", [component.spec()])
    attached = attach(loaded, state.instances[0], Streams(0))
    before = logits(loaded.model)
    seconds = _swap_seconds([attached], "cpu")
    assert seconds is not None and seconds > 0
    assert torch.equal(logits(loaded.model), before)
