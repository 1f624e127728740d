from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tiny_study import tiny_content

from finetrial.errors import SpecError, UserError
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.plan.audit import audit
from finetrial.plan.bases import resolve_base
from finetrial.plan.build import build
from finetrial.plan.forecast.operations import training_operations
from finetrial.plan.forecast.shapes import read_shapes
from finetrial.plan.forecast.trained import trained_by
from finetrial.plan.matched import matched, matched_untimed, without_open_matches
from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.spec.io import parse_study, study_yaml
from finetrial.spec.study import Study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Any]:
    return tiny_content(folder)


@pytest.fixture
def content(made: dict[str, Any]) -> dict[str, Any]:
    """Arms `full`, `lora-r2` and `layer`; `matched` is added by the tests."""
    content = copy.deepcopy(made)
    content["arms"].append({"name": "layer", "components": "layer:count=2", "learning_rates": [0.01]})
    return content


def with_arm(content: dict[str, Any], match: dict[str, Any], components: Any = "lora:targets=all-linear",
             **more: Any) -> Study:
    arm = {"name": "matched", "components": components, "learning_rates": [0.01], "match": match, **more}
    return parse_study({**content, "arms": [*content["arms"], arm]}, "study")


def no_records(plan: Plan) -> Mapping[str, Any]:
    raise AssertionError("nothing is measured for this match")


def profiles(**speeds: float) -> Any:
    """Records in which a step of each arm takes so many seconds, and a token a hundredth of it."""

    def of(plan: Plan) -> Mapping[str, Any]:
        held = {}
        for (_, arm, _), stages in plan.profiles.items():
            for place, stage in enumerate(stages if arm in speeds else ()):
                seconds = speeds[arm] * (1 + 0.1 * (place % 2))
                values = {"step_seconds": seconds, "tokens_per_second": 100 / seconds}
                held[stage] = SimpleNamespace(record=SimpleNamespace(outcome=Outcome.OK, values=values))
        return held

    return of


def test_the_rank_is_solved_for(content: dict[str, Any], folder: Path) -> None:
    study = with_arm(content, {"arm": "layer", "option": "rank"}, label="LoRA r={value}")
    solved = matched(study, recorded=no_records, relative_to=folder)
    config = resolve_base(study.bases[0], folder).config
    arm, target = solved.arm("matched"), Layer(count=2).count_trainable(config)
    method, = arm.trained_methods("new")
    assert isinstance(method, Lora) and arm.match.solved.value == method.rank
    assert arm.match.solved.own == {"mine": method.count_trainable(config)}
    assert arm.match.solved.other == {"mine": target}
    assert abs(arm.match.solved.off("mine")) <= 0.02
    assert arm.title == f"LoRA r={method.rank}" and study.arm("matched").title == "LoRA r=?"
    assert f"to layer on parameters: rank {method.rank}, " in arm.match.sentence


def test_the_documented_study_can_be_written(made: dict[str, Any], folder: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "matched-budgets.md").read_text(encoding="utf-8")
    arms = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])["arms"]
    study = parse_study({**made, "arms": [*made["arms"], *arms]}, "docs")
    solved = matched(study, recorded=no_records, relative_to=folder)
    assert solved.arm("lora-matched").match.solved.other["mine"] > 0


def test_what_was_solved_is_written_and_not_solved_again(content: dict[str, Any], folder: Path) -> None:
    study = with_arm(content, {"arm": "layer", "option": "rank"})
    solved = matched(study, recorded=no_records, relative_to=folder)
    assert parse_study(yaml.safe_load(study_yaml(solved)), "study.yaml") == solved
    assert matched(solved, recorded=no_records, relative_to=folder) is solved


def test_a_solution_that_does_not_hold_any_more_is_refused(content: dict[str, Any], folder: Path) -> None:
    solved = matched(with_arm(content, {"arm": "layer", "option": "rank"}), recorded=no_records, relative_to=folder)
    written = yaml.safe_load(study_yaml(solved))
    [layer] = [arm for arm in written["arms"] if arm["name"] == "layer"]
    layer["components"] = "layer:count=1"
    with pytest.raises(SpecError, match="solved with rank .*, and the arms have changed since; remove `solved`"):
        matched(parse_study(written, "study.yaml"), recorded=no_records, relative_to=folder)


def test_an_arm_whose_rank_was_solved_is_the_arm_that_names_it(content: dict[str, Any], folder: Path) -> None:
    solved = matched(with_arm(content, {"arm": "layer", "option": "rank"}), recorded=no_records, relative_to=folder)
    rank = solved.arm("matched").match.solved.value
    by_hand = with_arm(content, None, components=f"lora:rank={rank},targets=all-linear")
    assert build(solved, relative_to=folder).keys() == build(by_hand, relative_to=folder).keys()


def test_where_no_value_is_near_both_neighbours_are_arms(content: dict[str, Any], folder: Path) -> None:
    content["arms"].append({"name": "narrow", "components": "layer:inner=3", "learning_rates": [0.01]})
    study = with_arm(content, {"arm": "narrow", "option": "rank"})
    solved = matched(study, recorded=no_records, relative_to=folder)
    names = [arm.name for arm in solved.arms]
    near = solved.arm("matched").match.solved
    other_name, = set(names) - {arm.name for arm in study.arms}
    other = solved.arm(other_name).match.solved
    assert names.index(other_name) == names.index("matched") + 1
    assert 0.02 < abs(near.off("mine")) < abs(other.off("mine")) and near.off("mine") * other.off("mine") < 0
    assert other_name == ("matched-below" if other.off("mine") < 0 else "matched-above")
    assert abs(near.value - other.value) == 1
    assert solved.arm(other_name).title == f"matched (rank {other.value})"
    build(solved, relative_to=folder)


def test_what_stands_beside_counts(content: dict[str, Any], folder: Path) -> None:
    both = [{"method": "layer:inner=8", "slot": "block"}, {"method": "lora:targets=all-linear", "slot": "adapter"}]
    solved = matched(with_arm(content, {"arm": "layer", "option": "rank"}, components=both), recorded=no_records,
                     relative_to=folder)
    config = resolve_base(solved.bases[0], folder).config
    arm = solved.arm("matched")
    assert sum(one.count_trainable(config) for one in arm.trained_methods("new")) == arm.match.solved.own["mine"]
    assert abs(arm.match.solved.off("mine")) <= 0.02


def test_tokens(content: dict[str, Any], folder: Path) -> None:
    content["training"]["budget"] = "600 tokens"
    longer = {**content["training"], "budget": "20 steps", "batch_sequences": 2}
    study = with_arm(content, {"arm": "full", "quantity": "tokens"}, training=longer)
    solved = matched(study, recorded=no_records, relative_to=folder)
    assert str(solved.training_of(solved.arm("matched")).budget) == "600 tokens"
    assert solved.training_of(solved.arm("matched")).batch_sequences == 2
    assert solved.arm("matched").match.solved.own == solved.arm("matched").match.solved.other == {"mine": 600}
    like_the_study = with_arm(content, {"arm": "full", "quantity": "tokens"})
    assert matched(like_the_study, recorded=no_records, relative_to=folder).arm("matched").training is None


def test_operations(content: dict[str, Any], folder: Path) -> None:
    content["training"]["budget"] = "120 steps"
    solved = matched(with_arm(content, {"arm": "full", "quantity": "flops"}), recorded=no_records, relative_to=folder)
    config = resolve_base(solved.bases[0], folder).config
    shapes = read_shapes(config)

    def operations(name: str) -> float:
        arm = solved.arm(name)
        steps = solved.training_of(arm).budget.amount
        trained = trained_by(arm.trained_methods("new"), shapes, config)
        return training_operations(shapes, trained, steps * 4 * 32, 32)

    assert solved.training_of(solved.arm("matched")).budget.amount > 120  # the base's own gradients are not computed
    assert operations("matched") == pytest.approx(operations("full"), rel=0.02)
    assert solved.arm("matched").match.solved.own["mine"] == pytest.approx(operations("matched"), rel=1e-5)
    assert not [row for row in audit(solved) if row.rule == "undeclared-difference"]


def test_few_steps_cannot_be_matched_nearly(content: dict[str, Any], folder: Path) -> None:
    content["training"]["budget"] = "2 steps"
    solved = matched(with_arm(content, {"arm": "full", "quantity": "flops"}), recorded=no_records, relative_to=folder)
    budgets = {arm.name: arm.match.solved.value for arm in solved.arms if arm.match}
    assert len(budgets) == 2 and abs(budgets["matched"] - next(
        value for name, value in budgets.items() if name != "matched")) == 1


def test_training_time_is_solved_from_profiles(content: dict[str, Any], folder: Path) -> None:
    content["training"]["budget"] = "100 steps"
    study = with_arm(content, {"arm": "full", "quantity": "train_time"})
    solved = matched(study, recorded=profiles(full=0.3, matched=0.2), relative_to=folder)
    assert str(solved.training_of(solved.arm("matched")).budget) == "150 steps"
    found = solved.arm("matched").match.solved
    assert found.other["mine"] == pytest.approx(100 * 0.3, rel=0.02)
    in_tokens = {**content["training"], "budget": "5k tokens"}
    solved = matched(with_arm(content, {"arm": "full", "quantity": "train_time"}, training=in_tokens),
                     recorded=profiles(full=0.3, matched=0.2), relative_to=folder)
    assert str(solved.training_of(solved.arm("matched")).budget) == "15k tokens"


def test_a_profile_does_not_depend_on_the_budget_that_is_solved_from_it(content: dict[str, Any], folder: Path) -> None:
    study = with_arm(content, {"arm": "full", "quantity": "train_time"})
    before = build(without_open_matches(matched_untimed(study, relative_to=folder)), relative_to=folder)
    solved = matched(study, recorded=profiles(full=0.3, matched=0.2), relative_to=folder)
    after = build(solved, relative_to=folder)
    measured = before.profiles["mine", "matched", "new"]
    assert [before.keys()[stage] for stage in measured] == [after.keys()[stage] for stage in measured]


def test_without_profiles_the_error_names_the_command(content: dict[str, Any], folder: Path) -> None:
    study = with_arm(content, {"arm": "full", "quantity": "train_time"})
    with pytest.raises(UserError, match="none of matched on mine, new, is recorded.*\n.*finetrial profile tiny"):
        matched(study, recorded=profiles(full=0.3), relative_to=folder)


def test_several_bases_must_agree(content: dict[str, Any], folder: Path) -> None:
    content["bases"].append("tiny-gpt")
    content["hypotheses"] = []
    with pytest.raises(SpecError, match=r"each base needs a value of its own \(mine: .*; tiny-gpt: 96\)"):
        matched(with_arm(content, {"arm": "layer", "option": "rank"}), recorded=no_records, relative_to=folder)


@pytest.mark.parametrize(("match", "problem"), [
    ({"arm": "layer"}, "needs the option to solve for, such as option: rank"),
    ({"arm": "layer", "quantity": "flops", "option": "rank"}, "a match on flops solves for the arm's budget"),
    ({"arm": "layre", "quantity": "flops"}, "match: unknown arm 'layre'; did you mean 'layer'"),
    ({"arm": "matched", "quantity": "flops"}, "match: unknown arm 'matched'"),
    ({"arm": "layer", "quantity": "flop"}, "'flop'")])
def test_a_match_that_cannot_be_written(content: dict[str, Any], match: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        with_arm(content, match)


@pytest.mark.parametrize(("match", "problem"), [
    ({"arm": "layer", "option": "rnk"}, "match: unknown option 'rnk'; did you mean 'rank'"),
    ({"arm": "layer", "option": "rank", "slot": "adapter"}, "match: unknown slot 'adapter'"),
    ({"arm": "layer", "quantity": "tokens"}, "the budget of layer is 6 steps, and how many tokens that is depends on the data")])
def test_a_match_that_cannot_be_solved(content: dict[str, Any], folder: Path, match: dict[str, Any],
                                       problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        matched(with_arm(content, match), recorded=no_records, relative_to=folder)


def test_arms_that_are_matched_are_no_target(content: dict[str, Any]) -> None:
    content["arms"].append({"name": "second", "components": "lora", "learning_rates": [0.01],
                            "match": {"arm": "matched", "quantity": "flops"}})
    with pytest.raises(SpecError, match="second: match: matched is matched itself, to layer"):
        with_arm(content, {"arm": "layer", "option": "rank"})


def test_epochs_have_no_length_before_the_data(content: dict[str, Any], folder: Path) -> None:
    content["training"]["budget"] = "1 epochs"
    with pytest.raises(SpecError, match="the budget of matched is 1 epochs, whose length depends on the data"):
        matched(with_arm(content, {"arm": "full", "quantity": "flops"}), recorded=no_records, relative_to=folder)


def test_an_open_match_is_not_planned(content: dict[str, Any], folder: Path) -> None:
    with pytest.raises(SpecError, match="its match is not solved"):
        build(with_arm(content, {"arm": "layer", "option": "rank"}), relative_to=folder)
