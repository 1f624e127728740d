"""The stages of one phase, run as the runner runs them, against plain transformers and peft code."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_study import tiny_content

from finetrial import catalog
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.records.record import Environment, Outcome, Record
from finetrial.spec.io import parse_study
from finetrial.stages.adapted import LIVE, Adapted, answer_digest, forget_live
from finetrial.stages.base import Stage, StageContext, StageInput
from finetrial.stages.predict import PREDICTIONS
from finetrial.stages.train import WEIGHTS
from finetrial.tasks.encoded import TokenDataset
from finetrial.train import loop

HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")
pytestmark = pytest.mark.usefixtures("one_thread")


class Bench:
    """Runs stages of a plan one after the other, without a store."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.stages = {stage.id: stage for stage in plan.stages}
        self.folder, self.done, self.shared = folder, {}, {}
        self.cache: Path | None = None
        self.execution: dict[str, Any] = {}  # of the last stage

    def run(self, name: str, *, fresh: bool = False) -> StageInput:
        if name in self.done and not fresh:
            return self.done[name]
        stage, context = self.opened(name)
        values = catalog.find("stage", stage.kind)().run(context)
        self.execution = context.execution
        self.done[name] = StageInput(_record(stage, values), context.folder)
        return self.done[name]

    def run_together(self, *names: str) -> None:
        opened = [self.opened(name) for name in names]
        for _, context in opened:
            context.shared = {}
        results = catalog.find("stage", "train")().run_together([context for _, context in opened])
        for name, (stage, context), values in zip(names, opened, results, strict=True):
            self.done[name] = StageInput(_record(stage, values), context.folder)
            self.shared, self.execution = context.shared, context.execution

    def opened(self, name: str) -> tuple[Stage, StageContext]:
        stage = self.stages[name]
        inputs = {label: self.run(str(source)) for label, source in stage.inputs.items()}
        folder = self.folder / f"{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        context = StageContext(
            stage_id=name, spec=stage.spec, inputs=inputs, folder=folder, checkpoint=folder / "checkpoint",
            device="cpu", micro_batch=None, log=logging.getLogger("test"), progress=lambda what: None,
            shared=self.shared, locations=stage.locations, cache=self.cache)
        return stage, context


def _record(stage: Stage, values: Any) -> Record:
    values = json.loads(json.dumps(values))
    return Record(key="0" * 32, stage_id=stage.id, kind=stage.kind, identity={"spec": dict(stage.spec)},
                  environment=HERE, outcome=Outcome.OK, values=values, started="", seconds=0.0)


@pytest.fixture(params=["gpt2", "llama"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    study = parse_study(tiny_content(tmp_path, request.param), "study")
    (tmp_path / "out").mkdir()
    return Bench(build(study, relative_to=tmp_path), tmp_path / "out")


def phase(arm: str, rate: str, seed: int = 0) -> str:
    return f"mine/{arm}/new/seed-{seed}/rate-{rate}/phase-1-new"


def losses(folder: Path) -> np.ndarray:
    return pq.read_table(folder / PREDICTIONS)["nll"].to_numpy()


def plain_losses(model: Any, dataset: TokenDataset) -> np.ndarray:
    """The loss of each item by plain transformers code, one at a time."""
    found = []
    for start, end in zip(dataset.offsets, dataset.offsets[1:], strict=False):
        ids = torch.from_numpy(dataset.ids[start:end].astype(np.int64))[None]
        labels = ids.masked_fill(~torch.from_numpy(dataset.loss_mask[start:end])[None], -100)
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        found.append(float(loss) * int((labels[:, 1:] != -100).sum()))
    return np.array(found)


def test_predictions_of_the_base_equal_plain_transformers(bench: Bench, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    predicted = bench.run("predict/mine/base/new-test")
    dataset = TokenDataset.load(bench.run("data/mine/new").folder / "test.npz")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    np.testing.assert_allclose(losses(predicted.folder), plain_losses(model, dataset), rtol=1e-5)


def test_saved_weights_load_in_plain_libraries(bench: Bench, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    dataset = TokenDataset.load(bench.run("data/mine/new").folder / "test.npz")
    for arm, rate in (("full", "0.01"), ("lora-r2", "0.1")):
        trained = bench.run(f"train/{phase(arm, rate)}").folder / WEIGHTS / "main"
        if arm == "full":
            model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()
        else:
            base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
            model = PeftModel.from_pretrained(base, trained).eval()
        predicted = bench.run(f"predict/{phase(arm, rate)}/new-test")
        np.testing.assert_allclose(losses(predicted.folder), plain_losses(model, dataset), rtol=1e-5)


@pytest.mark.parametrize(("arm", "rate"), [("full", "0.01"), ("lora-r2", "0.1")])
def test_a_prediction_from_files_equals_the_live_one(bench: Bench, arm: str, rate: str) -> None:
    name = f"predict/{phase(arm, rate)}/old-test"
    live = losses(bench.run(name).folder)
    bench.shared.pop(LIVE)
    np.testing.assert_array_equal(losses(bench.run(name, fresh=True).folder), live)


def test_the_digest_of_a_model_in_memory_is_taken_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Adapted] = []
    digest = Adapted.digest.fget
    monkeypatch.setattr(Adapted, "digest", property(lambda adapted: taken.append(adapted) or digest(adapted)))
    trained, asked = (f"{kind}/{phase('lora-r2', '0.1')}{of}" for kind, of in (("train", ""), ("predict", "/new-test")))
    first = bench.run(trained).record.values["answer_digest"]
    assert bench.run(asked).record.values["answer_digest"] == first and len(taken) == 1
    _, context = bench.opened(asked)
    [adapted] = taken
    forget_live(context)
    with torch.no_grad():
        next(adapted.base.model.parameters()).add_(1.0)
    assert answer_digest(context, adapted) != first and len(taken) == 2
    assert bench.run(asked, fresh=True).record.values["answer_digest"] == first and len(taken) == 3


def test_training_teaches_repeats_and_depends_on_the_seed(bench: Bench) -> None:
    name = f"predict/{phase('full', '0.01')}/new-test"
    first = losses(bench.run(name).folder)
    assert first.sum() < losses(bench.run("predict/mine/base/new-test").folder).sum()
    bench.run(f"train/{phase('full', '0.01')}", fresh=True)
    np.testing.assert_array_equal(losses(bench.run(name, fresh=True).folder), first)
    assert not np.array_equal(losses(bench.run(f"predict/{phase('full', '0.01', seed=1)}/new-test").folder), first)


def test_the_repeated_arm_draws_anew(bench: Bench) -> None:
    again = losses(bench.run(f"predict/{phase('full-aa', '0.001')}/new-test").folder)
    assert not np.array_equal(again, losses(bench.run(f"predict/{phase('full', '0.001')}/new-test").folder))


def test_the_record_of_training_says_what_was_trained(bench: Bench) -> None:
    values = bench.run(f"train/{phase('lora-r2', '0.1')}").record.values
    total = bench.run(f"train/{phase('full', '0.01')}").record.values["params_total"]
    assert values["params_trainable"] < 0.2 * total and values["params_total"] == total + values["params_trainable"]
    assert values["steps"] == 6 and [point["step"] for point in values["curve"]] == [3, 6]
    assert values["stored_bytes"] > 4 * values["params_trainable"]


def test_states_of_frozen_blocks_are_shared_by_cells_and_change_no_bit(tmp_path: Path) -> None:
    """The second rate of one seed, and the predictions of every later cell, compute no frozen block."""
    content = {**tiny_content(tmp_path), "arms": [{"name": "layer", "components": "layer", "learning_rates": [0.01, 0.1]}],
               "controls": {"reference": "layer"}, "hypotheses": []}
    study, found = parse_study(content, "study"), []
    for cache in (None, tmp_path / "cache"):
        (tmp_path / f"out-{cache is None}").mkdir()
        bench = Bench(build(study, relative_to=tmp_path), tmp_path / f"out-{cache is None}")
        bench.cache = cache
        for rate in ("0.01", "0.1"):
            trained = bench.run(f"train/{phase('layer', rate)}").record.values
            noted = [bench.execution]
            predicted = losses(bench.run(f"predict/{phase('layer', rate)}/new-test").folder).tolist()
            found.append(({name: value for name, value in trained.items() if name != "seconds"}, predicted))
            noted.append(bench.execution)
    assert found[:2] == found[2:] and found[0] != found[1]
    assert [entry["frozen_prefix"]["batches_computed"] for entry in noted] == [0, 0]
    assert noted[0]["frozen_prefix"]["batches_read"] == 6 + 2


def test_cells_trained_together_record_what_they_record_alone(tmp_path: Path) -> None:
    """Two ranks and two rates; predictions by the live model and from files agree."""
    arms = [{"name": f"lora-r{rank}", "components": f"lora:rank={rank}", "learning_rates": [0.01, 0.1]} for rank in (2, 4)]
    content = {**tiny_content(tmp_path), "arms": arms, "controls": {"reference": "lora-r2"}, "hypotheses": []}
    plan = build(parse_study(content, "study"), relative_to=tmp_path)
    names = [f"train/{phase(arm, rate, seed)}" for arm, rate, seed in
             (("lora-r2", "0.01", 0), ("lora-r2", "0.1", 1), ("lora-r4", "0.1", 0))]
    benches = []
    for side in ("together", "alone"):
        (tmp_path / side).mkdir()
        benches.append(Bench(plan, tmp_path / side))
    together, alone = benches
    kind = catalog.find("stage", "train")
    assert len({json.dumps(kind.shared_by_stack(together.stages[name].spec), sort_keys=True) for name in names}) == 1
    together.run_together(*names)
    assert together.execution == {"stacked_cells": 3}
    for name in names:
        found, expected = together.done[name], alone.run(name)
        for value in ("steps", "tokens", "params_total", "params_trainable", "frozen_digest", "stored_bytes",
                      "optimizer_bytes"):
            assert found.record.values.get(value) == expected.record.values.get(value)
        assert found.record.values["final_loss"] == pytest.approx(expected.record.values["final_loss"], rel=1e-4)
        assert sorted(path.name for path in found.folder.rglob("*")) == sorted(p.name for p in expected.folder.rglob("*"))
        predicted = name.replace("train/", "predict/") + "/new-test"
        live = losses(together.run(predicted).folder)
        np.testing.assert_allclose(live, losses(alone.run(predicted).folder), rtol=1e-3)
        together.shared.pop(LIVE, None)
        np.testing.assert_array_equal(losses(together.run(predicted, fresh=True).folder), live)


def test_what_is_trained_alone(tmp_path: Path) -> None:
    kind = catalog.find("stage", "train")
    plan = build(parse_study(tiny_content(tmp_path), "study"), relative_to=tmp_path)
    [full] = [stage for stage in plan.stages if stage.id == f"train/{phase('full', '0.01')}"]
    [lora] = [stage for stage in plan.stages if stage.id == f"train/{phase('lora-r2', '0.1')}"]
    assert kind.shared_by_stack(full.spec) is None and kind.shared_by_stack(lora.spec) is not None
    assert kind.shared_by_stack({**lora.spec, "quantization": "nf4"}) is None
    assert kind.shared_by_stack({**lora.spec, "training": {**lora.spec["training"], "precision": "fp16"}}) is None
    assert kind.shared_by_stack({**lora.spec, "phase": 2}) is None  # it goes on with an adapter of its own


def test_a_profile_counts_what_training_counts(bench: Bench) -> None:
    profile = bench.run("profile/mine/lora-r2/new/repeat-0").record.values
    trained = bench.run(f"train/{phase('lora-r2', '0.1')}").record.values
    assert profile["params_trainable"] == trained["params_trainable"]
    assert profile["optimizer_bytes"] >= 8 * trained["params_trainable"]  # two moments of four bytes
    assert profile["tokens_per_second"] > 0


def test_a_profile_reads_the_clock_at_every_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator metrics are read a few steps at a time, all with one time."""
    asked = []
    real = loop.train
    monkeypatch.setattr("finetrial.train.loop.train", lambda *args, **more: asked.append(more["flush_steps"]) or
                        real(*args, **more))
    bench.run("profile/mine/full/new/repeat-0")
    assert asked == [1]
