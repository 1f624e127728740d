"""Rules that look at the study as written; each with the fault planted, and a near-miss that must not fire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetrial import catalog
from finetrial.analysis.power import detectable_effect
from finetrial.errors import AuditError, UserError
from finetrial.plan.audit import audit, refuse
from finetrial.plan.audit.few_seeds import DETECTABLE
from finetrial.spec import Study
from finetrial.spec.io import parse_study

PATH = [["a", "b"]]
TWO_TASKS = [{"name": "a", "task": "pydoc-chat"}, {"name": "b", "task": "python-text"}]


def study(arms: list[dict[str, Any]], **changes: Any) -> Study:
    return parse_study({"name": "s", "question": "?", "bases": ["tiny-gpt"],
                        "tasks": [{"name": "new", "task": "pydoc-chat"}], "arms": arms, "seeds": 5,
                        "training": {"budget": "40 steps"}, **changes}, "study")


def arm(name: str, *rates: float, components: Any = "full", **training: Any) -> dict[str, Any]:
    own = {"training": {"budget": "40 steps", **training}} if training else {}
    return {"name": name, "components": components, "learning_rates": list(rates or (1e-3, 1e-4)), **own}


def found(made: Study) -> set[tuple[str, str]]:
    return {(finding.rule, finding.severity) for finding in audit(made)}


def said(made: Study, rule: str) -> str:
    return " | ".join(finding.message for finding in audit(made) if finding.rule == rule)


def test_every_rule_looks_somewhere_and_says_at_what() -> None:
    for name in catalog.names("rule"):
        rule = catalog.find("rule", name)
        assert rule.looks_at(), f"{name} overrides no method"  # type: ignore[attr-defined]
        assert rule.summary, f"{name} has no summary"  # type: ignore[attr-defined]


def test_equal_arms_raise_nothing() -> None:
    made = study([arm("a", 1e-3, 1e-4), arm("b", 1e-2, 1e-3)])
    assert found(made) == set()
    refuse(audit(made))


def test_unequal_tuning_is_a_threat_until_accepted() -> None:
    made = study([arm("a", 1e-3), arm("b", 1e-2, 1e-3)])
    assert ("unequal-tuning", "threat") in found(made)
    with pytest.raises(AuditError, match="--accept-threat unequal-tuning"):
        refuse(audit(made))
    accepted = audit(made.model_copy(update={"accept_threats": ("unequal_tuning",)}))
    refuse(accepted)
    assert accepted[0].accepted


def test_one_rate_for_every_arm_is_a_warning() -> None:
    assert found(study([arm("a", 1e-3), arm("b", 1e-2)])) == {("unequal-tuning", "warning")}


def test_tuning_is_counted_for_each_phase() -> None:
    arms = [arm("a") | {"learning_rates_for": {"b": [1e-3]}}, arm("b")]
    made = study(arms, tasks=TWO_TASKS, sequences=PATH)
    assert "for b: a 1, b 2" in said(made, "unequal-tuning")
    both = [one | {"learning_rates_for": {"b": [1e-3]}} for one in arms]
    assert found(study(both, tasks=TWO_TASKS, sequences=PATH)) == set()


@pytest.mark.parametrize("change", [{"batch_sequences": 64}, {"sequence_length": 128}, {"budget": "80 steps"},
                                    {"precision": "bf16"}, {"packing": False}, {"schedule": "linear"}])
def test_a_difference_must_be_declared(change: dict[str, Any]) -> None:
    arms = [arm("a"), arm("b", **change)]
    option = next(iter(change))
    assert found(study(arms)) == {("undeclared-difference", "threat")}
    assert len(audit(study(arms))) == 1, "one cause is one finding"
    assert found(study(arms, factors=["method", option])) == set()
    assert found(study(arms, factors=["method", "training"])) == set()


def test_a_quantised_base_is_a_factor_and_told() -> None:
    arms = [arm("a", components="lora"), arm("b", components="lora") | {"quantization": "nf4"}]
    assert "a has quantization none, b has nf4" in said(study(arms), "undeclared-difference")
    declared = study(arms, factors=["method", "quantization"])
    assert found(declared) == {("quantized-base", "note")}
    assert "b (nf4)" in said(declared, "quantized-base")


def test_how_a_result_is_computed_is_no_difference() -> None:
    assert found(study([arm("a"), arm("b", activation_checkpointing=True)])) == set()


def test_training_rows_are_a_factor() -> None:
    arms = [arm("a") | {"num_train": 100}, arm("b") | {"num_train": 300}]
    assert "num_train" in said(study(arms), "undeclared-difference")
    assert found(study(arms, factors=["method", "num_train"])) == set()
    levels = [one | {"factors": {"num_train": one["num_train"]}} for one in arms]
    assert found(study(levels)) == set(), "a level that every arm gives declares the factor"
    assert found(study([levels[0], arms[1]])) == {("undeclared-difference", "threat")}


def test_updates_that_follow_from_a_factor_are_told() -> None:
    arms = [arm("a", budget="2 epochs") | {"num_train": 100}, arm("b", budget="2 epochs") | {"num_train": 300}]
    declared = study(arms, factors=["method", "num_train"])
    assert "updates" in said(declared, "undeclared-difference")
    assert found(study(arms, factors=["method", "num_train", "updates"])) == set()
    tokens = [arm("a", budget="4k tokens"), arm("b", budget="4k tokens", batch_sequences=64)]
    assert "updates" in said(study(tokens, factors=["method", "batch_sequences"]), "undeclared-difference")


def test_options_of_one_method_belong_to_the_method_or_are_factors() -> None:
    arms = [arm("a", components="lora:rank=2"), arm("b", components="lora:rank=8,dropout=0.1")]
    assert found(study(arms)) == set()  # the factor is the method
    assert "lora.dropout" in said(study(arms, factors=["rank"]), "undeclared-difference")
    assert found(study(arms, factors=["rank", "dropout"])) == set()


def test_few_seeds_are_told() -> None:
    arms = [arm("a", 1e-3, 1e-4)]
    assert found(study(arms, seeds=2)) == {("few-seeds", "warning")}
    assert found(study(arms, seeds=3)) == {("few-seeds", "note")}
    for seeds, shown in ((3, 3.3), (4, 2.1)):
        assert round(detectable_effect(seeds ** -0.5, seeds - 1), 1) == DETECTABLE[seeds] == shown
        assert said(study(arms, seeds=seeds), "few-seeds").startswith(
            f"{seeds} seeds can show only differences of about {shown} standard deviations between seeds; 5 would show 1.7")
    assert round(detectable_effect(5 ** -0.5, 4), 1) == DETECTABLE[5]


def test_few_items_are_told() -> None:
    few, enough = ([{"name": "new", "task": "pydoc-chat", "num_test": count}] for count in (10, 50))
    assert found(study([arm("a")], tasks=few)) == {("few-items", "warning")}
    assert found(study([arm("a")], tasks=enough)) == set()


def path_arm(name: str, first: str, then: str, carry: str = "merge") -> dict[str, Any]:
    return arm(name, components={"a": [{"method": first}], "b": [{"method": then, "carry": carry}]})


def test_one_path_ties_the_method_to_the_position() -> None:
    made = study([path_arm("x", "full", "lora")], tasks=TWO_TASKS, sequences=PATH)
    assert found(made) == {("method-tied-to-position", "threat")}
    assert "x trains a by full and b by lora" in said(made, "method-tied-to-position")


def test_a_method_that_another_sequence_begins_with_is_not_tied() -> None:
    """As where one sequence instructs the base before it learns the task, and another does not."""
    made = study([path_arm("x", "full", "lora")], tasks=TWO_TASKS,
                 sequences=[{"name": "plain", "tasks": ["b"]}, {"name": "after", "tasks": ["a", "b"]}])
    assert not said(made, "method-tied-to-position")


@pytest.mark.parametrize("arms", [
    [path_arm("x", "full", "lora"), path_arm("y", "full", "full", "continue")],
    [path_arm("x", "full", "lora"), path_arm("y", "full", "lora:rank=2")],
    [arm("x", components="full"), arm("y", components="lora")],
    [arm("x", components="lora")],
    [arm("x", components={"a": ["lora", {"slot": "other", "method": "full"}],
                          "b": ["lora", {"slot": "other", "carry": "freeze"}]})]])
def test_crossed_or_constant_methods_are_not_tied(arms: list[dict[str, Any]]) -> None:
    made = study(arms, tasks=TWO_TASKS, sequences=PATH)
    assert not said(made, "method-tied-to-position")


def forgetting(routing: str, **more: Any) -> list[dict[str, Any]]:
    contrast = {"left": "x", "right": "y", "quantity": "forgetting", "task": "a", "routing": routing, **more}
    return [{"name": "H", "statement": "?", "contrast": contrast}]


def swapped(name: str, method: str = "lora") -> dict[str, Any]:
    return arm(name, components={"a": [{"method": method}], "b": [{"method": method, "carry": "fresh"}]})


def routed(arms: list[dict[str, Any]], hypotheses: list[dict[str, Any]]) -> Study:
    return study(arms, tasks=TWO_TASKS, sequences=PATH, hypotheses=hypotheses,
                 evaluation={"routings": ["latest", "oracle"]})


def test_swapped_components_forget_nothing_by_construction() -> None:
    both = [swapped("x"), swapped("y", "lora:rank=2")]
    assert ("zero-by-construction", "threat") in found(routed(both, forgetting("oracle")))
    assert not said(routed(both, forgetting("latest")), "zero-by-construction")
    assert not said(routed(both, forgetting("oracle", phase=1)), "zero-by-construction")  # nothing later yet
    other = [{"name": "H", "statement": "?", "contrast": {"left": "x", "right": "y", "task": "a", "routing": "oracle"}}]
    assert not said(routed(both, other), "zero-by-construction")  # a score is not forgetting


def test_one_swapped_side_is_a_warning_and_a_continued_one_is_none() -> None:
    one = [swapped("x"), arm("y", components="lora")]
    assert ("zero-by-construction", "warning") in found(routed(one, forgetting("oracle")))
    none = [arm("x", components="full"), arm("y", components="lora")]
    assert not said(routed(none, forgetting("oracle")), "zero-by-construction")


def test_carries_that_contradict_are_left_to_the_planner() -> None:
    broken = [arm("x", components={"a": ["lora:rank=2"], "b": ["lora:rank=4"]}), arm("y", components="lora")]
    assert not said(routed(broken, forgetting("oracle")), "zero-by-construction")


def test_text_from_outside_that_is_learned() -> None:
    text = {"kind": "text", "path": "a.txt"}
    def made(**outside: Any) -> Study:
        return study([arm("a")], tasks=[{"name": "new", "task": text}, {"name": "old", "role": "outside", "task": text, **outside}])

    def asked(task: str) -> Study:
        contrast = {"left": "a", "right": "base", "task": task}
        return made().model_copy(update={"hypotheses": study([arm("a")], tasks=[
            {"name": name, "task": text} for name in ("new", "old")], hypotheses=[
                {"name": "H1", "statement": "s", "contrast": contrast}]).hypotheses})

    finding = ("learned-as-outside", "note")
    assert finding in found(asked("new")) and finding not in found(asked("old"))  # there for its score
    assert found(made()) == {finding} == found(made(num_test=300))
    assert found(made(task={**text, "path": "b.txt"})) == set()
    assert finding not in found(made(flaws={"test_rows_from_training": True}))


def test_one_file_for_two_splits() -> None:
    task = {"kind": "text", "train": "a.txt", "val": "b.txt", "test": "./a.txt"}
    made = study([arm("a")], tasks=[{"name": "new", "task": task}])
    assert found(made) == {("held-out-rows-in-training", "threat")}
    assert found(study([arm("a")], tasks=[{"name": "new", "task": {**task, "test": "c.txt"}}])) == set()


def test_an_unknown_threat_cannot_be_accepted() -> None:
    with pytest.raises(UserError, match="did you mean 'unequal-tuning'"):
        audit(study([arm("a", 1e-3)], accept_threats=["unequal-tunning"]))


def test_the_docs_list_every_rule_with_its_moments() -> None:
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    for name in catalog.names("rule"):
        moments = ", ".join(catalog.find("rule", name).looks_at())  # type: ignore[attr-defined]
        assert f"| `{name}` | {moments} |" in page
