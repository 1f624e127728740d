"""Trials to audit: study contents that name local files, the data made of them without a run, and stand-in records."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from finetrial.plan.audit import audit, audit_data, audit_plan
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.records.record import Environment, Outcome, Record
from finetrial.records.results import AuditFinding
from finetrial.spec import Study
from finetrial.spec.io import parse_study
from finetrial.spec.model import plugin_from
from finetrial.stages.base import Lookup, Stage, StageContext, StageInput
from finetrial.stages.data import Data

HERE = Environment(device="cpu", torch="2", transformers="5", peft="0", cpu_capability="AVX2")
_TEXT = ("amber basin cedar delta ember fjord grove haven inlet jetty kayak ledge marsh north ocean plaza quartz ridge "
         "stone tower under vivid water xenon yield zebra apple bread cloud drift eagle flame grape honey ivory juice "
         "knife lemon mango night olive pearl queen river sugar tiger umbra valve wheat young zonal")
WORDS = _TEXT.split(" ")

Rows = list[dict[str, str]]


def sentence(generator: np.random.Generator, length: int) -> str:
    """Random words."""
    return " ".join(generator.choice(WORDS, length))


def documents(count: int, *, seed: int = 0, length: int = 40) -> list[str]:
    """Documents of random words, no two alike."""
    generator = np.random.default_rng(seed)
    return [sentence(generator, length + int(generator.integers(0, 10))) for _ in range(count)]


def pairs(count: int, *, seed: int = 0, prompt: str = "Text: {}\nSummary:", length: int = 30) -> Rows:
    """Prompts with a cue, and completions that are not in them."""
    answers = documents(count, seed=seed + 1_000, length=10)
    return [{"prompt": prompt.format(text), "completion": f" {answer}"}
            for text, answer in zip(documents(count, seed=seed, length=length), answers, strict=True)]


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_text(path: Path, texts: Iterable[str]) -> None:
    """Documents of a text file."""
    path.write_text("<|endoftext|>".join(texts), encoding="utf-8")


def fair_files(folder: Path) -> Path:
    """Files for correct designs: `new-{split}.jsonl`, `more-{split}.jsonl` and `old-{split}.txt`."""
    for number, (split, count) in enumerate({"train": 120, "val": 20, "test": 60}.items()):
        write_rows(folder / f"new-{split}.jsonl", pairs(count, seed=number))
        write_rows(folder / f"more-{split}.jsonl", pairs(count, seed=10 + number, prompt="Question: {}?\nAnswer:"))
        write_text(folder / f"old-{split}.txt", documents(count, seed=20 + number))
    return folder


def files_of(name: str, ending: str = "jsonl") -> dict[str, str]:
    """The options of a task that reads a file for each split."""
    return {split: f"{name}-{split}.{ending}" for split in ("train", "val", "test")}


def fair_content(**changes: Any) -> dict[str, Any]:
    """A correct design as plain data: two arms, three rates each, five seeds, controls, an old text."""
    tasks = [{"name": "new", "task": {"kind": "prompt-completion", **files_of("new")}, "num_val": 20, "num_test": 60},
             {"name": "old", "task": {"kind": "text", **files_of("old", "txt")}, "role": "outside", "num_val": 20,
              "num_test": 60}]
    return {"name": "fair", "question": "?", "bases": ["tiny-gpt"], "tasks": tasks, "seeds": 5,
            "arms": [{"name": "full", "components": "full", "learning_rates": [1e-4, 3e-4, 1e-3]},
                     {"name": "lora", "components": "lora", "learning_rates": [1e-3, 3e-3, 1e-2]}],
            "controls": {"reference": "full", "positive": {"arm": "full", "task": "old"}},
            "hypotheses": [{"name": "H1", "statement": "Full learns more.",
                            "contrast": {"left": "full", "right": "lora", "task": "new", "margin": 0.02}}],
            "training": {"budget": "60 steps", "sequence_length": 256, "batch_sequences": 4}, **changes}


def prepared(study: Study, folder: Path, plan: Plan | None = None) -> tuple[Plan, Lookup]:
    """The plan, and the records of its data stages, which are run here: nothing else is."""
    plan = plan or build(study, relative_to=folder)
    found = {stage.id: run_data(stage) for stage in plan.stages if stage.kind == "data"}
    return plan, found.get


def run_data(stage: Stage) -> StageInput:
    """A data stage, run in this process; equal data are made once for all tests of the process."""
    folder = Path(_kept().name) / stage.key({})
    values = folder / "values.json"
    if not values.is_file():
        folder.mkdir()
        context = StageContext(stage.id, stage.spec, {}, folder, folder, "cpu", None, logging.getLogger(),
                               lambda metrics: None, {}, None, stage.locations)
        with patch("finetrial.models.load.load_tokenizer", _tokenizer):
            made = dict(Data().run(context))
        report = plugin_from("task", json.loads(stage.locations["task"])).load().report
        made.setdefault("mining", {"rows": report.rows, "clusters": report.clusters, "dropped": report.dropped})
        values.write_text(json.dumps(made), encoding="utf-8")
    return recorded(stage, json.loads(values.read_text(encoding="utf-8")), folder)


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def recorded(stage: Stage, values: Mapping[str, Any] | None = None, folder: Path = Path(),
             environment: Environment = HERE, execution: Mapping[str, Any] | None = None) -> StageInput:
    """A record of a stage that went well."""
    record = Record(key=stage.id, stage_id=stage.id, kind=stage.kind, identity={}, environment=environment,
                    outcome=Outcome.OK, values=values or {}, started="", seconds=0.0, execution=execution or {})
    return StageInput(record, folder)


def audited(content: Mapping[str, Any], folder: Path) -> list[AuditFinding]:
    """Everything that is found before training."""
    study = parse_study(content, "study")
    plan, lookup = prepared(study, folder)
    return [*audit(study), *audit_plan(study, plan), *audit_data(study, plan, lookup)]


def fired(findings: Iterable[AuditFinding]) -> set[tuple[str, str]]:
    """Rules with the severity of what they found; notes are facts to know and do not count."""
    return {(finding.rule, finding.severity) for finding in findings if finding.severity != "note"}
