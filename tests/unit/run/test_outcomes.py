"""Outcomes that stand, and what inherits them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetrial.plan.plan import Plan, PlannedCell, PlannedPhase, PredictionOf
from finetrial.records.record import Outcome
from finetrial.records.table import CellKey
from finetrial.run.outcomes import nothing_finished, standing_outcomes
from finetrial.stages.base import Chosen, Stage

OK, OOM, DIVERGED, FAILED = Outcome.OK, Outcome.OOM, Outcome.DIVERGED, Outcome.FAILED


def stage(name: str, kind: str, **inputs: Any) -> Stage:
    return Stage(name, kind, 1, {}, inputs)


TWO_PHASES = (
    stage("a", "train"), stage("b", "train"), stage("val-a", "predict", model="a"), stage("val-b", "predict", model="b"),
    stage("choice", "select", a="val-a", b="val-b"),
    stage("next", "train", parent=Chosen("choice", {"a": "a", "b": "b"})), stage("test", "predict", model="next"))


def outcomes(recorded: Mapping[str, Outcome]) -> dict[str, Outcome]:
    entries: Any = {name: SimpleNamespace(record=SimpleNamespace(outcome=outcome)) for name, outcome in recorded.items()}
    return standing_outcomes(TWO_PHASES, entries.get)


def test_what_needs_runs_that_all_ended_badly_has_their_outcome_over_all_phases() -> None:
    assert outcomes({"a": OOM, "b": DIVERGED}) == {"a": OOM, "b": DIVERGED, "val-a": OOM, "val-b": DIVERGED, "choice": OOM,
                                                    "next": OOM, "test": OOM}


def test_a_choice_among_those_that_are_left_goes_on() -> None:
    assert outcomes({"a": OOM}) == {"a": OOM, "val-a": OOM}
    assert outcomes({"a": OOM, "b": OK, "val-b": OK, "choice": OK}) == {"a": OOM, "val-a": OOM}


def test_a_choice_that_too_few_runs_allow_ends_what_follows() -> None:
    """It is recorded as failed; the run that is left is one of too few."""
    found = outcomes({"a": OOM, "b": OK, "val-b": OK, "choice": FAILED})
    assert found == {"a": OOM, "val-a": OOM, "choice": OOM, "next": OOM, "test": OOM}


def test_a_stage_that_failed_may_be_tried_again() -> None:
    assert outcomes({"a": FAILED}) == {}


def cell(arm: str, role: str = "arm") -> PlannedCell:
    train = None if role == "base" else f"train {arm}"
    return PlannedCell(CellKey("mine", arm, "new", 0), role,
                       [PlannedPhase(1, "new", train, {PredictionOf("new", "test"): f"predict {arm}"})])


@pytest.mark.parametrize(("recorded", "problem", "mend"), [
    ({"train a": (FAILED, "no room"), "train b": (FAILED, "no room")}, "no arm could be trained: 2 of 2 stages ended with FAILED: no room",
     "logs lie in"),
    ({"train a": (OOM, "1 row"), "predict base": (OK, "")}, "trained: 1 of 1 stages ended with OOM: 1 row", "smaller model"),
    ({"train a": (OK, ""), "train b": (DIVERGED, ""), "predict a": (FAILED, "gone"), "predict base": (OK, "")}, "no arm could be scored: 1 of 1",
     "logs lie in"),
])
def test_a_run_of_which_no_arm_came_to_its_end_says_why(recorded: Mapping[str, tuple[Outcome, str]], problem: str, mend: str) -> None:
    told = failure(recorded)
    assert told is not None and problem in told.problem and mend in told.mend and told.exit_code == 2


def test_a_run_of_which_one_arm_is_left_has_its_answers() -> None:
    assert failure({"train a": (OK, ""), "train b": (OOM, ""), "predict a": (OK, "")}) is None
    assert failure({}) is None


def failure(recorded: Mapping[str, tuple[Outcome, str]]) -> Any:
    entries: Any = {name: SimpleNamespace(record=SimpleNamespace(outcome=outcome, message=message))
                    for name, (outcome, message) in recorded.items()}
    plan = Plan((), [cell("base", "base"), cell("a"), cell("b", "positive control")])
    return nothing_finished(plan, entries.get, Path("runs/mine"))
