"""Plasticity and forgetting over sequences; another measure is one more file."""

from __future__ import annotations

from pathlib import Path

from finetrial import catalog
from finetrial.measures.base import Measure, Reading, Term, phase_that_trained

BACKWARD_TRANSFER = '''
from finetrial.measures.base import Measure, Reading, Term


class BackwardTransfer(Measure):
    """Mean over earlier tasks of what the last phase changed."""

    higher_is_better = True

    def readings(self, order, tasks):
        last, earlier = len(order), order[:-1]
        terms = [term for phase, task in enumerate(earlier, start=1)
                 for term in (Term(1 / len(earlier), last, task), Term(-1 / len(earlier), phase, task))]
        yield Reading(last, "", tuple(terms))
'''


def measure(name: str) -> Measure:
    found = catalog.find("measure", name)()
    assert isinstance(found, Measure)
    return found


def test_plasticity_is_the_gain_of_each_phase() -> None:
    assert list(measure("plasticity").readings(("a", "b"), ("a", "b", "old"))) == [
        Reading(1, "a", (Term(1.0, 1, "a"), Term(-1.0, 0, "a"))),
        Reading(2, "b", (Term(1.0, 2, "b"), Term(-1.0, 0, "b")))]


def test_forgetting_starts_where_a_task_was_trained() -> None:
    assert list(measure("forgetting").readings(("a", "b"), ("a", "b", "old"))) == [
        Reading(1, "old", (Term(1.0, 0, "old"), Term(-1.0, 1, "old"))),
        Reading(2, "a", (Term(1.0, 1, "a"), Term(-1.0, 2, "a"))),
        Reading(2, "old", (Term(1.0, 0, "old"), Term(-1.0, 2, "old")))]


def test_a_task_trained_again_is_forgotten_from_then_on() -> None:
    assert phase_that_trained("a", ("a", "b", "a", "b"), until=4) == 3
    readings = {(row.phase, row.task): row.terms for row in measure("forgetting").readings(("a", "b", "a"), ("a", "b"))}
    assert readings == {(2, "a"): (Term(1.0, 1, "a"), Term(-1.0, 2, "a")),
                        (3, "b"): (Term(1.0, 2, "b"), Term(-1.0, 3, "b"))}


def test_a_users_measure_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "backward_transfer.py"
    path.write_text(BACKWARD_TRANSFER, encoding="utf-8")
    kind, name, _ = catalog.add_file(path)
    try:
        assert (kind, name) == ("measure", "backward-transfer")
        reading, = measure(name).readings(("a", "b", "c"), ("a", "b", "c"))
        assert reading.task == "" and sum(term.coefficient for term in reading.terms) == 0
    finally:
        catalog._user_files["measure"].pop(name)
