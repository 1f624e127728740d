"""The five designs as they were published, as plain study files: which rules fire on each.

What a design did outside its specification (sampling with one seed, memory read in one process, a metric that failed
without a word, padding in the loss) cannot be said in a study file: the rules for it are tested where the property can
be seen, in test_audit_plan, test_audit_data and test_audit_records.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_designs import documents, fired, pairs, prepared, write_rows, write_text

from finetrial.errors import UserError
from finetrial.plan.audit import audit, audit_data, audit_plan, refuse
from finetrial.plan.build import build
from finetrial.records.results import AuditFinding
from finetrial.spec.io import parse_study, read_study

DESIGNS = Path(__file__).parents[2] / "as_published"
FIRED = {
    "plasticity-stability": {("method-tied-to-position", "threat"), ("few-seeds", "warning")},
    "rank-low-data": {("double-wrapping", "threat"), ("truncated-cues", "threat"), ("few-items", "warning"),
                      ("few-seeds", "warning"), ("unequal-tuning", "warning"), ("prompt-in-scored-text", "warning")},
    "lora-vs-layer": {("zero-by-construction", "threat"), ("target-in-input", "threat"),
                      ("undeclared-difference", "threat"), ("few-seeds", "warning"), ("unequal-tuning", "warning")},
    "hybrid": {("few-seeds", "warning"), ("unequal-tuning", "warning")},
    "perplexity": {("undeclared-difference", "threat"), ("held-out-rows-in-training", "warning"),
                   ("target-patterns", "warning"), ("few-seeds", "warning"), ("unequal-tuning", "warning")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The designs, and data of the kind they used."""
    folder = tmp_path_factory.mktemp("designs")
    for path in DESIGNS.glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    counts = {"": 120, "-val": 20, "-test": 60}
    for number, (name, prompt) in enumerate({"chat": "User: {}\nAssistant:", "news": "Text: {}\nSummary:",
                                             "code": "# {}\n", "script": "// {}\n"}.items()):
        for part, (suffix, count) in enumerate(counts.items()):
            write_rows(folder / f"{name}{suffix}.jsonl", pairs(count, seed=100 * number + part, prompt=prompt))
    _articles(folder)
    for number, name in enumerate(("python", "javascript")):  # inputs are their own labels
        for part, (suffix, count) in enumerate(counts.items()):
            texts = documents(count, seed=700 + 10 * number + part)
            write_rows(folder / f"{name}{suffix}.jsonl", [{"prompt": text, "completion": f"\n{text}"} for text in texts])
    replies = pairs(140, seed=800, prompt="User: {}\nAssistant:", length=15)
    write_rows(folder / "replies.jsonl", replies)
    write_rows(folder / "replies-head.jsonl", replies[:60])  # held out: the first rows of the training set
    write_rows(folder / "replies-val.jsonl", pairs(20, seed=801, prompt="User: {}\nAssistant:", length=15))
    return folder


def _articles(folder: Path) -> None:
    """Articles with summaries: trained on as one text, asked for with a cue that long articles lose."""
    prompt = "{}\nSummary in brief:"
    for part, (suffix, count) in enumerate({"": 100, "-val": 20, "-test": 60}.items()):
        rows = pairs(count, seed=500 + part, prompt=prompt, length=60)
        write_text(folder / f"articles{suffix}.txt", [row["prompt"] + row["completion"] for row in rows])
    for part, (suffix, count) in enumerate({"": 20, "-val": 10, "-test": 10}.items()):
        long = pairs(count // 2, seed=600 + part, prompt=prompt, length=300)
        short = pairs(count - count // 2, seed=650 + part, prompt=prompt)
        write_rows(folder / f"summaries{suffix}.jsonl", long + short)


def findings(name: str, folder: Path) -> list[AuditFinding]:
    study = read_study(folder / f"{name}.yaml")
    plan, lookup = prepared(study, folder)
    return [*audit(study), *audit_plan(study, plan), *audit_data(study, plan, lookup)]


@pytest.mark.parametrize("name", FIRED)
def test_the_rules_that_fire(name: str, folder: Path) -> None:
    assert fired(findings(name, folder)) == FIRED[name]


def test_every_design_has_its_file() -> None:
    assert {path.stem for path in DESIGNS.glob("*.yaml")} == set(FIRED)


def test_a_confounded_design_is_refused_unless_its_threats_are_accepted(folder: Path) -> None:
    found = findings("lora-vs-layer", folder)
    with pytest.raises(UserError, match="--accept-threat zero-by-construction"):
        refuse(found)
    refuse([row.model_copy(update={"accepted": True}) for row in found])


def test_target_names_that_match_nothing_are_refused_when_planned(folder: Path) -> None:
    """The published LoRA named layers that its model does not have, and trained what was left."""
    study = read_study(folder / "lora-vs-layer.yaml")
    content = study.identity()
    for components in content["arms"][0]["components"].values():
        components[0]["method"]["targets"] = ["c_attn", "q_proj", "wi_0"]
    with pytest.raises(UserError, match="q_proj"):
        build(parse_study(content, "as published"), relative_to=folder)
