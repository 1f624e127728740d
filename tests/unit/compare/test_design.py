"""Time -> study: how much a run does follows from the time, and the study is one that can be run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from finetrial.compare import compare
from finetrial.compare.arms import parse_arms
from finetrial.compare.design import (
    EFFORTS,
    KEEP,
    LEARN,
    LEAST,
    Effort,
    Grid,
    Request,
    Timed,
    grid_for,
    study_name,
    study_of,
)
from finetrial.compare.inspect import Inspected
from finetrial.compare.timing import Timing
from finetrial.errors import UserError
from finetrial.plan.audit import audit
from finetrial.plan.bases import ResolvedBase
from finetrial.run.options import RunOptions
from finetrial.spec import Base
from finetrial.spec.io import parse_study
from finetrial.spec.study import Limits
from finetrial.tasks.base import Example, Examples
from finetrial.tasks.text import Text

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 99, "n_positions": 1024}
QUICK = {"full": Timed(50_000, 150_000, 0.5), "lora-r8": Timed(60_000, 150_000, 0.5)}


def data(num_rows: int) -> Inspected:
    rows = [Example(f"{split}-{number}", f"c{split}-{number}", split, {"text": "x"})
            for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)) for number in range(int(share * num_rows))]
    return Inspected(Text(path="/data/new.txt"), Examples(rows, "d"), 200, 300, 210.0)


def request(keep: bool = True) -> Request:
    base = ResolvedBase("mine", Path("/models/mine"), "w", "t", CONFIG)
    return Request(Base(name=base.name), base, 5_000_000, parse_arms("full,lora:r=8"), data(2000), data(1000) if keep else None, Limits())


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
    assert study.controls is not None and study.controls.positive is not None
    assert (study.controls.positive.task, study.controls.positive.rate_factor) == ((KEEP, 10.0) if keep else (LEARN, 0.01))


def fitted(monkeypatch: pytest.MonkeyPatch, *timings: dict[str, Timed]) -> tuple[Request, Grid, list[Effort]]:
    """What `compare` settles on where the arms are timed at these speeds, one timing after the other."""
    given, efforts = iter(timings), list[Effort]()

    def time_arms(asked: Request, options: RunOptions, grid: Grid = LEAST) -> Timing:
        efforts.append(grid.effort)
        return Timing(next(given), {}, 2.0, 1.0)

    monkeypatch.setattr(compare, "time_arms", time_arms)
    asked = compare.Comparison("mine", "new.txt", "old.txt", 1200.0, None, Limits())
    found, _, grid = compare._fitted(asked, request(), RunOptions(), time.monotonic())
    return found, grid, efforts


def test_arms_are_timed_again_as_they_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    slower = {name: Timed(20_000, 60_000, 0.5) for name in QUICK}
    _, quick, efforts = fitted(monkeypatch, QUICK, QUICK)
    assert efforts == [LEAST.effort, quick.effort] and quick.effort == EFFORTS[0]
    _, slow, efforts = fitted(monkeypatch, QUICK, slower)
    assert efforts == [LEAST.effort, EFFORTS[0]][:len(efforts)] and len(efforts) >= 2
    assert slow.seeds * slow.rates * slow.steps < quick.seeds * quick.rates * quick.steps


def test_one_timing_does_where_the_least_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    crawling = {name: Timed(50, 150, 0.5) for name in QUICK}
    with pytest.raises(UserError, match="the least that gives a verdict"):
        fitted(monkeypatch, crawling)
    slow = {name: Timed(2_000, 6_000, 0.5) for name in QUICK}
    _, grid, efforts = fitted(monkeypatch, slow, slow, slow)
    assert grid.effort in EFFORTS and efforts[0] == LEAST.effort


def test_an_arm_that_fails_at_the_batch_that_is_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="1 of 2 arms can be run"):
        fitted(monkeypatch, QUICK, {"full": QUICK["full"]})


def test_what_fails_alike_for_every_arm_is_said_once_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome, mend in (("FAILED: the layer is gone", "the logs lie in runs/compare"), ("OOM: 2 GB more", "choose smaller arms")):
        failed = Timing({}, dict.fromkeys(QUICK, outcome), 2.0, 1.0)
        monkeypatch.setattr(compare, "time_arms", lambda *_, failed=failed: failed)
        asked = compare.Comparison("mine", "new.txt", None, 1200.0, None, Limits())
        with pytest.raises(UserError, match=f"0 of 2 arms .* \\({', '.join(QUICK)}: {outcome}\\)") as caught:
            compare._fitted(asked, request(), RunOptions(), time.monotonic())
        assert mend in caught.value.mend
