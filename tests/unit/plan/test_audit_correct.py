"""Correct designs, the built-in studies included: no rule fires. (A note is a fact to know, not a fault.)

The data of the built-in studies are audited by `python tests/validate/built_in_data.py`: they take minutes to make.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_designs import audited, fair_content, fair_files, files_of, fired, pairs, write_rows

from finetrial.cli.study import built_in_studies
from finetrial.plan.audit import audit, audit_plan
from finetrial.plan.build import build
from finetrial.plan.matched import matched_untimed

RATES, LOW = [1e-3, 3e-3, 1e-2], [1e-4, 3e-4, 1e-3]
NEW, OLD = fair_content()["tasks"]
MORE = {"name": "more", "task": {"kind": "prompt-completion", **files_of("more")}, "num_val": 20, "num_test": 60}
LEARNED_TEXT = {**OLD, "role": "learn"}
ALONE: dict[str, Any] = {"controls": None, "hypotheses": []}
STEPS = {"budget": "60 steps", "sequence_length": 256, "batch_sequences": 4}


def arm(name: str, components: Any, rates: list[float] = RATES, **more: Any) -> dict[str, Any]:
    return {"name": name, "components": components, "learning_rates": rates, **more}


def along(name: str, first: Any, then: Any, **more: Any) -> dict[str, Any]:
    return arm(name, {"new": [first], "more": [then]}, **more)


def claim(**contrast: Any) -> list[dict[str, Any]]:
    return [{"name": "H", "statement": "?", "contrast": contrast}]


def merged(method: str) -> dict[str, Any]:
    return {"method": method, "carry": "merge"}


FULL, LORA = arm("full", "full", LOW), arm("lora", "lora")
TWO_TASKS: dict[str, Any] = {"tasks": [NEW, MORE, OLD], "sequences": [["new", "more"]], **ALONE}
CROSSED = [along(f"{first}-{then}", first, merged(then)) for first in ("full", "lora") for then in ("full", "lora")]
FORGETS: dict[str, Any] = {"left": "lora", "right": "full", "quantity": "forgetting", "task": "new", "expect": "less"}

DESIGNS: dict[str, dict[str, Any]] = {
    "two arms with controls": {},
    "three seeds": {"seeds": 3},
    "no controls and no hypotheses": ALONE,
    "rank as a factor": {"arms": [arm(f"r{rank}", f"lora:rank={rank}") for rank in (2, 8, 32)], "factors": ["rank"],
                         **ALONE},
    "rows as a factor at equal steps": {"arms": [arm(f"n{rows}", "lora", num_train=rows) for rows in (30, 100)],
                                        "factors": ["num_train"], **ALONE},
    "rank crossed with rows, as levels": {
        "arms": [arm(f"r{rank}-n{rows}", f"lora:rank={rank}", num_train=rows,
                     factors={"rank": rank, "num_train": rows}) for rank in (2, 8) for rows in (30, 100)], **ALONE},
    "targets as a factor": {"arms": [arm("few", "lora"), arm("all", "lora:targets=all-linear")], **ALONE},
    "batch as a factor at equal steps": {
        "arms": [arm("small", "full"), arm("large", "full", training={**STEPS, "batch_sequences": 8})],
        "factors": ["batch_sequences"], **ALONE},
    "batch as a factor at equal tokens": {
        "arms": [arm("small", "full", training={**STEPS, "budget": "40k tokens"}),
                 arm("large", "full", training={**STEPS, "budget": "40k tokens", "batch_sequences": 8})],
        "factors": ["batch_sequences", "updates"], **ALONE},
    "epochs for all arms": {"training": {**STEPS, "budget": "3 epochs"}},
    "bf16 for all arms": {"training": {**STEPS, "precision": "bf16"}},
    "early stopping for all arms": {"training": {**STEPS, "early_stopping": 2}},
    "five rates each": {"arms": [arm("full", "full", [1e-5, 3e-5, 1e-4, 3e-4, 1e-3]),
                                 arm("lora", "lora", [1e-4, 3e-4, 1e-3, 3e-3, 1e-2])], **ALONE},
    "a new layer against LoRA": {"arms": [arm("layer", "layer"), LORA], **ALONE},
    "an old layer unfrozen": {"arms": [arm("unfreeze", "unfreeze:last=1", LOW), FULL], **ALONE},
    "2 x 2 of LoRA and layer": {
        "arms": [LORA, arm("layer", "layer"),
                 arm("both", [{"method": "lora", "slot": "one"}, {"method": "layer", "slot": "two"}]), FULL],
        "hypotheses": claim(left="both", right="lora", interaction=["layer", "full"], task="new"), "controls": None},
    "one method along two tasks": {**TWO_TASKS, "arms": [FULL, LORA], "hypotheses": claim(**FORGETS)},
    "methods crossed with positions": {**TWO_TASKS, "arms": CROSSED, "hypotheses": claim(
        left="full-lora", right="full-full", quantity="forgetting", task="new", expect="less")},
    "fresh parts judged where the newest answers": {
        **TWO_TASKS, "arms": [arm("lora", [{"method": "lora", "carry": "fresh"}]),
                              arm("layer", [{"method": "layer", "carry": "fresh"}])],
        "hypotheses": claim(**{**FORGETS, "right": "layer"}), "evaluation": {"routings": ["latest", "oracle"]}},
    "trained on, judged under oracle": {**TWO_TASKS, "arms": [FULL, LORA], "hypotheses": claim(
        **FORGETS, routing="oracle"), "evaluation": {"routings": ["latest", "oracle"]}},
    "an instructed base first": {
        **TWO_TASKS, "arms": [along(f"r{rank}", {"method": "full", "slot": "base"},
                                    {"method": f"lora:rank={rank}", "slot": "adapter"}) for rank in (2, 8)]},
    "single and joint controls": {**TWO_TASKS, "arms": [FULL, LORA], "controls": {
        "reference": "full", "single_task": True, "joint": True}},
    "both orders": {**TWO_TASKS, "arms": [FULL, LORA],
                    "sequences": [{"name": "ab", "tasks": ["new", "more"]}, {"name": "ba", "tasks": ["more", "new"]}]},
    "plain text learned": {"tasks": [LEARNED_TEXT], "arms": [FULL, LORA], **ALONE},
    "equivalence": {"hypotheses": claim(left="full", right="lora", task="new", expect="equal", margin=0.1)},
    "cost": {"hypotheses": claim(left="lora", right="full", quantity="cost", cost="peak_host_bytes", task="new",
                                 expect="less")},
    "splits made of one file": {"tasks": [{"name": "new", "task": {"kind": "prompt-completion", "path": "one.jsonl"},
                                           "num_val": 20, "num_test": 50}], **ALONE},
}
BUILT_IN = [(name, scale, size) for name, study in built_in_studies().items()
            for scale, sizes in study.sizes.items() for size in sizes]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fair_files(tmp_path_factory.mktemp("files"))
    write_rows(folder / "one.jsonl", [{**row, "cluster": f"group {at // 4}"}
                                      for at, row in enumerate(pairs(700, seed=90))])
    return folder


@pytest.mark.parametrize("name", DESIGNS)
def test_a_correct_design_raises_nothing(name: str, files: Path) -> None:
    assert fired(audited(fair_content(**DESIGNS[name]), files)) == set()


@pytest.mark.parametrize(("name", "scale", "size"), BUILT_IN)
def test_a_built_in_study_raises_nothing(name: str, scale: str, size: str) -> None:
    study = built_in_studies()[name]().study(scale, size)
    untuned = {("unequal-tuning", "warning")}  # the published rates, one each, and the studies say so
    assert fired(audit(study)) == (untuned if size == "published-budget" else set())
    if scale == "embedded":
        study = matched_untimed(study)
        assert fired(audit_plan(study, build(study))) == set()


def test_there_are_enough_of_them() -> None:
    assert len(DESIGNS) >= 20 and len(BUILT_IN) >= 5
