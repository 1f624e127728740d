"""Every measure on the worked matrix of `measures/base.py`; another measure is one more file."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetrial import catalog
from finetrial.measures.base import Measure, Reading, Term, first_phase, learned_before, phase_that_trained

ORDER = ("A", "B", "C")
R = {"A": (0.10, 0.80, 0.60, 0.50), "B": (0.10, 0.15, 0.70, 0.75), "C": (0.10, 0.12, 0.20, 0.90),
     "W": (0.50, 0.47, 0.45, 0.44), "N": (0.40, 0.41, 0.43, 0.39)}  # by task, phases 0 to 3; W and N are outside texts

LONGEST_STEP = '''
from finetrial.measures.base import Measure, Reading, Term


class LongestStep(Measure):
    """What the last phase changed on the first task."""

    higher_is_better = True

    def readings(self, order, tasks):
        last = len(order)
        yield Reading(last, order[0], (Term(1.0, last, order[0]), Term(-1.0, last - 1, order[0])))
'''


def measure(name: str) -> Measure:
    found = catalog.find("measure", name)()
    assert isinstance(found, Measure)
    return found


def sum_of(terms: tuple[Term, ...]) -> float:
    return sum(term.coefficient * max(R[term.task][phase] for phase in term.among or (term.phase,)) for term in terms)


def values(name: str, order: tuple[str, ...] = ORDER, tasks: tuple[str, ...] = ORDER) -> dict[tuple[int, str], float]:
    """(phase, task) -> value, from the matrix."""
    found = {}
    for reading in measure(name).readings(order, tasks):
        value = sum_of(reading.terms)
        found[reading.phase, reading.task] = value / sum_of(reading.denominator) if reading.denominator else value
    return found


@pytest.mark.parametrize(("name", "worked"), [
    ("plasticity", {(1, "A"): 0.70, (2, "B"): 0.60, (3, "C"): 0.80}),
    ("forgetting", {(2, "A"): 0.20, (3, "A"): 0.30, (3, "B"): -0.05}),
    ("forgetting-max", {(2, "A"): 0.20, (3, "A"): 0.30, (3, "B"): -0.05}),
    ("backward-transfer", {(2, "A"): -0.20, (2, ""): -0.20, (3, "A"): -0.30, (3, "B"): 0.05, (3, ""): -0.125}),
    ("forward-transfer", {(1, "B"): 0.05, (2, "C"): 0.10, (3, ""): 0.075}),
    ("average-score", {(1, ""): 0.80, (2, ""): 0.65, (3, ""): 2.15 / 3}),
    ("retention", {(2, "A"): 0.50 / 0.70, (3, "A"): 0.40 / 0.70, (3, "B"): 0.65 / 0.60}),
    ("drift", {})])
def test_worked_by_hand(name: str, worked: dict[tuple[int, str], float]) -> None:
    assert values(name) == pytest.approx(worked)


def test_outside_texts() -> None:
    tasks = (*ORDER, "W", "N")
    assert values("drift", tasks=tasks) == pytest.approx({(1, ""): 0.01, (2, ""): 0.01, (3, ""): 0.035})
    assert values("forgetting", tasks=tasks)[3, "W"] == pytest.approx(0.06)
    assert values("forgetting-max", tasks=tasks)[3, "N"] == pytest.approx(0.43 - 0.39)  # best after phase 2
    assert (3, "W") not in values("backward-transfer", tasks=tasks)


def test_a_task_that_improved_after_its_phase_is_forgotten_from_its_best() -> None:
    order = ("A", "B", "C", "B")
    readings = {(row.phase, row.task): row for row in measure("forgetting-max").readings(order, ORDER)}
    assert readings[4, "A"].terms[0].among == (1, 2, 3)
    assert (4, "B") not in readings  # phase 4 trains it again


def test_a_task_trained_again_is_forgotten_from_then_on() -> None:
    assert phase_that_trained("a", ("a", "b", "a", "b"), until=4) == 3
    readings = {(row.phase, row.task): row.terms for row in measure("forgetting").readings(("a", "b", "a"), ("a", "b"))}
    assert readings == {(2, "a"): (Term(1.0, 1, "a"), Term(-1.0, 2, "a")),
                        (3, "b"): (Term(1.0, 2, "b"), Term(-1.0, 3, "b"))}


def test_joint_phases_train_each_of_their_tasks() -> None:
    assert list(measure("plasticity").readings(("a+b",), ("a", "b"))) == [
        Reading(1, "a", (Term(1.0, 1, "a"), Term(-1.0, 0, "a"))),
        Reading(1, "b", (Term(1.0, 1, "b"), Term(-1.0, 0, "b")))]
    assert (first_phase("b", ("a", "a+b")), phase_that_trained("a", ("a", "a+b"), 2)) == (2, 2)
    assert learned_before(("a", "a+b", "c"), 3) == ("a", "b") and learned_before(("a", "a+b"), 2) == ()
    assert list(measure("forgetting").readings(("a+b",), ("a", "b"))) == []


def test_levels_ratios_and_directions_are_declared() -> None:
    assert measure("average-score").is_level and measure("retention").is_ratio
    lower = [name for name in catalog.names("measure") if not measure(name).higher_is_better]
    assert lower == ["drift", "forgetting", "forgetting-max"]
    assert all(measure(name).summary for name in catalog.names("measure"))


def test_a_users_measure_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "longest_step.py"
    path.write_text(LONGEST_STEP, encoding="utf-8")
    kind, name, _ = catalog.add_file(path)
    assert (kind, name) == ("measure", "longest-step")
    reading, = measure(name).readings(("a", "b", "c"), ("a", "b", "c"))
    assert reading.task == "a" and sum(term.coefficient for term in reading.terms) == 0
