from __future__ import annotations

import time

import pytest

from finetrial.records.record import Outcome
from finetrial.run.walk import State, Walk
from finetrial.stages.base import Chosen, Stage, StageInput


def stage(name, inputs=None, **more):
    return Stage(name, "tolerant" if name.startswith("any") else "plain", 1, {"name": name}, inputs or {}, **more)


def walk_of(*stages):
    return Walk(stages, lambda kind: kind == "tolerant")


@pytest.fixture
def finish(make_record, tmp_path):
    def finish(walk, name, outcome=Outcome.OK, **more):
        state = walk.states[name]
        state.record(State.DONE, StageInput(make_record(outcome=outcome, **more), tmp_path))
        return walk.settle(lambda _: None)
    return finish


def ready(walk):
    return [[state.stage.id for state in job] for job in walk.ready()]


def test_jobs_are_groups_in_the_order_given(finish):
    walk = walk_of(stage("t1", group="g1"), stage("t2", group="g2"), stage("p1", {"model": "t1"}, group="g1"),
                   stage("alone"), stage("later", {"x": "p1", "y": "alone"}))
    assert walk.settle(lambda _: None) == []
    assert ready(walk) == [["t1", "p1"], ["t2"], ["alone"]]
    finish(walk, "t1")
    assert ready(walk) == [["p1"], ["t2"], ["alone"]]
    finish(walk, "p1")
    finish(walk, "alone")
    assert ready(walk) == [["t2"], ["later"]]


def test_stages_may_be_given_in_any_order():
    walk = walk_of(stage("b", {"x": "a"}), stage("a"))
    walk.settle(lambda _: None)
    assert ready(walk) == [["a"]]


def test_a_key_waits_for_the_selection(finish):
    last = stage("next", {"parent": Chosen("select", {"1": "a", "2": "b"})})
    walk = walk_of(stage("a"), stage("b"), stage("select", {"a": "a", "b": "b"}), last)
    looked_up = []
    walk.settle(lambda state: looked_up.append(state.stage.id))
    assert looked_up == ["a", "b", "select"] and walk.states["next"].key is None
    for name in ("a", "b"):
        finish(walk, name)
    finish(walk, "select", values={"chosen": "2"})
    assert walk.states["next"].key == last.key({"parent": walk.states["b"].key})
    assert walk.inputs(walk.states["next"]) == {"parent": walk.states["b"]}


def test_what_is_cached_needs_nothing(make_record, tmp_path):
    walk = walk_of(stage("a"), stage("b", {"x": "a"}))
    entry = StageInput(make_record(), tmp_path)
    walk.settle(lambda state: entry if state.stage.id == "b" else None)
    assert walk.states["b"].state is State.CACHED and ready(walk) == [["a"]]


@pytest.mark.parametrize(("outcome", "final"), [(Outcome.DIVERGED, True), (Outcome.OOM, True), (Outcome.FAILED, False),
                                                (Outcome.TIMEOUT, False)])
def test_dependents_of_what_failed_are_not_run(finish, outcome, final):
    walk = walk_of(stage("a"), stage("b", {"x": "a"}), stage("c", {"x": "b"}))
    walk.settle(lambda _: None)
    settled = finish(walk, "a", outcome)
    assert [(s.stage.id, s.state, s.reason, s.final) for s in settled] == [
        ("b", State.NOT_RUN, f"needs a, which is {outcome}", final),
        ("c", State.NOT_RUN, "needs b, which is not run", final)]
    assert walk.finished


def test_a_tolerant_stage_waits_until_every_input_is_settled(finish):
    walk = walk_of(stage("a"), stage("b"), stage("any", {"x": "a", "y": "b"}))
    walk.settle(lambda _: None)
    finish(walk, "a", Outcome.FAILED)
    assert ready(walk) == [["b"]]
    finish(walk, "b")
    assert ready(walk) == [["any"]]
    any_ = walk.states["any"]
    assert list(walk.inputs(any_)) == ["y"] and walk.is_provisional(any_)


def test_a_thousand_stages_settle_in_a_moment(finish):
    stages = [stage("data")]
    for cell in range(250):
        stages.append(stage(f"t{cell}", {"data": "data"}, group=f"g{cell}"))
        stages += [stage(f"p{cell}-{i}", {"model": f"t{cell}", "data": "data"}, group=f"g{cell}") for i in range(3)]
    walk = walk_of(*stages)
    started = time.process_time()
    walk.settle(lambda _: None)
    finish(walk, "data")
    assert len(ready(walk)) == 250
    assert time.process_time() - started < 2.0
