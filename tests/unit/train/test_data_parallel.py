"""Two processes that share the micro-batches of each step train what one process trains."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from parallel_runs import Outcome, Setting, assert_equal, run
from partner import Partner

from finetrial.models import params
from finetrial.train.data_parallel import DataParallel, largest_micro_batch

pytestmark = pytest.mark.usefixtures("one_thread")


def in_two(partner: Partner, setting: Setting) -> Outcome:
    """What the first of two processes saw. The other has the same, bit for bit."""
    first, second = partner.both(partial(run, setting))
    assert first.losses == second.losses and params.digest(first.weights) == params.digest(second.weights)
    return first


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_what_one_does(partner: Partner, family: str, method: str) -> None:
    setting = Setting(family, method)
    found, alone = in_two(partner, setting), run(setting)
    assert len(found.losses) == 6 and found.losses[-1] < found.losses[0]
    assert_equal(found, alone)


@pytest.mark.parametrize("setting", [
    Setting(training={"packing": False}, micro_batch=1), Setting("llama", training={"optimizer": "muon"}),
    Setting(training={"batch_sequences": 3}), Setting("llama", "lora", training={"activation_checkpointing": True})])
def test_other_cuts_and_optimizers(partner: Partner, setting: Setting) -> None:
    assert_equal(in_two(partner, setting), run(setting))


@pytest.mark.parametrize("setting", [
    Setting("gpt2", "full", training={"dropout": 0.2}), Setting("t5", "lora", lora_dropout=0.2)])
def test_dropout_is_that_of_the_micro_batch_whoever_computes_it(partner: Partner, setting: Setting) -> None:
    found = in_two(partner, setting)
    assert_equal(found, run(replace(setting, micro_batch=3)))
    assert found.losses != pytest.approx(run(replace(setting, micro_batch=2)).losses, rel=1e-3)


def test_divergence_and_early_stopping_are_decided_together(partner: Partner) -> None:
    wild = Setting(rate=1e30, training={"clip_norm": None})
    first, second = partner.both(partial(run, wild))
    assert first.result == second.result == run(wild).result and first.result.startswith("Diverged(")
    patient = Setting(training={"early_stopping": 1, "budget": "9 steps"}, validation=(3.0, 2.0, 2.5))
    stopped = in_two(partner, replace(patient, training={**patient.training, "evaluations": 9}))
    assert stopped.result.steps == 3 and [point.value for point in stopped.result.curve] == [3.0, 2.0, 2.5]


def test_the_first_process_alone_knows_the_clock_and_writes(partner: Partner, tmp_path: Path) -> None:
    first, second = partner.both(partial(run, Setting(checkpoints=tmp_path, expired=True)))
    assert first.result == second.result and first.result.startswith("OutOfTime(")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint.json", "step-00000000.pt"]


def test_a_resumed_run_is_the_undisturbed_one(partner: Partner, tmp_path: Path) -> None:
    setting = Setting("gpt2", "full", training={"dropout": 0.1}, checkpoints=tmp_path / "a")
    undisturbed = in_two(partner, setting)
    broken = replace(setting, checkpoints=tmp_path / "b", validation=(2.0,))  # the second validation finds nothing
    with pytest.raises(RuntimeError, match="StopIteration"):
        partner.both(partial(run, broken))
    resumed = in_two(partner, replace(setting, checkpoints=tmp_path / "b"))
    assert 0 < len(resumed.losses) < 6 and resumed.losses == undisturbed.losses[-len(resumed.losses):]
    assert params.digest(resumed.weights) == params.digest(undisturbed.weights)


@pytest.mark.parametrize("training", [{"packing": False}, {"packing": False, "micro_batch": 1}], ids=str)
def test_a_step_without_targets_is_none(partner: Partner, training: dict[str, Any]) -> None:
    """With a loss scaler, which refuses it, and where one process alone has targets in its first step."""
    silent = Setting(training={"packing": False, "budget": "8 steps"}, silent=28, micro_batch=training.get("micro_batch"))
    scaled = replace(silent, scaled=True)
    plain, alone = run(silent), run(scaled)
    assert 0.0 in plain.losses[:-1] and [norm == 0.0 for norm in plain.norms] == [loss == 0.0 for loss in plain.losses]
    assert alone.result.skipped_steps == 0
    assert_equal(alone, plain)
    assert_equal(in_two(partner, scaled), alone)


def test_weights_that_differ_are_found(partner: Partner) -> None:
    with pytest.raises(AssertionError, match="different weights"):
        partner.both(tell_rank)


def tell_rank(parallel: DataParallel) -> Any:
    return parallel.check_equal(str(parallel.rank))


@pytest.mark.parametrize(("rows", "count", "expected"), [(8, 1, 8), (8, 2, 4), (8, 3, 3), (4, 3, 1), (3, 2, 2), (4, 4, 1)])
def test_every_process_has_a_micro_batch(rows: int, count: int, expected: int) -> None:
    size = largest_micro_batch(rows, count)
    assert size == expected and -(-rows // size) >= count
