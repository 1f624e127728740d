"""A trial as it is written today: one script, TRL's SFTTrainer and peft, cell after cell, plain loops for the rest.

It is given the rows that finetrial encoded, so that both sides train and score the same tokens, and it prints its
figures as JSON. Nothing of finetrial runs here but the reading of those rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

Rows = list[tuple[np.ndarray, np.ndarray]]  # ids and what is scored of them


def main(setting: dict[str, Any]) -> None:
    """Every arm, learning rate and seed: train, choose, score, generate."""
    tokenizer = AutoTokenizer.from_pretrained(setting["model"])
    data = {name: read_rows(Path(path)) for name, path in setting["rows"].items()}
    cells: list[dict[str, Any]] = []
    seconds: dict[str, float] = defaultdict(float)
    for arm in setting["arms"]:
        for rate in arm["learning_rates"]:
            for seed in range(setting["seeds"]):
                with timed(seconds, "train"):
                    model = trained(setting, arm, rate, seed, tokenizer, data["train"])
                with timed(seconds, "validate"):
                    scores = {"val": loss(model, data["val"])}
                with timed(seconds, "score"):
                    scores |= {name: loss(model, data[name]) for name in ("test", "old")}
                with timed(seconds, "generate"):
                    outputs = [answer(model, tokenizer, ids, setting["max_new_tokens"]) for ids, _ in data["prompts"]]
                cells.append({"arm": arm["name"], "rate": rate, "seed": seed, "outputs": len(outputs), **scores})
    print(json.dumps({"cells": cells, "seconds": dict(seconds)}))


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what the block takes to a sum."""
    began = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - began


def read_rows(path: Path) -> Rows:
    """The rows of a file that finetrial encoded."""
    from finetrial.tasks.encoded import TokenDataset

    rows = TokenDataset.load(path)
    return [(rows.ids[first:last].astype(np.int64), rows.loss_mask[first:last])
            for first, last in zip(rows.offsets, rows.offsets[1:], strict=False)]


def trained(setting: dict[str, Any], arm: dict[str, Any], rate: float, seed: int, tokenizer: Any, rows: Rows) -> Any:
    """The model of one cell, by SFTTrainer's defaults but for the budget, the rate and the seed."""
    dataset = Dataset.from_list([{"input_ids": ids.tolist(), "completion_mask": mask.astype(int).tolist()}
                                 for ids, mask in rows])
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(output_dir=folder, use_cpu=True, bf16=False, per_device_train_batch_size=setting["batch"],
                           max_steps=setting["steps"], learning_rate=rate, seed=seed, max_length=setting["max_tokens"],
                           completion_only_loss=True, lr_scheduler_type="cosine", warmup_steps=0.1, report_to="none",
                           save_strategy="no", disable_tqdm=True, logging_steps=setting["steps"])
        adapter = LoraConfig(r=arm["rank"], lora_alpha=2 * arm["rank"], target_modules=arm["targets"]) if "rank" in arm else None
        trainer = SFTTrainer(model=AutoModelForCausalLM.from_pretrained(setting["model"], dtype=torch.float32), args=config,
                             train_dataset=dataset, processing_class=tokenizer, peft_config=adapter)
        trainer.train()
        return trainer.model.eval()


@torch.no_grad()
def loss(model: Any, rows: Rows) -> float:
    """Nats per scored token, one row at a time."""
    total, number = 0.0, 0
    for ids, mask in rows:
        tokens = torch.from_numpy(ids)[None]
        labels = tokens.masked_fill(~torch.from_numpy(mask)[None], -100)
        count = int((labels[:, 1:] != -100).sum())
        total, number = total + float(model(input_ids=tokens, labels=labels).loss) * count, number + count
    return total / number


@torch.no_grad()
def answer(model: Any, tokenizer: Any, ids: np.ndarray, max_new_tokens: int) -> str:
    """The greedy continuation of one prompt."""
    prompt = torch.from_numpy(ids)[None]
    found = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                           max_new_tokens=max_new_tokens, pad_token_id=tokenizer.eos_token_id)
    return str(tokenizer.decode(found[0, prompt.shape[1]:], skip_special_tokens=True))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
