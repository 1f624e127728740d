"""Time -> study: how much a run does follows from the time, and the study is one that can be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from finetrial.compare.arms import parse_arms
from finetrial.compare.design import EFFORTS, KEEP, LEARN, Grid, Request, Timed, grid_for, study_name, study_of
from finetrial.compare.inspect import Inspected
from finetrial.errors import UserError
from finetrial.plan.audit import audit
from finetrial.plan.bases import ResolvedBase
from finetrial.spec.io import parse_study
from finetrial.spec.study import Limits
from finetrial.tasks.base import Example, Examples
from finetrial.tasks.text import Text

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "vocab_size": 99, "n_positions": 1024}
QUICK = {"full": Timed(50_000, 150_000, 0.5), "lora-r8": Timed(60_000, 150_000, 0.5)}


def data(num_rows: int) -> Inspected:
    rows = [Example(f"{split}-{number}", f"c{split}-{number}", split, {"text": "x"})
            for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)) for number in range(int(share * num_rows))]
    return Inspected(Text(path="/data/new.txt"), Examples(rows, "d"), 200, 300, 210.0)


def request(keep: bool = True) -> Request:
    base = ResolvedBase("mine", Path("/models/mine"), "w", "t", CONFIG)
    return Request(base, 5_000_000, parse_arms("full,lora:r=8"), data(2000), data(1000) if keep else None, Limits())


def test_more_time_buys_larger_batches_and_more_test_rows_once_there_are_three_rates() -> None:
    grids = [grid_for(seconds, QUICK, 2.0, request()) for seconds in (60, 200, 600, 3600)]
    batches = [grid.effort.batch_tokens for grid in grids]
    assert batches == sorted(batches) and batches[-1] == EFFORTS[0].batch_tokens
    assert all(grid.rates >= 3 for grid in grids[1:])
    assert all(grid.seconds <= seconds for grid, seconds in zip(grids, (60, 200, 600, 3600), strict=True))


def test_a_busy_machine_gets_less() -> None:
    assert grid_for(300, QUICK, 1.0, request()).effort.batch_tokens <= grid_for(300, QUICK, 2.0, request()).effort.batch_tokens


def test_too_little_time_names_the_time_that_would_do() -> None:
    with pytest.raises(UserError, match="the least that gives a verdict") as caught:
        grid_for(2, QUICK, 2.0, request(), spent=100.0)
    minutes = int(caught.value.mend.split("--within ")[1].split("min")[0])
    grid_for(60 * minutes - 100, QUICK, 2.0, request())


@pytest.mark.parametrize("keep", [True, False])
def test_the_study_passes_the_audit_and_can_be_written(keep: bool) -> None:
    study = study_of(replace(request(keep), name=study_name(Path("my data (2).txt"))), Grid(EFFORTS[-1], 3, 3, 40, 1.0))
    assert study.name == "compare-my-data-2" and [use.name for use in study.tasks] == [LEARN, KEEP][:1 + keep]
    assert not [row for row in audit(study) if row.severity == "threat"]
    assert parse_study(study.identity(), "study.yaml") == study
    assert study.training.batch_sequences * study.training.sequence_length <= EFFORTS[-1].batch_tokens
    assert study.hypotheses[0].statement == "Full fine-tuning learns the new data better than LoRA r=8."
    assert len(study.hypotheses) == 1 + keep
