"""The loop against a plain one, and its promises: repeatable, resumable, independent of the micro-batch."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial.errors import DataError, UserError
from finetrial.methods.base import Component
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.models import params
from finetrial.streams import Streams
from finetrial.train.batch import DocumentBatches
from finetrial.train.checkpoint import Checkpoints
from finetrial.train.config import Training
from finetrial.train.loop import evaluation_steps, train
from finetrial.train.outcome import Diverged, OutOfTime

CONFIG = Training.model_validate({"budget": "8 steps", "sequence_length": 40, "batch_sequences": 4})
METHODS = {"full": Full(), "lora": Lora(rank=2)}
DRAWING = {"adalora": Peft(type="adalora", options={"total_step": 9, "tinit": 1, "tfinal": 2}),
           "pvera": Peft(type="pvera")}  # with a state, and with draws of their own

pytestmark = pytest.mark.usefixtures("one_thread")


class Trial:
    """One model, method and seed, ready to train on the same documents."""

    def __init__(self, model: Any, dataset: Any, method: str = "full", seed: int = 0) -> None:
        self.model, self.dataset, self.streams = model, dataset, Streams(seed)
        self.component: Component = {**METHODS, **DRAWING}[method].attach(model, self.streams, "base")
        self.metrics: list[Mapping[str, Any]] = []

    def run(self, config: Training = CONFIG, rate: float = 1e-2, **options: Any) -> Any:
        options.setdefault("on_metrics", self.metrics.append)
        return train(self.model, [self.component], self.dataset, config, rate, self.streams, **options)

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.metrics]


@pytest.fixture
def trial(tiny_model: Any, tiny_documents: Any) -> Any:
    def make(method: str = "full", architecture: str = "gpt2", seed: int = 0) -> Trial:
        return Trial(tiny_model(architecture), tiny_documents(30), method, seed)
    return make


@pytest.mark.parametrize("method", METHODS)
def test_equals_a_plain_loop(trial: Any, architecture: str, method: str) -> None:
    """torch's own AdamW, transformers' own logits, clipping and schedule written out."""
    ours, plain = trial(method, architecture), trial(method, architecture)
    ours.run()
    parameters = list(params.own(plain.model, [plain.component]).values())
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0)
    batches = DocumentBatches(plain.dataset, CONFIG, plain.streams)
    losses = []
    for step in range(8):
        [batch] = batches.step(step, None)
        logits = plain.model(input_ids=batch.input_ids, position_ids=batch.position_ids,
                             attention_mask=batch.attention()).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.target_places], batch.target_ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 if step == 0 else 1e-2 * (1 + math.cos(math.pi * (step - 1) / 7)) / 2
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_are_bit_equal_and_another_seed_differs(trial: Any, method: str) -> None:
    first, second, other = trial(method), trial(method), trial(method, seed=1)
    for run in (first, second, other):
        run.run()
    assert first.losses == second.losses
    assert first.component.trainable_digest() == second.component.trainable_digest()
    assert first.component.trainable_digest() != other.component.trainable_digest()
    assert first.losses != other.losses


def test_data_order_is_the_same_for_every_method_and_rate(trial: Any) -> None:
    """At a rate of nearly nothing each step's loss is the base's on that step's documents."""
    full, lora = trial("full"), trial("lora")
    full.run(rate=1e-9)
    lora.run(rate=1e-9)
    assert full.losses == pytest.approx(lora.losses, rel=1e-5)
    assert [m["tokens"] for m in full.metrics] == [m["tokens"] for m in lora.metrics]


@pytest.mark.parametrize("packing", [True, False])
def test_micro_batches_change_rounding_only(trial: Any, packing: bool) -> None:
    config = CONFIG.model_copy(update={"packing": packing})
    whole, parts = trial(), trial()
    whole.run(config)
    parts.run(config, micro_batch=1)
    assert whole.losses == pytest.approx(parts.losses, rel=1e-4)
    assert [m["grad_norm"] for m in whole.metrics] == pytest.approx([m["grad_norm"] for m in parts.metrics], rel=1e-3)


@pytest.mark.parametrize("method", [*METHODS, *DRAWING])
def test_resume_is_bit_equal(trial: Any, tmp_path: Path, method: str) -> None:
    """Dropout, Muon's and AdamW's state, the curve and the totals, after being stopped in the middle."""
    config = Training.model_validate({**CONFIG.model_dump(mode="json"), "dropout": 0.1, "optimizer": "muon"})
    undisturbed = trial(method)
    torch.manual_seed(1)  # the global generator tells nothing
    expected = undisturbed.run(config, validate=lambda step: 1 / step)
    torch.manual_seed(2)

    class Killed(Exception):
        pass

    def kill(metrics: Mapping[str, Any]) -> None:
        if metrics["step"] == 5:
            raise Killed

    where = Checkpoints(tmp_path, every_seconds=0)
    with pytest.raises(Killed):
        trial(method).run(config, validate=lambda step: 1 / step, checkpoints=where, on_metrics=kill)
    resumed = trial(method)
    result = resumed.run(config, validate=lambda step: 1 / step, checkpoints=where)
    assert [m["step"] for m in resumed.metrics] == [5, 6, 7, 8]
    assert resumed.component.trainable_digest() == undisturbed.component.trainable_digest()
    assert (result.curve, result.tokens, result.final_loss) == (expected.curve, expected.tokens, expected.final_loss)


def test_checkpoint_of_another_rate_is_not_used(trial: Any, tmp_path: Path) -> None:
    where = Checkpoints(tmp_path, every_seconds=0)
    trial().run(rate=1e-3, checkpoints=where)
    other = trial()
    other.run(rate=2e-3, checkpoints=where)
    assert other.metrics[0]["step"] == 1


def test_dropout_acts_on_what_is_trained_as_a_whole(trial: Any) -> None:
    config = CONFIG.model_copy(update={"dropout": 0.3})
    runs = {(method, dropped): trial(method) for method in METHODS for dropped in (False, True)}
    for (_, dropped), run in runs.items():
        run.run(config if dropped else CONFIG)
    assert runs["full", False].losses != runs["full", True].losses
    assert runs["lora", False].losses == runs["lora", True].losses


def test_global_generator_is_left_alone(trial: Any) -> None:
    before = torch.random.get_rng_state()
    trial().run(CONFIG.model_copy(update={"dropout": 0.1}))
    assert torch.equal(before, torch.random.get_rng_state())


def test_lora_leaves_the_frozen_weights(trial: Any, architecture: str) -> None:
    run = trial("lora", architecture)
    params.own(run.model, [run.component])
    before, trainable = params.frozen_digest(run.model), run.component.trainable_digest()
    run.run()
    assert params.frozen_digest(run.model) == before
    assert run.component.trainable_digest() != trainable


def test_curve_and_result(trial: Any) -> None:
    run = trial()
    seen: list[int] = []
    result = run.run(validate=lambda step: seen.append(step) or float(step))
    assert seen == [2, 4, 6, 8] == [point.step for point in result.curve]
    assert result.steps == 8 and result.skipped_steps == 0
    assert result.tokens == run.metrics[-1]["tokens"] == result.curve[-1].tokens
    assert 0 < result.target_tokens < result.tokens
    assert result.final_loss == run.losses[-1]
    assert result.optimizer_bytes > 2 * 4 * params.count(run.model).trainable - 1
    assert run.metrics[0]["num_steps"] == 8 and run.metrics[0]["learning_rate"] == 1e-2
    assert not run.model.training


def test_evaluation_steps() -> None:
    assert evaluation_steps(8, 4) == {2, 4, 6, 8}
    assert evaluation_steps(3, 10) == {1, 2, 3}
    assert evaluation_steps(7, 0) == {7}


def test_early_stopping(trial: Any) -> None:
    values = iter([3.0, 2.0, 2.5, 2.4, 1.0, 1.0, 1.0, 1.0])
    config = CONFIG.model_copy(update={"evaluations": 8, "early_stopping": 2})
    assert trial().run(config, validate=lambda step: next(values)).steps == 4


def test_divergence(trial: Any) -> None:
    run = trial()
    with torch.no_grad():
        run.model.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(Diverged) as caught:
        run.run()
    assert caught.value.step == 1 and math.isnan(caught.value.loss)


def test_a_validation_that_is_no_number_is_divergence(trial: Any) -> None:
    """The last update may break what its own loss, taken before it, does not show."""
    with pytest.raises(Diverged) as caught:
        trial().run(validate=lambda step: math.nan)
    assert caught.value.step > 0 and math.isnan(caught.value.loss)


def test_loss_far_above_a_uniform_guess_is_divergence(trial: Any) -> None:
    run = trial()
    with pytest.raises(Diverged, match="diverged at step"):
        run.run(CONFIG.model_copy(update={"budget": CONFIG.budget.model_copy(update={"amount": 60}),
                                          "schedule": "constant"}), rate=30.0)


def test_deadline(trial: Any, tmp_path: Path) -> None:
    where = Checkpoints(tmp_path)
    first = trial()
    with pytest.raises(OutOfTime):
        first.run(checkpoints=where, deadline=time.monotonic() - 1)
    assert trial().run(checkpoints=where).steps == 8


@pytest.mark.parametrize("method", METHODS)
def test_bf16_learns_too(trial: Any, architecture: str, method: str) -> None:
    exact, near = trial(method, architecture), trial(method, architecture)
    exact.run()
    near.run(CONFIG.model_copy(update={"precision": "bf16"}))
    assert near.losses == pytest.approx(exact.losses, rel=0.05)
    assert near.losses != exact.losses
    assert all(parameter.dtype == torch.float32 for parameter in near.model.parameters())


def test_refusals(trial: Any) -> None:
    with pytest.raises(UserError, match="fp16 is not possible on the device cpu"):
        trial().run(CONFIG.model_copy(update={"precision": "fp16"}))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="the device cuda is not available; found cpu"):
            trial().run(device="cuda")
    with pytest.raises(DataError, match="sequence_length is 65, but the model has 64 positions"):
        trial().run(CONFIG.model_copy(update={"sequence_length": 65}))


def test_after_step_is_called(trial: Any) -> None:
    run = trial()
    steps: list[int] = []
    run.component.after_step = steps.append
    run.run()
    assert steps == list(range(8))


