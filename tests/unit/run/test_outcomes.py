"""Outcomes that stand, and what inherits them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from finetrial.records.record import Outcome
from finetrial.run.outcomes import standing_outcomes
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
