"""The forecast against what is published, what transformers builds and what autograd keeps."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import VOCABULARY, make_tiny_model
from rich.console import Console

from finetrial.errors import UserError
from finetrial.methods.full import Full
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.methods.unfreeze import Unfreeze
from finetrial.plan.build import build
from finetrial.plan.forecast import memory
from finetrial.plan.forecast.activations import Pass, kept_bytes
from finetrial.plan.forecast.device import changes, device_bytes, verdict
from finetrial.plan.forecast.memory import Step, training
from finetrial.plan.forecast.operations import (
    forward_operations,
    generation_operations,
    given_rate,
    training_operations,
)
from finetrial.plan.forecast.shapes import FAMILIES, ModelShapes, read_shapes
from finetrial.plan.forecast.show import render_resources
from finetrial.plan.forecast.study import Resources, forecast_study
from finetrial.plan.forecast.trained import Trained, trained_by
from finetrial.plan.hub_configs import FOLDER, known_config
from finetrial.records.record import Environment, Outcome, Record
from finetrial.spec.study import Study
from finetrial.stages.base import StageInput
from finetrial.train.config import Budget

GB = 10**9
ROWS, LENGTH = 5, 32  # 160 tokens: a width that no weight of the tiny models has
LLAMA = {"model_type": "llama", "tie_word_embeddings": False, "vocab_size": 32000}
T5_SMALL = {"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
            "relative_attention_num_buckets": 32, "vocab_size": 32128, "is_encoder_decoder": True}
GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
PUBLISHED: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "gpt2": (GPT2, 124_439_808),
    "gpt2-medium": ({**GPT2, "n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168),
    "TinyLlama-1.1B": ({**LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                        "num_attention_heads": 32, "num_key_value_heads": 4}, 1_100_048_384),
    "t5-small": (T5_SMALL, 60_506_624),
    "codet5-small": ({**T5_SMALL, "vocab_size": 32100}, 60_492_288),
    "gemma-2b": ({"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
                  "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000},
                 2_506_172_416),
    "Llama-2-7b": ({**LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                    "num_attention_heads": 32}, 6_738_415_616)}
SHIPPED = {"Salesforce/codet5-small": 60_492_288, "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
           "google/gemma-2b-it": 2_506_172_416, "mistralai/Mistral-7B-v0.1": 7_241_732_096,
           "openai-community/gpt2": 124_439_808, "openai-community/gpt2-medium": 354_823_168}


def shapes_of(config: Mapping[str, Any]) -> ModelShapes:
    found = read_shapes(config)
    assert found is not None
    return found


def medium() -> tuple[ModelShapes, Trained]:
    shapes = shapes_of(PUBLISHED["gpt2-medium"][0])
    return shapes, trained_by([Full()], shapes, PUBLISHED["gpt2-medium"][0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    config, parameters = PUBLISHED[name]
    assert shapes_of(config).parameters == parameters
    assert shapes_of(config).assumed == ()


def test_shipped_configurations_are_those_published() -> None:
    assert {name: shapes_of(known_config(name) or {}).parameters for name in SHIPPED} == SHIPPED
    assert {path.stem.replace("--", "/") for path in FOLDER.iterdir()} == set(SHIPPED)
    assert known_config("gpt2") == known_config("openai-community/gpt2")
    assert known_config("nobody/nothing") is None


def small_config(family: str) -> dict[str, Any]:
    if family in ("t5", "mt5"):
        return {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    if family == "gpt2":
        return {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
    config: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                              "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config |= {"ffn_dim": 48, "word_embed_proj_dim": 32} if family == "opt" else {"intermediate_size": 48}
    return config if family in ("opt", "gpt_neox") else {**config, "num_key_value_heads": 2, "head_dim": 8}


@pytest.mark.parametrize("family", [*FAMILIES, "t5", "mt5"])
def test_parameters_are_those_of_the_model_that_transformers_builds(family: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    written = {"vocab_size": VOCABULARY, **small_config(family)}
    built = AutoModelForSeq2SeqLM if family in ("t5", "mt5") else AutoModelForCausalLM
    with torch.device("meta"):
        model = built.from_config(AutoConfig.for_model(family, **written))
    assert shapes_of({"model_type": family, **written}).parameters == sum(p.numel() for p in model.parameters())


def test_an_unknown_architecture_is_read_by_common_names_and_says_so() -> None:
    names = {"vocab_size": 1000, "n_layers": 2, "n_heads": 4, "dim": 64, "rms_norm_eps": 1e-6}
    found = shapes_of({"model_type": "new", **names})
    assert found.parameters == 2 * (4 * 64 * 64 + 3 * 64 * 256 + 2 * 64) + 64 + 2 * 1000 * 64
    assert "new is not a known architecture" in found.assumed[0] and len(found.assumed) == 3


@pytest.mark.parametrize("config", [
    {}, {"model_type": "new", "hidden_size": 64}, {"model_type": "bart", "is_encoder_decoder": True, "d_model": 64},
    {**PUBLISHED["Llama-2-7b"][0], "model_type": "mixtral", "num_local_experts": 8}])
def test_what_cannot_be_read_is_unknown(config: Mapping[str, Any]) -> None:
    assert read_shapes(config) is None


def test_a_method_that_cannot_count_leaves_memory_and_operations_unknown() -> None:
    shapes = shapes_of(GPT2)
    other = trained_by([Peft(type="ia3")], shapes, GPT2)
    assert other.parameters is not None and "every matrix to keep its input" in other.assumed[0]
    uncounted = replace(other, parameters=None)
    assert training(shapes, uncounted, Step(8, 512, 8)) is None
    assert training_operations(shapes, uncounted, 1000, 512) is None


def saved_bytes(architecture: str, method: Any, *, mixed: bool) -> tuple[int, dict[str, Any]]:
    """What autograd saves on the way forward, parameters and their casts left out; and the model's configuration."""
    import contextlib

    import torch

    from finetrial.models import params
    from finetrial.models.load import fuse_activations
    from finetrial.streams import Streams
    from finetrial.train.batch import Batch
    from finetrial.train.loss import summed_loss
    from finetrial.train.precision import FrozenMatrices

    model = make_tiny_model(architecture)
    fuse_activations(model)
    params.own(model, [method.attach(model, Streams(0), "main")])
    pairs, ids = architecture.startswith("t5"), torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % VOCABULARY
    batch = Batch(ids, None, None, torch.arange(ids.numel()), ids.flatten(), ids.numel(), ids if pairs else None,
                  torch.ones_like(ids, dtype=torch.bool) if pairs else None)
    shapes = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(p.shape)[::-1])}
    kept: list[Any] = []  # as long as the sum is made, so that no address is used twice
    with FrozenMatrices(model, "bf16" if mixed else "fp32"), \
            torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor), \
            torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext():
        summed_loss(model.train(), batch)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept
                if tuple(tensor.shape) not in shapes}
    return sum(storages.values()), model.config.to_dict()


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", [Full(), Lora(rank=2), Lora(rank=2, targets="all-linear"), Layer(), Unfreeze(last=1)],
                         ids=lambda method: method.kind)
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5-gated"])
def test_activations_are_what_autograd_keeps(architecture: str, method: Any, mixed: bool) -> None:
    """Up to what is alive without being saved (embedded ids), and the softmax of T5's cross-attention, which a CPU
    leaves in bf16 and CUDA computes in fp32."""
    measured, config = saved_bytes(architecture, method, mixed=mixed)
    shapes = shapes_of(config)
    run = Pass(ROWS, LENGTH, product=2 if mixed else 4, eager=shapes.encoder_decoder)
    slopes = run.tokens * shapes.width * run.product  # the loss keeps the gradient of every target's hidden state
    found = kept_bytes(shapes, trained_by([method], shapes, config), run) + slopes
    assert 0.98 < found / measured < (1.25 if mixed else 1.15)


def test_what_lies_below_everything_trained_keeps_nothing() -> None:
    shapes, run = shapes_of(GPT2), Pass(8, 512)
    last, all_blocks = (kept_bytes(shapes, trained_by([Unfreeze(last=n)], shapes, GPT2), run) for n in (1, 12))
    assert last < all_blocks / 8
    frozen, whole = (kept_bytes(shapes, trained_by([method], shapes, GPT2), run) for method in (Lora(), Full()))
    assert frozen < whole
    assert kept_bytes(shapes, trained_by([Full()], shapes, GPT2), replace(run, checkpointing=True)) < whole / 5
    assert kept_bytes(shapes, trained_by([Full()], shapes, GPT2), replace(run, eager=True)) > 1.4 * whole


def test_the_limits_are_those_of_the_code_that_runs() -> None:
    import inspect

    from finetrial.generate import decoding, live
    from finetrial.train import loss

    assert (memory.CHUNK_LOGITS, memory.CHUNK_LOGITS_ON_CUDA) == (loss.CHUNK_LOGITS, loss.CHUNK_LOGITS_ON_CUDA)
    assert inspect.signature(loss.item_losses).parameters["batch_tokens"].default == memory.PREDICT_TOKENS
    assert (memory.DECODE_TOKENS, memory.PREFILL_TOKENS) == (decoding.BATCH_TOKENS, live.PREFILL_TOKENS)


def test_a_gpu_holds_larger_chunks_of_logits() -> None:
    shapes = shapes_of(GPT2)
    here, there = (memory.prediction(shapes, 512, eager=False, on_gpu=on_gpu).parts["logits"] for on_gpu in (False, True))
    assert 7.9 < there / here < 8.1
    trained, step = trained_by([Lora()], shapes, GPT2), Step(8, 512, 8)
    small, large = (training(shapes, trained, replace(step, on_gpu=on_gpu)) for on_gpu in (False, True))
    assert small is not None and large is not None and 7.9 < (large.peak - small.peak) / here + 1 < 8.1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimizer_holds_what_is_forecast(optimizer: str) -> None:
    import torch

    from finetrial.models import params
    from finetrial.streams import Streams
    from finetrial.train.config import Training
    from finetrial.train.optim import optimizers

    model = make_tiny_model("gpt2")
    owned = params.own(model, [Full().attach(model, Streams(0), "main")])
    made = optimizers(model, owned, Training(optimizer=optimizer))
    for parameter in owned.values():
        parameter.grad = torch.ones_like(parameter)
    for one in made:
        one.step()
    config = model.config.to_dict()
    shapes = shapes_of(config)
    found = memory.optimizer_bytes(trained_by([Full()], shapes, config), optimizer)
    assert found == pytest.approx(params.optimizer_bytes(made), rel=0.01)


@pytest.mark.parametrize("micro_batch", [8, 4, 2, 1])
@pytest.mark.parametrize("mixed", [False, True])
def test_full_fine_tuning_of_gpt2_medium_does_not_fit_on_6_gb(mixed: bool, micro_batch: int) -> None:
    """The claim of the study `perplexity`, at 8 rows of 512 tokens a step: AdamW with weights, gradients and moments in
    fp32 is 16 bytes a parameter, 5.7 GB before any activation, whatever the type of products."""
    shapes, trained = medium()
    need = training(shapes, trained, Step(8, 512, micro_batch, mixed=mixed, on_gpu=True))
    assert need is not None and need.peak > 6 * GB
    assert verdict(need.peak, 6 * GB) == "does not fit"
    assert need.parts["weights"] + need.parts["optimizer"] == 12 * shapes.parameters
    offered = changes(shapes, PUBLISHED["gpt2-medium"][0], trained, Step(8, 512, micro_batch, mixed=mixed, on_gpu=True), 6 * GB)
    assert [change.text.split(",")[0] for change in offered] == ["lora:rank=8 instead"]
    assert all(change.peak <= 6 * GB for change in offered)


def test_a_smaller_micro_batch_is_offered_first() -> None:
    shapes, trained = medium()
    step = Step(8, 512, 8)
    assert [change.text for change in changes(shapes, {}, trained, step, 10 * GB)] \
        == ["micro-batch 4 (a run finds it by itself)"]
    assert changes(shapes, {}, trained, step, 1 * GB) == []


def test_four_bits_hold_a_7b_model_on_16_gb() -> None:
    config = PUBLISHED["Llama-2-7b"][0]
    shapes = shapes_of(config)
    step, adapters = Step(4, 512, 1, mixed=True), trained_by([Lora()], shapes, config)
    whole, quantised = (training(shapes, adapters, replace(step, four_bit=four_bit)) for four_bit in (False, True))
    assert whole is not None and whole.parts["weights"] > 6 * shapes.matrices
    assert quantised is not None and verdict(quantised.peak, 16 * GB) == "fits"
    assert quantised.parts["weights"] == pytest.approx(
        shapes.matrices * (4 + 0.127) / 8 + 4 * (shapes.parameters - shapes.matrices), rel=0.03)


def test_processes_that_share_a_step_split_the_model_too_where_they_are_asked_to() -> None:
    """GPT-2 in full, 4 processes: a quarter of what is held in 4 bytes; a block or two, and what lies outside, are whole."""
    config, parameters = PUBLISHED["gpt2"]
    shapes = shapes_of(config)
    trained = trained_by([Full()], shapes, config)
    alone = needed(shapes, trained, Step(rows=1, length=16, micro_batch=1))
    shared = needed(shapes, trained, Step(rows=4, length=16, micro_batch=1, processes=4))
    split = needed(shapes, trained, Step(rows=4, length=16, micro_batch=1, processes=4, split=True))
    assert shared == alone and alone["optimizer"] == 8 * parameters and split["optimizer"] == 2 * parameters
    block, outside = 12 * 768**2, parameters - 12 * 12 * 768**2
    assert split["weights"] == parameters + 4 * (2 * block + outside)
    assert split["gradients"] == parameters + 4 * (block + outside)  # the worst moment is the end of the backward pass


def needed(shapes: ModelShapes, trained: Trained, step: Step) -> Mapping[str, int]:
    need = training(shapes, trained, step)
    assert need is not None
    return need.parts


@pytest.mark.parametrize(("split", "words"), [(False, "each of 2 processes"), (True, "with its part of the model")])
def test_a_plan_for_several_processes_says_so(split: bool, words: str) -> None:
    alone, found = forecast(small_study()), forecast(small_study(), processes=2, split=split)
    assert words in shown(found) and "processes" not in shown(alone)
    assert all(arm.micro_batch == 2 for arm in found.arms) and found.as_json()["processes"] == 2


def test_shared_keys_are_repeated_in_fp32_on_a_gpu() -> None:
    here, there, half = (Step(8, 512, 8, mixed=mixed, on_gpu=on_gpu).one_pass
                         for mixed, on_gpu in ((False, False), (False, True), (True, True)))
    assert (here.repeats_keys, there.repeats_keys, half.repeats_keys) == (False, True, False)
    shapes = shapes_of(TINYLLAMA)
    [stack], trained = shapes.stacks, trained_by([Lora()], shapes, TINYLLAMA)
    more = kept_bytes(shapes, trained, there) - kept_bytes(shapes, trained, here)
    assert more == stack.depth * there.tokens * 2 * (stack.attention_width - stack.key_width) * 4 > 0


def test_generation_in_bf16_holds_copies_of_matrices() -> None:
    plain, copied, on_gpu = (forecast(small_study(evaluation={"precision": precision}), on_gpu=gpu).generation
                             for precision, gpu in (("fp32", False), ("bf16", False), ("bf16", True)))
    assert plain is not None and copied is not None and on_gpu is not None
    assert 1.2 < copied.parts["weights"] / plain.parts["weights"] < 1.5 and on_gpu.parts == plain.parts


def test_keys_and_values_of_generation() -> None:
    shapes = shapes_of(PUBLISHED["TinyLlama-1.1B"][0])
    need = memory.generation(shapes, 1000, 448, 64)
    assert need.parts["cache"] == 2 * 22 * 4 * 64 * 64 * 512 * 4  # layers, key heads of 64, 64 slots of 512, fp32
    few = memory.generation(shapes, 3, 448, 64)
    assert few.parts["cache"] == need.parts["cache"] * 3 // 64
    pairs = memory.generation(shapes_of(T5_SMALL), 3, 512, 64)
    assert pairs.parts["cache"] > 3 * 2 * 6 * 512 * 576 * 4


TINYLLAMA = PUBLISHED["TinyLlama-1.1B"][0]
FP16 = Step(8, 768, 8, mixed=True, masked=True, offload=True, on_gpu=True)


def test_frozen_weights_in_half_precision_and_their_originals() -> None:
    """On a CPU both lie in one memory; on a GPU the originals come back for validation, which is then the worst moment
    of a phase with few activations."""
    shapes = shapes_of(TINYLLAMA)
    lora = trained_by([Lora()], shapes, TINYLLAMA)
    rest = (shapes.parameters - shapes.matrices + lora.added) * 4

    def weights(**changes: Any) -> int:
        need = training(shapes, lora, replace(FP16, **changes))
        assert need is not None
        return need.parts["weights"]

    assert weights(offload=False) == rest + 6 * shapes.matrices
    assert weights() == rest + 2 * shapes.matrices
    assert weights(micro_batch=1, checkpointing=True) == rest + 4 * shapes.matrices
    assert weights(four_bit=True) < rest + 0.55 * shapes.matrices


@pytest.mark.parametrize("published", [TINYLLAMA, T5_SMALL])
def test_every_beam_writes_and_prompts_are_read_once(published: Any) -> None:
    shapes = shapes_of(published)
    one, two, four = (generation_operations(shapes, 10, 200, 50, beams=count) for count in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one)) and two - one < one / 2
    whole = memory.generation(shapes, 4 * 8, 100, 28, beams=4)
    assert whole.parts["logits"] == 32 * shapes.vocabulary * 12
    narrow = memory.generation(shapes, 4 * 8, 30_000, 2_000, beams=4)
    assert narrow.parts["logits"] == 4 * shapes.vocabulary * 12  # an answer takes all its slots, however wide they are


def test_drawn_tokens_need_their_probabilities() -> None:
    shapes = shapes_of(TINYLLAMA)
    greedy, drawn = (memory.generation(shapes, 8, 100, 28, sampled=sampled) for sampled in (False, True))
    assert drawn.parts["logits"] - greedy.parts["logits"] == 8 * shapes.vocabulary * 48


def test_trained_embeddings_of_a_t5_are_reached_through_the_encoder_too() -> None:
    reached = trained_by([Unfreeze(last=1, embeddings=True)], shapes_of(T5_SMALL), T5_SMALL).stacks
    assert [stack.passed for stack in reached] == [stack.depth for stack in shapes_of(T5_SMALL).stacks]


def test_the_last_matrix_of_a_t5_mlp_is_not_quantised() -> None:
    assert shapes_of(TINYLLAMA).quantizable == shapes_of(TINYLLAMA).matrices
    assert shapes_of(T5_SMALL).matrices - shapes_of(T5_SMALL).quantizable == 12 * 512 * 2048


def test_advice_names_the_options_that_there_are() -> None:
    """In the order of what they cost: nothing beyond micro-batch or checkpointing is said where one of them is enough."""
    mistral = known_config("mistralai/Mistral-7B-v0.1") or {}
    shapes = shapes_of(mistral)

    def advised(method: Any, size: int, **changes: Any) -> list[str]:
        return [change.text for change in changes_of(method, size, **changes)]

    def changes_of(method: Any, size: int, **changed: Any) -> list[Any]:
        return changes(shapes, mistral, trained_by([method], shapes, mistral), replace(FP16, **changed), size * GB)

    assert advised(Lora(), 40) == ["micro-batch 4 (a run finds it by itself)"]
    assert advised(Lora(), 40, micro_batch=1, rows=1, length=8192) == ["training.activation_checkpointing: true"]
    assert advised(Lora(), 16) == ["quantization: nf4, micro-batch 2"]
    assert advised(Lora(), 8) == ["quantization: nf4, training.activation_checkpointing: true, micro-batch 2"]
    assert advised(Full(), 16) == ["lora:rank=8 instead, quantization: nf4, micro-batch 2"]
    assert advised(Peft(type="ia3"), 16) == [] and advised(Lora(), 3, four_bit=True) == []


def test_eight_bits_for_the_moments_are_a_quarter() -> None:
    shapes = shapes_of(TINYLLAMA)
    found = memory.optimizer_bytes(trained_by([Full()], shapes, TINYLLAMA), "paged_adamw_8bit")
    assert found == pytest.approx(shapes.parameters * 8 / 4, rel=0.02)


def test_operations_are_six_four_and_two_for_each_parameter() -> None:
    shapes, tokens, length = shapes_of(GPT2), 1000, 512
    matrices, head, attention = shapes.matrices, shapes.embedding, 4 * length * 768 * 12
    full, lora, last = (training_operations(shapes, trained_by([method], shapes, GPT2), tokens, length)
                        for method in (Full(), Lora(rank=1), Unfreeze(last=1)))
    assert full == tokens * (6 * matrices + 6 * head + 3 * attention)
    assert lora == pytest.approx(tokens * (4 * matrices + 4 * head + 3 * attention), rel=0.01)
    assert last == pytest.approx(tokens * (2 * matrices + 4 * matrices / 12 + 4 * head + attention * (1 + 2 / 12)))
    assert forward_operations(shapes, tokens, length) == tokens * (2 * matrices + 2 * head + attention)


@pytest.mark.parametrize(("text", "rate"), [("20TFLOPS", 20e12), ("650 GFLOP/s", 650e9), ("2e13", 2e13), ("1.5P", 1.5e15)])
def test_rates(text: str, rate: float) -> None:
    assert given_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "0TFLOPS", "1.2.3", "-2e13", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UserError, match="--rate"):
        given_rate(text)


def test_sizes_of_devices() -> None:
    assert (device_bytes("16GB"), device_bytes("6 GiB"), device_bytes("0.5gb")) == (16 * GB, 6 * 2**30, GB // 2)
    for text in ("16", "cuda", "big", "0GB", "1.2.3GB"):
        with pytest.raises(UserError, match="16GB"):
            device_bytes(text)
    assert [verdict(peak, 16 * GB) for peak in (12 * GB, 15 * GB, 17 * GB, None)] \
        == ["fits", "tight", "does not fit", "unknown"]


def small_study(**changes: Any) -> Study:
    content = {
        "name": "small", "question": "?", "bases": ["tiny-gpt"],
        "tasks": [{"name": "pydoc-summary", "task": "pydoc-summary", "num_val": 10, "num_test": 20,
                   "max_new_tokens": 32}],
        "arms": [{"name": "full", "components": "full", "learning_rates": [1e-4]},
                 {"name": "lora", "components": "lora:rank=2", "learning_rates": [1e-3]}],
        "training": {"budget": "10 steps", "sequence_length": 128, "batch_sequences": 4}, "seeds": 2}
    return Study.model_validate({**content, **changes})


def forecast(study: Study, **options: Any) -> Resources:
    return forecast_study(study, build(study), **{"recorded": {}, **options})


def shown(found: Resources) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(render_resources(found))
    return " ".join(out.getvalue().split())


def test_a_study_without_a_rate_or_a_profile_has_no_time() -> None:
    found = forecast(small_study())
    assert found.time.unknown == ("train", "predict", "generate") and found.time.source == ""
    assert found.time.operations["train"] is not None and found.generation is not None
    parameters = 5_387_776 + 2 * 4 * 2 * (256 + 768 + 256 + 256) // 2
    assert found.disk_bytes is not None and found.disk_bytes // (2 * 4) == pytest.approx(parameters, rel=0.001)
    assert "time unknown: these arms have not been timed here" in shown(found)


def test_arms_that_need_the_same_share_a_row() -> None:
    arms = [{"name": f"n{rows}", "components": "lora", "learning_rates": [1e-3], "num_train": rows} for rows in (30, 100)]
    text = shown(forecast(small_study(arms=arms, factors=["num_train"])))
    assert "n30, and 1 like it" in text and "n100" not in text


def test_a_given_rate_tells_every_time() -> None:
    found = forecast(small_study(), rate=1e12)
    operations = [value for value in found.time.operations.values() if value is not None]
    assert found.time.unknown == () and found.time.seconds == pytest.approx(sum(operations) / 1e12)
    assert "by the given rate" in shown(found)


def profile(values: Mapping[str, float]) -> StageInput:
    environment = Environment(device="cpu", torch="", transformers="", peft="", cpu_capability="")
    record = Record(key="", stage_id="", kind="profile", identity={}, environment=environment, outcome=Outcome.OK,
                    values=values, started="", seconds=1.0)
    return StageInput(record, Path())


def test_profiles_of_an_arm_tell_its_time() -> None:
    study = small_study()
    plan = build(study)
    speeds = {"tokens_per_second": 1000.0, "predict_tokens_per_second": 1e9}
    recorded = {stage: profile(speeds) for (_, arm, _), stages in plan.profiles.items() if arm == "full"
                for stage in stages}
    found = forecast_study(study, plan, recorded=recorded)
    assert found.time.seconds == pytest.approx(2 * 10 * 4 * 128 / 1000, rel=0.01)
    assert found.time.unknown == ("train", "predict", "generate")  # of the other arm, and all that is generated
    assert "by profiles in the store, and train, predict and generate stages of unknown time" in shown(found)


def test_a_probe_holds_two_models() -> None:
    plain = small_study()
    [task] = plain.model_dump(mode="json")["tasks"]
    probed = forecast(small_study(tasks=[{**task, "metrics": [*task["metrics"], "kl-from-base"]}]))
    assert probed.probe is not None and probed.prediction is not None
    assert probed.probe.parts["weights"] == 2 * probed.prediction.parts["weights"] and "to probe" in shown(probed)
    assert forecast(plain).probe is None and "to probe" not in shown(forecast(plain))


def test_what_is_recorded_needs_nothing_any_more() -> None:
    study = small_study()
    plan = build(study)
    found = forecast_study(study, plan, recorded={stage.id: profile({}) for stage in plan.stages})
    assert found.disk_bytes == 0 and "nothing is left to do" in shown(found)


def test_epochs_of_unknown_data_have_unknown_time() -> None:
    unknown = small_study(training={"budget": "2 epochs", "sequence_length": 128, "batch_sequences": 4})
    assert forecast(unknown, rate=1e12).time.unknown == ("train",)
    task = {**small_study().tasks[0].model_dump(mode="json"), "num_train": 50}
    known = unknown.model_copy(update={"tasks": Study.model_validate(
        {**unknown.model_dump(mode="json"), "tasks": [task]}).tasks})
    steps = small_study(training={"budget": "25 steps", "sequence_length": 128, "batch_sequences": 4})
    assert forecast(known, rate=1e12).time.seconds == pytest.approx(forecast(steps, rate=1e12).time.seconds)


def test_epochs_of_a_joint_phase_have_the_rows_of_each_task() -> None:
    [task] = small_study().model_dump(mode="json")["tasks"]
    rows = {"docs": (30, None), "zeta": (1000, 20), "beta": (10, None)}  # what the data hold, and what is asked for
    study = small_study(
        tasks=[{**task, "name": name, "num_train": asked, "num_val": number}  # else one data stage serves them all
               for number, (name, (_, asked)) in enumerate(rows.items(), start=2)],
        sequences=[{"name": "all", "tasks": ["docs+zeta+beta"]}],
        training={"budget": "2 epochs", "sequence_length": 128, "batch_sequences": 4})
    plan = build(study)
    recorded = {plan.data["tiny-gpt", name]: profile({"splits": {"train": {"num_rows": held}}})
                for name, (held, _) in rows.items()}
    steps = study.model_copy(update={"training": study.training.model_copy(update={"budget": Budget(amount=10, unit="steps")})})
    found = forecast_study(study, plan, recorded=recorded, rate=1e12).time.operations["train"]
    assert found == pytest.approx((30 + 20 + 10) * 2 / (3 * 10 * 4) * (forecast(steps, rate=1e12).time.operations["train"] or 0))


def test_a_device_that_is_too_small_is_named_with_what_to_change() -> None:
    found = forecast(small_study(), device="100MB", available_bytes=100 * 10**6)
    full = found.arms[0]
    assert full.verdict == "does not fit" and full.changes
    text = shown(found)
    assert "100MB" in text and "does not fit" in text and full.changes[0].text in text
    written = found.as_json()
    assert written["arms"][0]["need"]["peak_bytes"] == full.need.peak  # type: ignore[union-attr]
    assert written["arms"][0]["changes"][0]["peak"] == full.changes[0].peak
