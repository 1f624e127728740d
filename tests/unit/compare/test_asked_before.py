"""The same command again goes on with what was planned, whatever else was asked in the same run's folder meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetrial.compare import compare
from finetrial.compare.arms import parse_arms
from finetrial.compare.design import EFFORTS, LEAST, Grid, Request
from finetrial.compare.inspect import Inspected
from finetrial.compare.timing import Timing
from finetrial.plan.bases import ResolvedBase
from finetrial.run.options import RunOptions
from finetrial.spec import Base, Study
from finetrial.spec.study import Limits
from finetrial.tasks.base import Example, Examples
from finetrial.tasks.text import Text

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 99, "n_positions": 1024}
FIRST = compare.Comparison("mine", "d/q.txt", None, 600.0, "full,lora:r=8", Limits())


def test_each_question_has_a_plan_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(asked: compare.Comparison, runs: Path) -> Request:
        rows = [Example(f"{split}-{number}", f"c{split}-{number}", split, {"text": "x"})
                for split in ("train", "val", "test") for number in range(60)]
        data = Inspected(Text(path=f"/{asked.learn}"), Examples(rows, asked.learn), 200, 300, 210.0)
        base = ResolvedBase(asked.model, Path("/models"), asked.model, "t", CONFIG)
        return Request(Base(name=asked.model), base, 5_000_000, parse_arms(str(asked.arms)), data, None, Limits(), "compare-q")

    def fitted(asked: compare.Comparison, request: Request, options: RunOptions, began: float) -> tuple[Request, Timing, Grid]:
        planned.append(asked)
        return request, Timing({}, {}, 1.0, 1.0), replace(LEAST, effort=EFFORTS[-1], steps=40 + len(planned))

    def ask(asked: compare.Comparison) -> Study:
        found: Any = compare.compare(asked, RunOptions(runs=tmp_path), say=lambda what: None, command="")
        assert isinstance(found, Study)
        return found

    planned: list[compare.Comparison] = []
    for name, instead in (("look", look), ("_fitted", fitted), ("_power", lambda *_: ()), ("run_study", lambda study, *_, **__: study)):
        monkeypatch.setattr(compare, name, instead)
    questions = [FIRST, replace(FIRST, learn="e/q.txt"), replace(FIRST, model="other"), replace(FIRST, arms="full,lora:r=4"),
                 replace(FIRST, seconds=900.0)]
    studies = [ask(one) for one in questions]
    assert planned == questions and len({study.training.budget.amount for study in studies}) == 5
    assert [ask(one) for one in questions] == studies and planned == questions
