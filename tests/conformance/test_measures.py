"""What every measure promises: entries that exist, changes that cancel on equal scores, levels that are means."""

from __future__ import annotations

import pytest

from finetrial import catalog
from finetrial.measures.base import Measure, Reading, Term
from finetrial.spec.slots import joined_tasks

ORDERS = (("a",), ("a", "b"), ("b", "a", "c"), ("a", "b", "a"), ("a+b",), ("a", "b+c"))
TASKS = ("a", "b", "c", "old")


@pytest.fixture(params=catalog.names("measure"))
def measure(request: pytest.FixtureRequest) -> Measure:
    made = catalog.find("measure", request.param)()
    assert isinstance(made, Measure)
    return made


def readings(measure: Measure, tasks: tuple[str, ...] = TASKS) -> list[tuple[tuple[str, ...], Reading]]:
    return [(order, reading) for order in ORDERS for reading in measure.readings(order, tasks)]


def total(terms: tuple[Term, ...]) -> float:
    return sum(term.coefficient for term in terms)


def test_every_entry_lies_in_the_score_table(measure: Measure) -> None:
    for order, reading in readings(measure):
        assert 1 <= reading.phase <= len(order) and reading.terms
        for term in (*reading.terms, *reading.denominator):
            assert all(0 <= phase <= len(order) for phase in (term.phase, *term.among)) and term.task in TASKS
        if reading.task:
            assert {term.task for term in reading.terms} == {reading.task}


def test_one_reading_for_each_phase_and_task(measure: Measure) -> None:
    for order in ORDERS:
        places = [(reading.phase, reading.task) for reading in measure.readings(order, TASKS)]
        assert len(places) == len(set(places))


def test_changes_are_zero_on_equal_scores_and_levels_are_means(measure: Measure) -> None:
    for _, reading in readings(measure):
        assert total(reading.terms) == pytest.approx(1.0 if measure.is_level else 0.0)
        assert bool(reading.denominator) == measure.is_ratio and total(reading.denominator) == pytest.approx(0.0)


def test_only_scored_tasks_are_read(measure: Measure) -> None:
    for order, reading in readings(measure, tasks=("a", "old")):
        assert {term.task for term in reading.terms} <= {"a", "old"}, order


def test_no_task_is_forgotten_or_retained_in_the_phase_that_trains_it(measure: Measure) -> None:
    for order, reading in readings(measure):
        if reading.task and measure.__class__.__name__ in ("Forgetting", "ForgettingMax", "Retention"):
            assert reading.task not in joined_tasks(order[reading.phase - 1])


def test_it_describes_itself(measure: Measure) -> None:
    assert measure.summary and isinstance(measure.higher_is_better, bool) and measure.version >= 1
