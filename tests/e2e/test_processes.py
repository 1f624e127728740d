"""A phase in two processes, by the real runner: one result, one record, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_study import tiny_content

from finetrial.plan.build import Resolved, build
from finetrial.records.record import Environment, Outcome
from finetrial.run.events import StageProgress
from finetrial.run.execute import ExecutionResult, execute
from finetrial.run.provenance import environment
from finetrial.run.store import Store
from finetrial.run.walk import State
from finetrial.spec.io import parse_study
from finetrial.stages.base import Stage, StageInput

OFTEN = Path(__file__).with_name("train_often.py")
STEPS = 80
pytestmark = pytest.mark.slow  # two processes against one are unit tests too: test_data_parallel, test_sharding, test_ranks


@pytest.fixture(scope="module")
def here() -> Environment:
    return environment("cpu")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    """Data, one phase of training that saves often, one prediction with what it left."""
    folder = tmp_path_factory.mktemp("study")
    content = tiny_content(folder)
    content["training"] |= {"budget": f"{STEPS} steps"}
    plan = build(parse_study(content, "study.yaml"), resolved=Resolved(), relative_to=folder)
    train = next(stage for stage in plan.stages if stage.kind == "train")
    predict = next(stage for stage in plan.stages if stage.inputs.get("model") == train.id)
    data = [stage for stage in plan.stages if stage.id in {*train.inputs.values(), *predict.inputs.values()} - {train.id}]
    return [*data, replace(train, kind="train-often"), predict]


@pytest.fixture(scope="module")
def alone(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory, here: Environment) -> ExecutionResult:
    return run(tmp_path_factory.mktemp("alone"), stages, here, processes=1)


@pytest.fixture(scope="module")
def together(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory, here: Environment) -> ExecutionResult:
    return run(tmp_path_factory.mktemp("together"), stages, here)


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    yield
    assert not others()


def run(folder: Path, stages: Sequence[Stage], here: Environment, *, processes: int = 2, shard: bool = False,
        listener: Callable[[Any], None] | None = None) -> ExecutionResult:
    return execute(stages, Store(folder / "store"), folder / "run", device="cpu", jobs=1, environment=here,
                   processes=processes, shard=shard, listener=listener, plugins=[OFTEN])


def others() -> list[psutil.Process]:
    """The processes that help a worker of ours."""
    return [process for process in psutil.Process().children(recursive=True)
            if process.is_running() and "finetrial.run.assist" in process.cmdline()]


def losses(found: StageInput | None) -> dict[int, float]:
    assert found is not None
    rows = map(json.loads, (found.folder / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


def test_the_record_is_that_of_one_process_and_says_how_many_there_were(
        stages: list[Stage], together: ExecutionResult, alone: ExecutionResult) -> None:
    assert together.complete and alone.complete
    mine, other = (each.found(stages[-2].id) for each in (together, alone))
    assert mine is not None and other is not None and mine.record.outcome is other.record.outcome is Outcome.OK
    assert mine.record.key == other.record.key and set(mine.record.files) == set(other.record.files)
    assert mine.record.execution["processes"] == {"count": 2, "form": "data parallel", "backend": "gloo"}
    assert "processes" not in other.record.execution
    found, expected = losses(mine), losses(other)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    assert [found[step] for step in range(1, 7)] == pytest.approx([expected[step] for step in range(1, 7)], rel=1e-5)
    assert not list(mine.folder.glob("ranks-*"))


def test_what_two_processes_recorded_one_finds(stages: list[Stage], together: ExecutionResult, here: Environment) -> None:
    found = together.found(stages[-1].id)
    assert found is not None
    again = run(next(folder.parent for folder in found.folder.parents if folder.name == "store"), stages, here, processes=1)
    assert {state.state for state in again.states.values()} == {State.CACHED}


def test_two_with_a_part_of_the_model_each_leave_the_same_record(
        stages: list[Stage], tmp_path: Path, here: Environment, alone: ExecutionResult) -> None:
    """Also after their worker was killed: both go on from what the first wrote."""
    train, killed = stages[-2], []

    def kill(event: Any) -> None:
        if isinstance(event, StageProgress) and event.stage_id == train.id and not killed and (event.fraction or 0.0) > 0.1:
            [other] = others()
            killed.append(other.parent().pid)
            other.parent().kill()

    result = run(tmp_path, stages, here, shard=True, listener=kill)
    mine, other = result.found(train.id), alone.found(train.id)
    assert result.complete and killed and mine is not None and other is not None
    assert mine.record.key == other.record.key and set(mine.record.files) == set(other.record.files)
    assert mine.record.execution["processes"] == {"count": 2, "form": "sharded", "backend": "gloo"}
    assert mine.record.execution["attempts"] == ["killed (SIGKILL)"] and len(losses(mine)) < STEPS
    for name in ("frozen_digest", "params_trainable", "stored_bytes", "steps"):
        assert mine.record.values[name] == other.record.values[name]
    assert [each["val"] for each in mine.record.values["curve"]] == pytest.approx(
        [each["val"] for each in other.record.values["curve"]], rel=0.02)
    asked = result.found(stages[-1].id)
    assert asked is not None and asked.record.values["answer_digest"] == mine.record.values["answer_digest"]


def test_one_that_dies_ends_the_phase_and_a_worker_takes_the_others_with_it(
        stages: list[Stage], tmp_path: Path, here: Environment, together: ExecutionResult) -> None:
    """Of two phases, one after the other, the first loses its second process, the second its worker."""
    second, first = stages[-2], replace(stages[-2], id="train/first", spec={**stages[-2].spec, "learning_rate": 0.02})
    killed: dict[str, int] = {}

    def kill(event: Any) -> None:
        if not isinstance(event, StageProgress) or event.stage_id in killed or (event.fraction or 0.0) <= 0.1:
            return
        for process in others():
            killed[event.stage_id] = process.pid
            (process if event.stage_id == first.id else process.parent()).kill()

    result = run(tmp_path, [*stages[:-2], first, second], here, listener=kill)
    assert list(killed) == [first.id, second.id] and not any(map(psutil.pid_exists, killed.values()))
    lost, found = result.found(first.id), result.found(second.id)
    assert lost is not None and lost.record.outcome is Outcome.FAILED
    assert "process 2 of 2 died of SIGKILL" in lost.record.message
    assert found is not None and found.record.outcome is Outcome.OK
    assert found.record.execution["attempts"] == ["killed (SIGKILL)"]
    assert found.record.execution["processes"]["count"] == 2
    resumed, expected = losses(found), losses(together.found(second.id))
    assert 0 < len(resumed) < STEPS and resumed == {step: expected[step] for step in resumed}
