"""Every published flaw of data is a threat that the audit sees in the rows, or at least a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_designs import audited, fair_content, fair_files, fired, pairs, write_rows

from finetrial.plan.audit import audit
from finetrial.spec.io import parse_study

SEEN = {"target_as_input": ("target-in-input", "threat"), "padding_scored": ("padding-trained-on", "threat"),
        "prompt_scored": ("prompt-in-scored-text", "warning"),
        "test_rows_from_training": ("held-out-rows-in-training", "threat"),
        "prompt_cut_on_the_right": ("truncated-cues", "threat")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fair_files(tmp_path_factory.mktemp("designs"))
    # some too long for 100 tokens
    for number, (split, count) in enumerate({"train": 120, "val": 20, "test": 60}.items()):
        rows = [row for half, length in enumerate((12, 60)) for row in pairs(count // 2, seed=40 + 2 * number + half,
                                                                            length=length)]
        write_rows(folder / f"long-{split}.jsonl", rows)
    return folder


def content(**flaws: Any) -> dict[str, Any]:
    made = fair_content()
    made["tasks"][0]["flaws"] = flaws
    return made


@pytest.mark.parametrize("flaw", SEEN)
def test_the_rule_that_sees_it(flaw: str, folder: Path) -> None:
    made = content(**{flaw: True})
    if flaw == "prompt_cut_on_the_right":
        made["tasks"][0]["task"] = {"kind": "prompt-completion",
                                    **{split: f"long-{split}.jsonl" for split in ("train", "val", "test")}}
        made["tasks"][0]["max_tokens"] = 100
    assert SEEN[flaw] in fired(audited(made, folder))


def test_a_design_without_flaws_is_clean(folder: Path) -> None:
    assert fired(audited(content(), folder)) == set()


def claimed(**changes: Any) -> dict[str, Any]:
    """A design whose one claim reads sampled outputs, and forgetting of untouched weights, from one seed."""
    made = fair_content(sequences=[["new", "more"]], evaluation={"routings": ["latest", "oracle"]}, controls=None)
    made["tasks"].append({"name": "more", "task": made["tasks"][0]["task"]})
    for arm in made["arms"]:
        arm["components"] = [{"method": arm["components"], "carry": "fresh"}]
    read = {"left": "full", "right": "lora", "task": "new", "routing": "oracle", **changes}
    made["claims"] = [{"name": "c", "claim": "Full is better.", "as_published": read,
                       "mended": {"left": "full", "right": "lora", "task": "new"}}]
    return made


def test_one_seed_of_sampled_outputs() -> None:
    made = claimed()
    assert ("sampling-noise", "threat") not in fired(audit(parse_study(made, "study")))
    made["tasks"][0]["sampling"] = {"temperature": 0.7}
    assert ("sampling-noise", "threat") in fired(audit(parse_study(made, "study")))
    made["claims"][0]["seed"] = None
    assert ("sampling-noise", "threat") not in fired(audit(parse_study(made, "study")))


def test_claims_of_what_is_zero_by_construction() -> None:
    assert ("zero-by-construction", "threat") in fired(audit(parse_study(claimed(quantity="forgetting"), "study")))
    assert ("zero-by-construction", "threat") not in fired(audit(parse_study(claimed(), "study")))
