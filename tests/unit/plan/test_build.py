import json
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_content

from finetrial import catalog
from finetrial.errors import UserError
from finetrial.plan.build import Resolved, build
from finetrial.plan.plan import Plan
from finetrial.spec.io import parse_study
from finetrial.stages.base import Chosen


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    return tiny_content(tmp_path)


def plan_of(content: dict[str, Any], folder: Path, **more: Any) -> Plan:
    return build(parse_study(content, "study"), relative_to=folder, **more)


def keys(plan: Plan) -> dict[str, str | None]:
    return plan.keys()


def test_every_cell_has_its_stages(content: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_of(content, tmp_path)
    roles = [cell.role for cell in plan.cells]
    assert roles.count("base") == 1 and roles.count("arm") == 2 * 2 * 2  # arms x rates x seeds
    assert roles.count("positive control") == roles.count("A/A") == 2
    for cell in plan.cells:
        assert all(len(phase.predictions) == 4 for phase in cell.phases)  # two tasks, two splits
    assert all(key is not None for key in keys(plan).values())


def test_at_the_chosen_rate_only_validation_of_what_was_trained_is_taken_everywhere(content: dict[str, Any],
                                                                                    tmp_path: Path) -> None:
    everywhere = plan_of(content, tmp_path)
    plan = plan_of({**content, "evaluation": {"rates": "chosen"}}, tmp_path)
    for cell in plan.cells:
        splits = {(of.task, of.split) for of in cell.phases[0].predictions}
        if cell.key.arm == "lora-r2":  # `full` is the controls' arm: they are read at fixed rates
            assert splits == {("new", "val")}
        else:
            assert splits == {(task, split) for task in ("new", "old") for split in ("val", "test")}
    deferred = {(row.arm, row.seed, row.of.task, row.of.split) for row in plan.losses}
    assert deferred == {("lora-r2", seed, task, "test") for seed in (0, 1) for task in ("new", "old")}
    for row in plan.losses:  # whatever is chosen, the prediction is the one that would have been made at every rate
        chosen = plan.keys(lambda select, key: "0.1")[row.predict]
        assert chosen in keys(everywhere).values()


def test_how_the_base_is_held_belongs_to_training_and_cost(content: dict[str, Any], tmp_path: Path) -> None:
    before = plan_of(content, tmp_path)
    content["arms"][1]["quantization"] = "nf4"
    plan = plan_of(content, tmp_path)
    for stage in plan.stages:
        holds = stage.kind in ("train", "profile") and "/lora-r2/" in stage.id
        assert stage.spec.get("quantization") == ("nf4" if holds else None)
    same = set(keys(before).values()) & set(keys(plan).values())
    assert same == {key for stage, key in keys(before).items() if "/lora-r2/" not in stage}


@pytest.mark.parametrize("change", [{"quantization": "nf4"}, {"optimizer": "paged_adamw_8bit"}])
def test_the_version_of_bitsandbytes_belongs_to_what_it_computes(content: dict[str, Any], tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch,
                                                                 change: dict[str, Any]) -> None:
    content["arms"][1] |= {"training": {**content["training"], **change}} if "optimizer" in change else change

    def planned_with(version: str) -> Plan:
        monkeypatch.setattr(catalog, "installed_version", lambda package: version)
        return plan_of(content, tmp_path)

    none, plan, another = (planned_with(version) for version in ("", "0.50.2", "0.51.0"))
    for stage in plan.stages:
        computes = stage.kind in ("train", "profile") and "/lora-r2/" in stage.id
        assert stage.spec.get("packages") == ({"bitsandbytes": "0.50.2"} if computes else None)
    assert not any("packages" in stage.spec for stage in none.stages)
    same = {stage for stage, key in keys(plan).items() if key == keys(another)[stage]}
    assert same == {stage for stage in keys(plan) if "/lora-r2/" not in stage}


def test_checkpointing_is_how_and_not_what(content: dict[str, Any], tmp_path: Path) -> None:
    """Only what is measured of it has another key."""
    before = plan_of(content, tmp_path)
    content["training"]["activation_checkpointing"] = True
    plan = plan_of(content, tmp_path)
    for stage in plan.stages:
        assert stage.activation_checkpointing == (stage.kind == "train")
        assert (keys(plan)[stage.id] == keys(before)[stage.id]) == (stage.kind != "profile")


def test_more_test_items_train_nothing_anew(content: dict[str, Any], tmp_path: Path) -> None:
    before = plan_of(content, tmp_path)
    content["tasks"][0]["num_test"] += 10
    plan, name = plan_of(content, tmp_path), content["tasks"][0]["name"]
    for stage in plan.stages:
        of_test_rows = stage.kind == "data" or stage.kind == "predict" and stage.spec["split"] == "test"
        same = keys(plan)[stage.id] == keys(before)[stage.id]
        assert same != (of_test_rows and stage.inputs.get("data", stage.id).endswith(f"/{name}")), stage.id
    described = json.loads(json.dumps(plan.describe()))
    assert plan.as_described(described).keys() == plan.keys()
    old = json.loads(json.dumps(before.describe()))
    assert plan.as_described(old).keys() == before.keys()


def test_matched_plasticity_needs_every_rate(content: dict[str, Any], tmp_path: Path) -> None:
    matched = {"left": "full", "right": "lora-r2", "task": "old", "learned": "new", "expect": "greater",
               "quantity": "forgetting-at-matched-plasticity"}
    content["hypotheses"] = [{"name": "H1", "statement": "Full forgets more.", "contrast": matched}]
    plan_of(content, tmp_path)
    with pytest.raises(UserError, match="needs lora-r2 at every learning rate, and evaluation.rates is 'chosen'"):
        plan_of({**content, "evaluation": {"rates": "chosen"}}, tmp_path)


def test_a_control_that_is_in_the_grid_is_not_run_twice(content: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_of(content, tmp_path)  # ten times full's centre, 0.001, is its other rate
    trained = {stage.id for stage in plan.stages if stage.kind == "train"}
    assert len(trained) == 2 * 2 * 2 + 2  # the positive control is shared, the A/A control is not
    control = next(cell for cell in plan.cells if cell.role == "positive control")
    assert control.phases[0].train in trained


def test_paths_are_not_identity(content: dict[str, Any], tmp_path: Path) -> None:
    first = keys(plan_of(content, tmp_path))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("model", "new.txt", "old.txt"):
        (tmp_path / name).rename(moved / name)
    assert keys(plan_of(content, moved)) == first


def test_what_changes_the_result_changes_the_key(content: dict[str, Any], tmp_path: Path) -> None:
    before = plan_of(content, tmp_path)
    (tmp_path / "new.txt").write_text((tmp_path / "new.txt").read_text() + "<|endoftext|>w1 w2 w3")
    after = keys(plan_of(content, tmp_path))
    for stage in before.stages:
        uses_new = any("new" in str(source) for source in stage.inputs.values()) or stage.id.endswith("/new")
        trained = "rate" in stage.id
        assert (keys(before)[stage.id] != after[stage.id]) == (uses_new or trained)
    two_threads = keys(plan_of(content, tmp_path, resolved=Resolved(threads=2)))
    assert {id_ for id_ in after if after[id_] == two_threads[id_]} == {"data/mine/new", "data/mine/old"}


def test_another_seed_adds_only_its_cells(content: dict[str, Any], tmp_path: Path) -> None:
    before, after = keys(plan_of(content, tmp_path)), keys(plan_of({**content, "seeds": 3}, tmp_path))
    assert {id_: after[id_] for id_ in before} == before
    assert all("seed-2" in id_ for id_ in set(after) - set(before))


def test_the_second_phase_waits_for_a_selection(content: dict[str, Any], tmp_path: Path) -> None:
    content["tasks"][1].pop("role")
    content["sequences"] = [["new", "old"]]
    content["controls"] = None
    plan = plan_of(content, tmp_path)
    second = [stage for stage in plan.stages if stage.kind == "train" and "phase-2" in stage.id]
    assert second and all(isinstance(stage.inputs["parent"], Chosen) for stage in second)
    assert all(keys(plan)[stage.id] is None for stage in second)
    resolved = plan.keys(lambda select, key: "0.001" if "full" in select else "0.01")
    assert all(key is not None for key in resolved.values())
    other = plan.keys(lambda select, key: "0.01" if "full" in select else "0.1")
    assert all(resolved[stage.id] != other[stage.id] for stage in second)


@pytest.mark.parametrize(("change", "said"), [
    ({"training": {"budget": "1 steps", "sequence_length": 65}}, "positions for 64 tokens"),
    ({"arms": [{"name": "a", "components": "lora:rank=33", "learning_rates": [1.0]}], "controls": None,
      "hypotheses": []}, "33"),
    ({"arms": [{"name": "a", "components": "lora:targets=[c_atn]", "learning_rates": [1.0]}], "controls": None,
      "hypotheses": []}, "c_atn"),
    ({"tasks": [{"name": "p", "task": "pydoc-summary", "max_new_tokens": 32}],
      "controls": None, "hypotheses": []}, "max_new_tokens is 32, which leaves no room for a prompt in 32 tokens"),
    ({"evaluation": {"splits": ["test"]}}, "evaluation.splits leaves out 'val', whose losses choose among the learning rates of"),
    ({"bases": ["tiny-gpd"]}, "tiny-gp"),
    ({"bases": [{"name": "x", "source": "./nothing"}]}, "no folder"),
])
def test_what_cannot_run_is_refused(content: dict[str, Any], tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_of({**content, **change}, tmp_path)


def test_weights_that_are_pickled_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        plan_of(content, tmp_path)


def test_a_thousand_cells_are_planned_quickly(content: dict[str, Any], tmp_path: Path) -> None:
    content["seeds"] = 250
    assert len(plan_of(content, tmp_path).cells) == 1 + 250 * 6
