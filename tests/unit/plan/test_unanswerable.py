"""Comparisons that nothing could answer are refused before anything is trained."""

from __future__ import annotations

import re
from typing import Any

import pytest

from finetrial.plan.unanswerable import unanswerable
from finetrial.spec import Study
from finetrial.spec.hypothesis import MATCHED


def told(sequence: tuple[str, ...] = ("new",), evaluate: tuple[str, ...] = (), **contrast: Any) -> list[str]:
    """What is said of one comparison along a sequence; `old` is never trained on, `code` makes outputs."""
    return unanswerable(Study(
        name="s", question="?", bases=["tiny-gpt"], training={"budget": "40 steps"},
        tasks=[{"name": "new", "task": "pydoc-chat"}, {"name": "code", "task": "pycode"},
               {"name": "old", "task": "python-text", "role": "outside"}],
        arms=[{"name": name, "components": part, "learning_rates": [1e-3]} for name, part in (("full", "full"), ("lora", "lora"))],
        sequences=[{"name": "path", "tasks": sequence, "evaluate": evaluate}],
        hypotheses=[{"name": "H", "statement": "s", "contrast": {"left": "lora", "right": "full", **contrast}}]))


@pytest.mark.parametrize("contrast", [
    {"task": "new"}, {"task": "code", "right": "floor:copy"}, {"task": "code", "right": "floor:copy", "metric": "bleu"},
    {"quantity": MATCHED, "task": "old", "learned": "new"}, {"quantity": "forgetting", "task": "old"},
    {"quantity": MATCHED, "task": "old", "learned": "old"},
    {"quantity": "plasticity", "task": "new"}, {"quantity": "drift"},
    {"quantity": "learning-rate-ratio"}, {"quantity": "cost", "cost": "params_trainable"}])
def test_what_can_be_answered_is_not_refused(contrast: dict[str, Any]) -> None:
    assert told(**contrast) == []


@pytest.mark.parametrize(("contrast", "said"), [
    ({"quantity": MATCHED, "task": "new", "learned": "old"}, "forgetting of new is not defined: .* swapped"),
    ({"quantity": MATCHED, "task": "new", "learned": "new"}, "forgetting of new is not defined: .* swapped"),
    ({"quantity": "forgetting", "task": "new"}, "hypothesis H: forgetting of new is not defined: the sequence learns new"),
    ({"quantity": "plasticity", "task": "old"}, "plasticity of old is not defined"),
    ({"quantity": "backward-transfer"}, "backward-transfer of all tasks is not defined"),
    ({"task": "new", "right": "floor:copy"}, "floor:copy is scored beside outputs, and nats-per-token of new reads none; new makes none"),
    ({"task": "code", "right": "floor:copy", "metric": "nats-per-token"}, "name a metric that does: chrf"),
    ({"task": "old", "evaluate": ("new",)}, "old is not scored along the sequence path, which evaluates new")])
def test_what_nothing_could_answer_is_named(contrast: dict[str, Any], said: str) -> None:
    found, = told(**contrast)
    assert re.search(said, found)


def test_two_phases_have_transfer_and_forgetting() -> None:
    assert told(("new", "code"), quantity="backward-transfer") == told(("new", "code"), quantity="forgetting", task="new") == []
    assert told(("new", "code"), quantity=MATCHED, task="new", learned="code") == []
    assert told(("new", "code"), quantity="forgetting", task="code") != []
