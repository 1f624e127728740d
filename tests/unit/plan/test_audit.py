from typing import Any

import pytest

from finetrial.errors import AuditError, UserError
from finetrial.plan.audit import audit, refuse
from finetrial.spec import Study
from finetrial.spec.io import parse_study


def study(arms: list[dict[str, Any]], **changes: Any) -> Study:
    return parse_study({"name": "s", "question": "?", "bases": ["tiny-gpt"],
                        "tasks": [{"name": "new", "task": "pydoc-chat"}], "arms": arms, "seeds": 5,
                        "training": {"budget": "40 steps"}, **changes}, "study")


def arm(name: str, *rates: float, **training: Any) -> dict[str, Any]:
    own = {"training": {"budget": "40 steps", **training}} if training else {}
    return {"name": name, "components": "full", "learning_rates": list(rates), **own}


def found(made: Study) -> set[tuple[str, str]]:
    return {(finding.rule, finding.severity) for finding in audit(made)}


def test_equal_arms_raise_nothing() -> None:
    made = study([arm("a", 1e-3, 1e-4), arm("b", 1e-2, 1e-3)])
    assert found(made) == set()
    refuse(audit(made))


def test_unequal_tuning_is_a_threat_until_accepted() -> None:
    made = study([arm("a", 1e-3), arm("b", 1e-2, 1e-3)])
    assert ("unequal-tuning", "threat") in found(made)
    with pytest.raises(AuditError, match="--accept-threat unequal-tuning"):
        refuse(audit(made))
    accepted = audit(made, ["unequal_tuning"])
    refuse(accepted)
    assert accepted[0].accepted


def test_a_difference_must_be_declared() -> None:
    arms = [arm("a", 1e-3, 1e-4), arm("b", 1e-2, 1e-3, batch_sequences=64)]
    assert ("undeclared-difference", "threat") in found(study(arms))
    assert found(study(arms, factors=["method", "batch_sequences"])) == set()


def test_few_seeds_are_told() -> None:
    arms = [arm("a", 1e-3, 1e-4)]
    assert found(study(arms, seeds=2)) == {("few-seeds", "warning")}
    assert found(study(arms, seeds=3)) == {("few-seeds", "note")}


def test_an_unknown_threat_cannot_be_accepted() -> None:
    with pytest.raises(UserError, match="did you mean 'unequal-tuning'"):
        audit(study([arm("a", 1e-3)]), ["unequal-tunning"])
