"""What the table holds of outputs that could not be made, run or scored."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from finetrial.plan.plan import PlannedOutputs, PredictionOf
from finetrial.records.record import Outcome
from finetrial.records.results import Point
from finetrial.run.collect import _failed_outputs
from finetrial.scorers.base import Scorer
from finetrial.scorers.chrf import Chrf
from finetrial.scorers.nats_per_token import NatsPerToken

SCORERS: dict[str, Scorer] = {"chrf": Chrf(), "nats-per-token": NatsPerToken()}
STAGES = [SimpleNamespace(id="run", kind="execute", inputs={"outputs": "answer", "data": "data"}),
          SimpleNamespace(id="other", kind="execute", inputs={"outputs": "another"})]


def outputs(generate: str | None = "answer") -> PlannedOutputs:
    return PlannedOutputs(base="tiny", arm="full", sequence="new", seed=1, phase=1, of=PredictionOf("code", "test"), select="rate",
                          points={"low": Point(learning_rate=1e-4), "high": Point(learning_rate=1e-3)}, generate=generate,
                          score="score")


def failed(row: PlannedOutputs, **ended: Outcome) -> list[Any]:
    records = {stage: SimpleNamespace(record=SimpleNamespace(outcome=outcome, values={})) for stage, outcome in ended.items()}
    records["rate"] = SimpleNamespace(record=SimpleNamespace(outcome=Outcome.OK, values={"chosen": "high"}))
    plan: Any = SimpleNamespace(stages=STAGES)
    lookup: Any = records.get
    return list(_failed_outputs(plan, row, SCORERS, lookup, {}))


@pytest.mark.parametrize(("ended", "outcome"), [
    ({"answer": Outcome.OOM}, Outcome.OOM), ({"answer": Outcome.OK, "run": Outcome.FAILED}, Outcome.FAILED),
    ({"answer": Outcome.OK, "run": Outcome.OK, "score": Outcome.TIMEOUT}, Outcome.TIMEOUT)])
def test_outputs_have_the_outcome_of_what_failed(ended: dict[str, Outcome], outcome: Outcome) -> None:
    """By the metrics that read outputs, at the rate that was chosen."""
    [row] = failed(outputs(), **ended)
    assert (row.metric, row.outcome, row.statistics, row.cell.point) == ("chrf", outcome, None, Point(learning_rate=1e-3))


@pytest.mark.parametrize("ended", [{}, {"answer": Outcome.OK}, {"answer": Outcome.OK, "other": Outcome.OOM}])
def test_outputs_that_are_not_tried_yet_have_none(ended: dict[str, Outcome]) -> None:
    assert failed(outputs(), **ended) == []


def test_a_floor_has_no_model_that_could_fail() -> None:
    assert failed(outputs(generate=None), score=Outcome.FAILED) == []


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.FAILED])
def test_validation_outputs_of_a_training_that_may_yet_succeed_have_its_outcome_too(outcome: Outcome) -> None:
    """As losses have it: else the analysis would choose without the seed, and another rate than the stage that chooses."""
    asked = SimpleNamespace(id="answer", kind="generate", inputs={"model": "trained", "data": "data"})
    plan: Any = SimpleNamespace(stages=[*STAGES, asked])
    row = replace(outputs(), of=PredictionOf("code", "val"), select=None, points={"": Point(learning_rate=0.1)})
    records = {"trained": SimpleNamespace(record=SimpleNamespace(outcome=outcome, values={}))}
    lookup: Any = records.get
    [found] = _failed_outputs(plan, row, SCORERS, lookup, {})
    assert (found.metric, found.split, found.outcome) == ("chrf", "val", outcome)
    records["trained"].record.outcome = Outcome.OK
    assert list(_failed_outputs(plan, row, SCORERS, lookup, {})) == []


def test_validation_outputs_of_a_training_that_failed_have_its_outcome() -> None:
    """Else the rate would seem not to have been tried, and no other could be chosen before it."""
    plan: Any = SimpleNamespace(stages=STAGES)
    row = replace(outputs(), of=PredictionOf("code", "val"), select=None, points={"": Point(learning_rate=1e3)})
    [found] = _failed_outputs(plan, row, SCORERS, lambda stage: None, {"score": Outcome.DIVERGED})
    assert (found.metric, found.split, found.outcome, found.cell.point) == ("chrf", "val", Outcome.DIVERGED, Point(learning_rate=1e3))
