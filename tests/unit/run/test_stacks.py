"""Stages of several groups computed in one pass: each has the record that it has alone, whatever becomes of the others."""

from __future__ import annotations

import pytest

from finetrial.records.record import Outcome
from finetrial.run.stacks import Stacks
from finetrial.run.view import PlainView
from finetrial.run.walk import State, Walk


def phases(laboratory, *names, alike="lora", do="share", **spec):
    """A training stage and a prediction each; they share a file `memory`, which is not identity but must be alike."""
    return [stage for name in names for stage in (
        laboratory.stage(f"train/{name}", group=name, memory="memory", alike=alike, **{"do": do, **spec.get(name, {})}),
        laboratory.stage(f"predict/{name}", {"model": f"train/{name}"}, group=name, do=do))]


def of(result, name):
    return result.found(name).record


def test_groups_alike_share_a_process_and_keep_their_live_objects_apart(laboratory):
    other = phases(laboratory, "d", alike="other")
    result = laboratory.execute(*phases(laboratory, "a", "b", "c"), *other, stack=8, jobs=1)
    assert result.complete
    assert len({of(result, f"train/{name}").values["pid"] for name in "abc"}) == 1
    assert of(result, "train/d").values["pid"] != of(result, "train/a").values["pid"]
    for name in "abc":
        assert of(result, f"predict/{name}").values["earlier"] == [f"train/{name}", f"predict/{name}"]
        assert of(result, f"train/{name}").execution["stacked_cells"] == 3
        assert "one pass" in laboratory.log(f"train/{name}") or name == "a"
    assert "stacked_cells" not in of(result, "train/d").execution


def test_what_a_group_keeps_in_memory_goes_with_its_last_stage(laboratory):
    result = laboratory.execute(*phases(laboratory, "a", "b", "c", do="hold"), stack=8, jobs=1)
    assert [of(result, f"train/{name}").values["held"] for name in "abc"] == [1, 2, 3]  # one pass
    assert [of(result, f"predict/{name}").values["held"] for name in "abc"] == [3, 2, 1]


def test_records_are_those_of_stages_alone(laboratory, tmp_path):
    stages = phases(laboratory, "a", "b")
    together = laboratory.execute(*stages, stack=8)
    again = laboratory.execute(*stages)
    assert [again.states[stage.id].state for stage in stages] == [State.CACHED] * 4
    laboratory.folder = tmp_path / "elsewhere"
    alone = laboratory.execute(*stages)
    for stage in stages:
        first, second = of(together, stage.id), of(alone, stage.id)
        assert (first.key, first.files, first.values["value"]) == (second.key, second.files, second.values["value"])


def test_a_stack_takes_no_more_than_it_may(laboratory):
    result = laboratory.execute(*phases(laboratory, *"abcde"), stack=2, jobs=1)
    assert [of(result, f"train/{name}").execution.get("stacked_cells") for name in "abcde"] == [2, 2, 2, 2, None]


def test_stacks_of_their_own_size_share_the_work_among_the_places(laboratory):
    def sizes(names, places, most):
        stages = phases(laboratory, *names)
        walk = Walk(stages, lambda kind: False)
        walk.settle(lambda state: None)
        return [len(stack) or 1 for _, stack in Stacks(lambda state: most).jobs(walk.ready(), places)]

    assert sizes("abcdefghi", 1, 8) == [5, 4]  # equal halves rather than 8 and 1
    assert sizes("abcdefgh", 1, 8) == [8]
    assert sizes("abcdefgh", 4, 8) == [2, 2, 2, 2]  # no place is left idle
    assert sizes("ab", 4, 8) == [1, 1] and sizes("abc", 1, 1) == [1, 1, 1]


def test_watchers_are_told_of_a_stack(laboratory):
    lines = []
    view = PlainView(lines.append)
    laboratory.execute(*phases(laboratory, *"abc"), stack=lambda state: 8, jobs=1, listener=view)
    assert lines[0] == "stack of 3 in one pass: label of train/a, ..."


def test_a_stack_that_is_out_of_memory_is_halved_and_smaller_ones_stay(laboratory):
    (laboratory.folder / "memory").write_text("fits 2")
    result = laboratory.execute(*phases(laboratory, *"abcdefgh"), stack=4, jobs=1)
    assert result.complete
    for name in "abcdefgh":
        assert of(result, f"train/{name}").execution["stacked_cells"] == 2
    halved = "out of memory in a stack of 4; next in stacks of 2: RuntimeError: CUDA out of memory"
    assert [of(result, f"train/{name}").execution["attempts"] for name in "abcdefgh"] == [[halved]] * 4 + [[]] * 4


def test_a_stage_that_diverges_ends_its_group_only(laboratory):
    result = laboratory.execute(*phases(laboratory, "a", "b", "c", b={"do": "diverge"}), stack=8)
    assert of(result, "train/b").outcome is Outcome.DIVERGED and result.found("predict/b") is None
    assert of(result, "predict/a").outcome is of(result, "predict/c").outcome is Outcome.OK and result.complete


@pytest.mark.parametrize(("trouble", "reason"), [("fail", "CUDA out of memory"), ("die", "the worker died")])
def test_a_pass_that_fails_is_made_up_for_one_by_one(laboratory, trouble, reason):
    (laboratory.folder / "memory").write_text(trouble)
    result = laboratory.execute(*phases(laboratory, "a", "b"), stack=8, jobs=1)
    for name in "ab":
        record = of(result, f"train/{name}")
        assert record.outcome is of(result, f"predict/{name}").outcome is Outcome.OK
        assert "stacked_cells" not in record.execution and record.execution["attempts"] == [
            f"not stacked: {'RuntimeError: ' if trouble == 'fail' else ''}{reason}"]


def test_what_is_recorded_already_is_left_out(laboratory):
    laboratory.execute(*phases(laboratory, "a"))
    result = laboratory.execute(*phases(laboratory, "a", "b", "c"), stack=8)
    assert [of(result, f"train/{name}").execution.get("stacked_cells") for name in "abc"] == [None, 2, 2]
