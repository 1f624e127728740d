"""Continuation rate: the examples of docs/metrics.md, and what is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finetrial.scorers.continuation_rate import ContinuationRate

DOCUMENT = "graphs are walked from both ends. The walks meet in the middle.\n\nWeights are read from the edges."
REFERENCE = "Return the shortest path between two nodes."
LONG = "The path is found by searching from both ends. It may be slow for large graphs, and then another one is better."


def continues(output: str | None, finished: bool | None = True, reference: str = REFERENCE) -> float:
    columns = {"output": [output], "reference": [reference], "input": [DOCUMENT], "finished": [finished]}
    return float(ContinuationRate().statistics(columns)[0, 0])


@pytest.mark.parametrize("output, finished, expected, why", [
    ("Find a shortest path.", True, 0, "a summary"),
    (REFERENCE, True, 0, "the reference itself"),
    (LONG, True, 0, "long, but it came to its end, in one paragraph"),
    ("Find a path, then", False, 0, "cut off, but no longer than the reference allows"),
    ("", True, 0, "nothing continues nothing"),
    (DOCUMENT, False, 0, "the document itself: a copy is no continuation"),
    ("graphs are walked from both ends, and", False, 0, "the document's beginning"),
    ("and returns it as a list.", True, 1, "goes on inside a sentence"),
    (", which is a list.", True, 1, "goes on inside a sentence"),
    (LONG, False, 1, "runs on to the limit of tokens"),
    (LONG + "\n\nParameters are given below.", True, 1, "runs on into another paragraph"),
])
def test_signs(output: str, finished: bool, expected: float, why: str) -> None:
    assert continues(output, finished) == expected, why


def test_a_reference_that_begins_in_lower_case_makes_that_no_sign() -> None:
    assert continues("numpy array of weights", reference="array of weights") == 0.0


def test_missing_stays_missing() -> None:
    assert np.isnan(continues(None, None)) and np.isnan(continues(LONG, False, reference=" "))


def test_texts_without_the_column_finished_count_as_finished() -> None:
    columns: dict[str, Any] = {"output": [LONG, "and so on"], "reference": [REFERENCE] * 2, "input": [DOCUMENT] * 2}
    made = ContinuationRate()
    assert made.statistics(columns).tolist() == [[0, 1], [1, 1]]
    assert made.aggregate(made.statistics(columns).sum(axis=0)) == 0.5
