"""Carry and routing, worked by hand on slots of two methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetrial import catalog
from finetrial.spec.slots import Place, State, advance, answering

LORA = {"kind": "lora", "version": 1}
WIDE = {"kind": "lora", "version": 1, "rank": 32}
FULL = {"kind": "full", "version": 1}
BLOCK = {"kind": "layer"}


def one(carry: str, method: dict[str, Any] | None = LORA, slot: str = "main") -> dict[str, Any]:
    return {"slot": slot, "carry": carry, "method": method}


def after(*phases: tuple[str, list[dict[str, Any]]]) -> State:
    state = State()
    for number, (task, components) in enumerate(phases, start=1):
        state, _ = advance(state, number, task, components)
    return state


def names(state: State, routing: Any, task: str = "") -> list[str]:
    return [instance.name for instance in answering(state, routing, task)]


def test_continue_keeps_one_instance_that_is_bound_to_both_tasks() -> None:
    state = after(("a", [one("continue")]), ("b", [one("continue")]))
    assert [(i.name, i.tasks, i.born, i.trained) for i in state.instances] == [("main@1", ("a", "b"), 1, 2)]
    assert names(state, "oracle", "a") == names(state, "latest") == ["main@1"]


def test_fresh_unloads_the_old_one_and_oracle_still_finds_it() -> None:
    state = after(("a", [one("continue")]), ("b", [one("fresh")]))
    assert [i.place for i in state.instances] == [Place.UNLOADED, Place.NEWEST]
    assert names(state, "latest") == ["main@2"]
    assert names(state, "oracle", "a") == ["main@1"]
    assert names(state, "oracle", "b") == ["main@2"]
    assert names(state, "oracle", "never trained") == ["main@2"]


def test_what_a_joint_phase_trained_is_bound_to_each_of_its_tasks() -> None:
    state = after(("a+b", [one("continue")]), ("c", [one("fresh")]))
    assert state.learned == ("a", "b", "c")
    assert names(state, "oracle", "a") == names(state, "oracle", "b") == ["main@1"]
    assert names(state, "oracle", "c") == names(state, "latest") == ["main@2"]
    again = after(("a", [one("continue")]), ("a+b", [one("continue")]))
    assert again.instances[0].tasks == ("a", "b")


def test_stack_answers_with_all_below_and_none_above() -> None:
    state = after(("a", [one("continue")]), ("b", [one("stack")]), ("c", [one("stack")]))
    assert names(state, "latest") == ["main@1", "main@2", "main@3"]
    assert names(state, "oracle", "b") == ["main@1", "main@2"]
    assert names(state, "oracle", "a") == ["main@1"]


def test_fresh_above_a_stack_unloads_the_stack() -> None:
    state = after(("a", [one("continue")]), ("b", [one("stack")]), ("c", [one("fresh")]))
    assert names(state, "latest") == ["main@3"]
    assert names(state, "oracle", "b") == ["main@1", "main@2"]


def test_merged_instances_are_bound_to_no_task() -> None:
    state = after(("a", [one("continue")]), ("b", [one("merge")]))
    assert [i.name for i in state.merged] == ["main@1"]
    assert names(state, "oracle", "a") == names(state, "latest") == ["main@2"]
    gone = after(("a", [one("continue"), one("continue", LORA, "other")]),
                 ("b", [one("merge", None), one("continue", LORA, "other")]))
    assert names(gone, "latest") == ["other@1"]


def test_merge_folds_a_whole_stack_in_order_and_after_what_was_merged_before() -> None:
    state = after(("a", [one("continue")]), ("b", [one("merge")]), ("c", [one("stack")]), ("d", [one("merge", FULL)]))
    assert [i.name for i in state.merged] == ["main@1", "main@2", "main@3"]
    assert names(state, "latest") == ["main@4"]


def test_a_slot_that_is_not_listed_is_frozen_and_active() -> None:
    state = after(("a", [one("continue", FULL, "weights")]), ("b", [one("continue", LORA, "adapter")]))
    assert names(state, "latest") == ["weights@1", "adapter@1"]
    assert names(state, "oracle", "a") == ["weights@1", "adapter@1"]  # the adapter was never trained on a: newest
    listed = after(("a", [one("continue")]), ("b", [one("freeze", None), one("continue", LORA, "other")]))
    assert listed.instances[0].tasks == ("a",)


@pytest.mark.parametrize(("phases", "message"), [
    ([("a", [one("continue")]), ("b", [one("continue", WIDE)])], "rank=32"),
    ([("a", [one("freeze", LORA)])], "nothing to freeze"),
    ([("a", [one("merge", None)])], "empty before phase 1"),
    ([("a", [one("continue")]), ("b", [one("freeze")])], "trains nothing"),
    ([("a", [one("continue", FULL, "weights"), one("continue")]), ("b", [one("merge")])], "put both in one slot"),
    ([("a", [one("continue", BLOCK, "lower")]), ("b", [one("continue", BLOCK)]), ("c", [one("merge")])], "merge both"),
])
def test_broken_rules_name_slot_and_mend(phases: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        after(*phases)


def test_a_users_method_that_trains_the_base_is_as_full_beside_a_merge(tmp_path: Path) -> None:
    path = tmp_path / "all_of_it.py"
    path.write_text("from finetrial.methods.full import Full\n\n\nclass AllOfIt(Full):\n    pass\n")
    catalog.add_file(path)
    with pytest.raises(ValueError, match="put both in one slot"):
        after(("a", [one("continue", {"kind": "all-of-it"}, "weights"), one("continue")]), ("b", [one("merge")]))
