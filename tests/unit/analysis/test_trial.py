"""Sequences of tasks: measures over several phases, strata over tasks, loadings that cancel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.synthetic import metrics

from finetrial.analysis.analyse import analyse
from finetrial.analysis.estimate import crossed
from finetrial.analysis.loading import Branch, Entry, Loading, merged
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.trial import Trial
from finetrial.records.results import Point
from finetrial.records.table import CellKey, Items, ItemScores, Table
from finetrial.spec import Study

LOSS = {0: {"a": 5.0, "b": 4.0}, 1: {"a": 3.0, "b": 3.8}, 2: {"a": 3.5, "b": 2.0}}  # by phase and task
ARM, BASE = Branch("tiny", "full", "a-b"), Branch("tiny", "base", "")


NUMBERS = {"a": 10, "b": 30}


def two_phases(losses: dict[int, dict[str, float]] = LOSS, numbers: dict[str, int] = NUMBERS) -> Trial:
    """One arm that learns a, then b, over three seeds and one rate; b has three times the items of a."""
    study = Study(name="path", question="?", bases=("tiny",), training={}, tasks=(
        {"name": "a", "task": "pydoc-chat"}, {"name": "b", "task": "pydoc-chat"}),
        arms=({"name": "full", "components": "full", "learning_rates": (1e-3,)},))
    return Trial(study, Table(scores=list(_rows(losses, numbers)), metrics=metrics()))


def _rows(losses: dict[int, dict[str, float]], numbers: dict[str, int]) -> Iterator[ItemScores]:
    for phase, of_task in losses.items():
        for task, loss in of_task.items():
            number = numbers[task]
            items = Items(tuple(map(str, range(number))), tuple(map(str, range(number))))
            for seed in (None,) if phase == 0 else (0, 1, 2):
                cell = CellKey("tiny", "base" if phase == 0 else "full", "a-b", seed, Point(
                    learning_rate=None if phase == 0 else 1e-3))
                noise = np.random.default_rng([phase, seed or 0, number]).normal(0, 0.1, number)
                tokens = np.full(number, 10.0)
                statistics = np.stack([(loss + noise - noise.mean()) * tokens, tokens], axis=-1)
                yield ItemScores(cell, phase, task, "test", "nats-per-token", items, statistics)


def test_measures_over_phases() -> None:
    trial = two_phases()
    rows = {(row.measure, row.phase, row.task): row for row in analyse(trial.study, trial.table).measures}
    assert rows["plasticity", 1, "a"].value == pytest.approx(2.0)
    assert rows["plasticity", 2, "b"].value == pytest.approx(2.0)
    assert rows["forgetting", 2, "a"].value == pytest.approx(0.5)
    assert rows["backward-transfer", 2, "a"].value == rows["backward-transfer", 2, ""].value == pytest.approx(-0.5)
    assert rows["forward-transfer", 1, "b"].value == pytest.approx(0.2)
    assert rows["average-score", 2, ""].value == pytest.approx((3.5 + 2.0) / 2)
    retention = rows["retention", 2, "a"]
    assert retention.value == pytest.approx(1.5 / 2.0) and retention.unit == "share"
    assert retention.low is not None and retention.low < 0.75 < (retention.high or 0)
    assert rows["score", 0, "b"].value == pytest.approx(4.0)
    assert rows["score", 0, "b"].n_seeds is None and rows["score", 2, "b"].n_seeds == 3


@pytest.mark.parametrize("later", [5.8, 5.2, 4.0])
def test_of_a_loss_nothing_is_kept(later: float) -> None:
    """A phase that made its own task worse by 0.5 taught nothing of which a share could be left, whatever comes after."""
    trial = two_phases({**LOSS, 1: {"a": 5.5, "b": 3.8}, 2: {"a": later, "b": 2.0}})
    (retention,) = (row for row in analyse(trial.study, trial.table).measures
                    if (row.measure, row.phase, row.task, row.metric) == ("retention", 2, "a", "nats-per-token"))
    assert retention.value is None and retention.note == "nothing was gained that could be kept"


def test_tasks_are_strata() -> None:
    """10 files of one task and 30 of another, ten of which are the same."""
    trial = two_phases()
    loadings = [Loading(0.5, ARM, Entry(2, task, "nats-per-token")) for task in ("a", "b")]
    found = trial.differences(loadings, (0, 1, 2)).values
    apart = [trial.differences([loading], (0, 1, 2)).values for loading in loadings]
    assert found.shape == (3, 30)
    assert found.mean(axis=1) == pytest.approx(apart[0].mean(axis=1) + apart[1].mean(axis=1))
    assert found.mean() == pytest.approx(-0.5 * (3.5 + 2.0))
    errors = [crossed(values).standard_error or 0.0 for values in apart]
    assert crossed(found).standard_error == pytest.approx(np.hypot(*errors), rel=0.2)


def test_what_two_tasks_took_from_one_file_is_one_observation() -> None:
    trial = two_phases({2: {"a": 3.0, "b": 3.0}}, {"a": 10, "b": 10})  # the same items, and the same scores
    alone, other = (Loading(1.0, ARM, Entry(2, task, "nats-per-token")) for task in ("a", "b"))
    together = trial.differences([replace(alone, coefficient=0.5), replace(other, coefficient=0.5)], (0, 1, 2))
    assert together.clusters == trial.differences([alone], (0, 1, 2)).clusters
    assert together.values == pytest.approx(trial.differences([alone], (0, 1, 2)).values)


def test_the_base_cancels_between_arms() -> None:
    base = Loading(1.0, Branch("tiny", "base", "a-b"), Entry(2, "a", "nats-per-token"))
    same = Loading(-1.0, BASE, Entry(0, "a", "nats-per-token"))
    kept = Loading(1.0, ARM, Entry(1, "a", "nats-per-token"))
    assert merged([base, kept, same]) == [kept]
    assert merged([kept, kept]) == [Loading(2.0, ARM, kept.entry)]


def test_what_is_not_there_says_so() -> None:
    trial = two_phases()
    with pytest.raises(NotMeasured, match="full: no val scores on a"):
        trial.run(Loading(1.0, ARM, Entry(1, "a", "nats-per-token", split="val")), 0)
    seeds, reasons = trial.measured_seeds([Loading(1.0, ARM, Entry(1, "a", "perplexity"))])
    assert seeds == () and reasons == (
        "full: no test scores on a (perplexity) at learning rate 0.001 yet (seeds 0, 1, 2)",)


def test_two_rows_for_one_run_are_refused() -> None:
    trial = two_phases()
    rows = [*trial.table.scores, trial.table.scores[-1]]
    with pytest.raises(ValueError, match="two score rows"):
        Trial(trial.study, Table(scores=rows, metrics=metrics()))
