"""The score table of a sequence, R[k, j], reproduced by plain transformers and peft code that trains and scores by itself.

Only three things are taken over: the encoded rows, the order in which a seed reads them, and where the adapter begins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_study import save_tiny_base, write_text

from finetrial import catalog
from finetrial.methods.lora import Lora
from finetrial.plan.build import build
from finetrial.records.record import Environment, Outcome, Record
from finetrial.spec.io import parse_study
from finetrial.stages.base import StageContext, StageInput
from finetrial.stages.predict import PREDICTIONS
from finetrial.streams import Streams
from finetrial.tasks.encoded import TokenDataset
from finetrial.train.batch import DocumentBatches
from finetrial.train.config import Training

TASKS = ("a", "b", "old")
STEPS, RATES = 8, {"full": 0.01, "lora": 0.03}
TRAINING = {"budget": f"{STEPS} steps", "sequence_length": 40, "batch_sequences": 4, "packing": False}
HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")
pytestmark = pytest.mark.usefixtures("one_thread")


def content(folder: Path, architecture: str) -> dict[str, Any]:
    save_tiny_base(folder / "model", architecture)
    for task, step in zip(TASKS, (7, 11, 3), strict=True):
        write_text(folder / f"{task}.txt", step=step, documents=90, seed=step)
    tasks = [{"name": task, "task": {"kind": "text", "path": f"{task}.txt"}, "num_val": 3, "num_test": 6,
              "role": "outside" if task == "old" else "learn"} for task in TASKS]
    return {"name": "plain", "size": "small", "question": "?", "bases": [{"name": "mine", "source": "./model"}], "tasks": tasks,
            "sequences": [{"name": "a-b", "tasks": ["a", "b"]}],
            "arms": [{"name": "full", "components": "full", "learning_rates": [RATES["full"]]},
                     {"name": "lora", "components": "lora:rank=2", "learning_rates": [RATES["lora"]]}],
            "training": TRAINING, "seeds": 1}


def computed(folder: Path, architecture: str) -> dict[str, StageInput]:
    """Every stage but the profiles, run in the plan's order."""
    plan = build(parse_study(content(folder, architecture), "study"), relative_to=folder)
    done: dict[str, StageInput] = {}
    shared: dict[str, Any] = {}
    for number, stage in enumerate(stage for stage in plan.stages if stage.kind in ("data", "train", "predict")):
        place = folder / f"stage-{number}"
        place.mkdir()
        values = catalog.find("stage", stage.kind)().run(StageContext(
            stage_id=stage.id, spec=stage.spec, inputs={name: done[str(source)] for name, source in stage.inputs.items()},
            folder=place, checkpoint=place / "checkpoint", device="cpu", micro_batch=None, log=logging.getLogger("test"),
            progress=lambda what: None, shared=shared, locations=stage.locations))
        record = Record(key="0" * 32, stage_id=stage.id, kind=stage.kind, identity={"spec": dict(stage.spec)},
                        environment=HERE, outcome=Outcome.OK, values=values, started="", seconds=0.0)
        done[stage.id] = StageInput(record, place)
    return done


def score_of(predicted: StageInput) -> float:
    table = pq.read_table(predicted.folder / PREDICTIONS)
    return float(table["nll"].to_numpy().sum() / table["num_tokens"].to_numpy().sum())


def plain_model(folder: Path, method: str) -> Any:
    """The base, or the base with peft's own LoRA on the same layers and with the same random A."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model, twin = (AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32) for _ in range(2))
    if method == "full":
        return model
    Lora(rank=2).attach(twin, Streams(0), "main")
    first = {name.replace("<main>", "default"): value for name, value in twin.named_parameters() if "lora_A" in name}
    layers = [name.partition(".lora_A")[0] for name in first]
    is_conv = "c_attn" in layers[0]
    plain = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=layers, fan_in_fan_out=is_conv))
    for name, value in first.items():
        plain.get_parameter(f"base_model.model.{name}").data.copy_(value.data)
    return plain


def train_plainly(model: Any, rows: TokenDataset, rate: float) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    batches = DocumentBatches(rows, Training.model_validate(TRAINING), Streams(0))
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for step in range(STEPS):
        [batch] = batches.step(step, None)
        labels = torch.full_like(batch.input_ids, -100).flatten()
        labels[batch.target_places + 1] = batch.target_ids
        mask = torch.ones_like(batch.input_ids) if batch.owner is None else (batch.owner >= 0).long()
        model(input_ids=batch.input_ids, attention_mask=mask, labels=labels.view_as(batch.input_ids)).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = rate if step == 0 else rate * (1 + math.cos(math.pi * (step - 1) / (STEPS - 1))) / 2
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@torch.no_grad()
def plain_score(model: Any, rows: TokenDataset) -> float:
    total, number = 0.0, 0
    for start, end in zip(rows.offsets, rows.offsets[1:], strict=False):
        ids = torch.from_numpy(rows.ids[start:end].astype(np.int64))[None]
        labels = ids.masked_fill(~torch.from_numpy(rows.loss_mask[start:end])[None], -100)
        count = int((labels[:, 1:] != -100).sum())
        total, number = total + float(model(input_ids=ids, labels=labels).loss) * count, number + count
    return total / number


@pytest.mark.parametrize("architecture", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_every_entry_is_what_plain_code_finds(architecture: str, tmp_path: Path) -> None:
    done = computed(tmp_path, architecture)
    rows: Mapping[tuple[str, str], TokenDataset] = {
        (task, split): TokenDataset.load(done[f"data/mine/{task}"].folder / f"{split}.npz")
        for task in TASKS for split in ("train", "test") if (task, split) != ("old", "train")}
    for method, rate in RATES.items():
        model = plain_model(tmp_path, method)
        for phase, learned in enumerate(("", "a", "b")):
            if learned:
                train_plainly(model, rows[learned, "train"], rate)
            where = f"{method}/a-b/seed-0/rate-{rate:g}/phase-{phase}-{learned}" if learned else "base"
            ours = {task: score_of(done[f"predict/mine/{where}/{task}-test"]) for task in TASKS}
            assert ours == pytest.approx({task: plain_score(model, rows[task, "test"]) for task in TASKS}, rel=2e-4)
        forgotten = ours["a"] - score_of(done[f"predict/mine/{method}/a-b/seed-0/rate-{rate:g}/phase-1-a/a-test"])
        assert forgotten > 0.01, "a sequence in which something is forgotten"
