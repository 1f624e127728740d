"""What an arm costs over the phases of a path."""

from __future__ import annotations

from typing import Any

from finetrial.analysis.costs import path_cost
from finetrial.records.results import Cost


def cost(task: str, **columns: Any) -> Cost:
    return Cost(base="tiny", arm="shared", task=task, **columns)


ROWS = (cost("a", params_trainable=900, peak_host_bytes=70, train_seconds=10.0, train_tokens=400, tokens_per_second=40.0),
        cost("b", params_trainable=100, peak_host_bytes=80, train_seconds=5.0, train_tokens=100, tokens_per_second=20.0),
        Cost(base="tiny", arm="other", task="a", params_trainable=1))


def test_parameters_and_bytes_are_the_most_in_a_phase_times_and_tokens_the_sum() -> None:
    """A layer that is trained first and frozen then costs what it cost to train."""
    found = path_cost(ROWS, "tiny", "shared", ("a", "b"))
    assert found is not None
    assert (found.params_trainable, found.peak_host_bytes, found.train_seconds, found.train_tokens) == (900, 80, 15.0, 500)
    assert found.tokens_per_second == 500 / 15 and found.task == "b"


def test_one_phase_is_its_own_row_and_joint_training_the_row_of_one_of_its_tasks() -> None:
    assert path_cost(ROWS, "tiny", "shared", ("a",)) == ROWS[0] == path_cost(ROWS, "tiny", "shared", ("a+c",))
    assert path_cost(ROWS, "tiny", "nobody", ("a", "b")) is None


def test_what_one_phase_lacks_is_unknown() -> None:
    found = path_cost((ROWS[0], cost("b", params_trainable=5)), "tiny", "shared", ("a", "b"))
    assert found is not None and found.params_trainable == 900 and found.peak_host_bytes is None
    half = path_cost(ROWS[:1], "tiny", "shared", ("a", "b"))
    assert half is not None and half.params_trainable is None
