"""What an arm costs over the phases of a path."""

from __future__ import annotations

from typing import Any

from finetrial.analysis.costs import path_cost, repeats
from finetrial.records.results import Cost
from finetrial.spec.hypothesis import EXACT_COSTS, MEASURED_COSTS


def cost(task: str, **columns: Any) -> Cost:
    return Cost(base="tiny", arm="shared", task=task, **columns)


ROWS = (cost("a", params_trainable=900, peak_host_bytes=70, train_seconds=10.0, train_tokens=400, tokens_per_second=40.0),
        cost("b", params_trainable=100, peak_host_bytes=80, train_seconds=5.0, train_tokens=100, tokens_per_second=20.0),
        Cost(base="tiny", arm="other", task="a", params_trainable=1))


def test_every_measured_number_can_be_compared() -> None:
    told = {name for name, field in Cost.model_fields.items() if name not in ("base", "arm", "task", "device", "precision",
                                                                              "repeats")}
    assert told == {*EXACT_COSTS, *MEASURED_COSTS}


def test_parameters_and_bytes_are_the_most_in_a_phase_times_and_tokens_the_sum() -> None:
    """A layer that is trained first and frozen then costs what it cost to train."""
    found = path_cost(ROWS, "tiny", "shared", ("a", "b"))
    assert found is not None
    assert (found.params_trainable, found.peak_host_bytes, found.train_seconds, found.train_tokens) == (900, 80, 15.0, 500)
    assert found.tokens_per_second == 500 / 15 and found.task == "b"


def test_one_phase_is_its_own_row_and_joint_training_has_no_times() -> None:
    assert path_cost(ROWS, "tiny", "shared", ("a",)) == ROWS[0]
    joint = path_cost(ROWS, "tiny", "shared", ("a+c",))
    assert joint is not None and (joint.params_trainable, joint.peak_host_bytes) == (900, 70)
    assert joint.train_seconds is joint.train_tokens is joint.tokens_per_second is None
    assert path_cost(ROWS, "tiny", "nobody", ("a", "b")) is None


def test_repeats_of_a_path_are_of_all_its_phases() -> None:
    rows = [row.model_copy(update={"repeats": {"tokens_per_second": speeds, "peak_host_bytes": peaks}})
            for row, speeds, peaks in zip(ROWS, [(40.0, 20.0), (20.0, 10.0)], [(70, 70), (60, 80)], strict=False)]
    found = path_cost(rows, "tiny", "shared", ("a", "b"))
    assert found is not None
    assert repeats(found, "train_seconds") == (15.0, 30.0) and repeats(found, "peak_host_bytes") == (70, 80)
    assert repeats(found, "tokens_per_second") == (500 / 15, 500 / 30)
    last = rows[1].model_copy(update={"predict_seconds": 3.0, "predict_tokens_per_second": 10.0,
                                      "repeats": {"predict_tokens_per_second": (10.0, 5.0)}})
    predicted = path_cost([rows[0], last], "tiny", "shared", ("a", "b"))
    assert predicted is not None and repeats(predicted, "predict_seconds") == (3.0, 6.0)


def test_what_one_phase_lacks_is_unknown() -> None:
    found = path_cost((ROWS[0], cost("b", params_trainable=5)), "tiny", "shared", ("a", "b"))
    assert found is not None and found.params_trainable == 900 and found.peak_host_bytes is None
    half = path_cost(ROWS[:1], "tiny", "shared", ("a", "b"))
    assert half is not None and half.params_trainable is None
