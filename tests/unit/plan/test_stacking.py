"""How many cells a stack takes: a function of device, tokens of a step, size of the model, and free memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetrial.methods.lora import Lora
from finetrial.plan.bases import BUNDLED
from finetrial.plan.build import build
from finetrial.plan.forecast.memory import Step, training
from finetrial.plan.forecast.shapes import read_shapes
from finetrial.plan.forecast.show import render_resources
from finetrial.plan.forecast.stacking import MOST_CELLS, stack_size, stack_size_of, stacked_need
from finetrial.plan.forecast.study import forecast_study
from finetrial.plan.forecast.trained import trained_by
from finetrial.plan.hub_configs import known_config
from finetrial.run.stacks import automatic

TINY, GPT2, MISTRAL = "tiny-gpt", "openai-community/gpt2", "mistralai/Mistral-7B-v0.1"
LARGE = 80 * 10**9
SMALL_STEP = Step(rows=2, length=64, micro_batch=2)


def size(model: str = TINY, step: Step = SMALL_STEP, device: str = "cuda", free: int | None = LARGE, rank: int = 8) -> int:
    config = json.loads((BUNDLED / TINY / "config.json").read_text()) if model == TINY else known_config(model)
    shapes = read_shapes(config)
    return stack_size(shapes, trained_by([Lora(rank=rank)], shapes, config), step, device=device, available_bytes=free)


def test_small_steps_of_small_models_are_stacked_on_a_gpu_and_nowhere_else() -> None:
    assert size() == size(device="cuda:1") == MOST_CELLS
    assert size(device="cpu") == size(device="mps") == 1
    assert size(free=None) == 1  # what is not known is not used


def test_the_more_tokens_a_step_has_and_the_larger_the_model_the_fewer_cells_pay() -> None:
    mixed = replace(SMALL_STEP, mixed=True, offload=True)
    by_tokens = [size(GPT2, replace(mixed, rows=rows, micro_batch=rows)) for rows in (1, 4, 8, 16, 64)]
    assert by_tokens == sorted(by_tokens, reverse=True) and by_tokens[0] == MOST_CELLS and by_tokens[-1] == 1
    assert 1 < by_tokens[2] < MOST_CELLS
    assert size(MISTRAL, mixed) == 1 < size(GPT2, mixed) <= size(TINY, mixed)
    assert size(GPT2, SMALL_STEP) < size(GPT2, mixed)  # products in fp32 take longer, kernels start as fast
    parts = replace(mixed, rows=64, micro_batch=2)
    assert size(GPT2, parts) == size(GPT2, mixed)  # what is computed at once counts


def test_memory_bounds_a_stack() -> None:
    config = json.loads((BUNDLED / TINY / "config.json").read_text())
    shapes = read_shapes(config)
    trained = trained_by([Lora(rank=8)], shapes, config)
    peaks = [stacked_need(shapes, trained, SMALL_STEP, cells).peak for cells in (1, 2, 4, 8)]
    assert peaks[0] == training(shapes, trained, SMALL_STEP).peak and peaks == sorted(peaks)
    assert peaks[3] < 8 * peaks[0]  # the base is there once
    for cells, peak in zip((1, 2, 4, 8), peaks, strict=True):
        assert size(free=int(peak * 1.25) + 2) == cells
    assert size(free=1000) == 1  # what does not even fit alone is tried alone


def test_a_stage_is_sized_by_its_specification_and_its_base(study) -> None:
    plan = build(study)
    [stage] = [stage for stage in plan.stages if stage.kind == "train" and "lora" in stage.id][:1]
    base = Path(stage.locations["base"])
    found = stack_size_of(stage.spec, base, None, device="cuda", available_bytes=LARGE)
    config = json.loads((base / "config.json").read_text())
    shapes = read_shapes(config)
    step = Step(rows=2, length=64, micro_batch=2)
    assert found == stack_size(shapes, trained_by([Lora(rank=8)], shapes, config), step, device="cuda", available_bytes=LARGE) > 1
    assert stack_size_of(stage.spec, base, 1, device="cuda", available_bytes=LARGE) >= found
    assert stack_size_of(stage.spec, base, None, device="cpu", available_bytes=LARGE) == 1
    assert automatic("cpu", LARGE) == automatic("cuda", None) == 1
    assert "stack" not in json.dumps(stage.identity(dict.fromkeys(stage.inputs, "0")))


def test_the_plan_says_so(study) -> None:
    from rich.console import Console

    console = Console(record=True, width=120)
    for on_gpu, said in ((True, True), (False, False)):
        console.print(render_resources(forecast_study(study, build(study), recorded={}, device="80GB", available_bytes=LARGE,
                                                      on_gpu=on_gpu)))
        assert (f"in stacks of {MOST_CELLS}, as many as are ready" in console.export_text()) == said


@pytest.fixture
def study():
    from finetrial.spec.study import Study

    return Study.model_validate({
        "name": "small", "question": "?", "bases": [TINY], "tasks": [{"name": "text", "task": "python-text", "num_test": 8}],
        "arms": [{"name": "full", "components": "full", "learning_rates": [1e-3]},
                 {"name": "lora", "components": "lora:rank=8", "learning_rates": [1e-3]}],
        "training": {"budget": "2 steps", "sequence_length": 64, "batch_sequences": 2}, "seeds": 1})
