"""A tiny model of one's own, with text to learn and text to keep: a whole study in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from finetrial.plan.build import build
from finetrial.records.record import Environment
from finetrial.run.options import run_folder
from finetrial.run.run_file import HowRun, write_run_files
from finetrial.spec.study import Study

WORDS = 90
HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")


def save_tiny_base(folder: Path, architecture: str = "gpt2") -> Path:
    """A 2-layer random model with a tokenizer that knows the words w1 ... w89."""
    from conftest import make_tiny_model
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<eos>": 0, **{f"w{index}": index for index in range(1, WORDS)}}, "<eos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    make_tiny_model(architecture).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>").save_pretrained(folder)
    return folder


def write_text(path: Path, *, step: int, documents: int, seed: int = 0) -> Path:
    """Documents in which each word follows from the one before by `step`."""
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(documents):
        first, length = generator.integers(1, WORDS), generator.integers(20, 30)
        texts.append(" ".join(f"w{1 + (first + step * k) % (WORDS - 1)}" for k in range(length)))
    path.write_text("<|endoftext|>".join(texts))
    return path


def write_pairs(path: Path, *, step: int, rows: int, seed: int) -> None:
    """Prompt: a word; completion: the words that follow by `step`."""
    generator = np.random.default_rng(seed)
    lines = []
    for row in range(rows):
        first = int(generator.integers(1, WORDS))
        words = [f"w{1 + (first + step * k) % (WORDS - 1)}" for k in range(6)]
        lines.append(json.dumps({"prompt": f"w{1 + row % (WORDS - 1)} {words[0]} ", "completion": " ".join(words[1:])}))
    path.write_text("\n".join(lines))


def tiny_content(folder: Path, architecture: str = "gpt2") -> dict[str, Any]:
    """A study as plain data, with its files below `folder`."""
    save_tiny_base(folder / "model", architecture)
    write_text(folder / "new.txt", step=7, documents=90)
    write_text(folder / "old.txt", step=3, documents=90, seed=1)
    return {
        "name": "tiny", "size": "small", "question": "Does LoRA forget less?", "bases": [{"name": "mine", "source": "./model"}],
        "tasks": [{"name": "new", "task": {"kind": "text", "path": "new.txt"}, "num_val": 3, "num_test": 4},
                  {"name": "old", "task": {"kind": "text", "path": "old.txt"}, "role": "outside", "num_val": 3,
                   "num_test": 4}],
        "arms": [{"name": "full", "components": "full", "learning_rates": [0.001, 0.01]},
                 {"name": "lora-r2", "components": "lora:rank=2", "learning_rates": [0.01, 0.1]}],
        "controls": {"reference": "full", "positive": {"arm": "full", "task": "old"}},
        "hypotheses": [{"name": "H1", "statement": "Full learns more.",
                        "contrast": {"left": "full", "right": "lora-r2", "task": "new", "expect": "greater"}}],
        "training": {"budget": "6 steps", "sequence_length": 32, "batch_sequences": 4, "evaluations": 2},
        "seeds": 2, "accept_threats": ["held-out-rows-in-training"]}  # text made by a rule repeats itself


def make_run(project: Path, store: str | None = None) -> Path:
    """The folder of a run that has not computed anything, below `project/runs`."""
    project.mkdir()
    study = Study.model_validate(tiny_content(project))
    folder = run_folder(study, project / "runs")
    how = HowRun("cpu", HERE, store or str(project / "runs" / ".store"), "finetrial run study.yaml", project)
    write_run_files(folder, study, build(study, relative_to=project), how)
    return folder
