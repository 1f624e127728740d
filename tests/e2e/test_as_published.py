"""A study with published claims on a tiny model: flawed rows trained on and scored, read with and without the flaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_content

from finetrial.errors import UserError
from finetrial.run.options import RunOptions
from finetrial.run.trial import run_study
from finetrial.spec.io import parse_study


def content(folder: Path) -> dict[str, Any]:
    """The published arms are trained on padded rows, 24 of them, and scored on the first of these."""
    made = tiny_content(folder)
    new, old = made["tasks"]
    few = {"first_training_rows": 24}
    made["tasks"] = [
        new, {**new, "name": "padded", "evaluate": False, "flaws": {**few, "padding_scored": True}},
        {**new, "name": "head", "role": "outside", "num_val": 2, "flaws": {**few, "test_rows_from_training": True}}, old]
    made["sequences"] = [{"name": "mended", "tasks": ["new"], "evaluate": ["new", "old"]},
                         {"name": "published", "tasks": ["padded"], "evaluate": ["head", "new"]}]
    made["arms"] = [{**arm, "name": name, "sequences": [path], "learning_rates": arm["learning_rates"][-count:]}
                    for arm in made["arms"] for name, path, count in (
                        (arm["name"], "mended", 2), (f"{arm['name']}-published", "published", 1))]
    published = {"left": "full-published", "right": "lora-r2-published", "left_sequence": "published",
                 "right_sequence": "published", "metric": "perplexity"}
    sides = {"left": "full", "right": "lora-r2", "left_sequence": "mended", "right_sequence": "mended"}
    claim = {"claim": "Full learns more.", "published": "3 against 4", "as_published": {**published, "task": "head"}}
    made["claims"] = [
        {"name": "c.1", **claim, "flaw": "held out from training", "mended": {**published, "task": "new"}},
        {"name": "c.2", **claim, "flaw": "all", "mended": {**sides, "metric": "perplexity", "task": "new"}},
        {"name": "d", "claim": "It fits.", "untestable": "the base is too small"}]
    made["accept_threats"] = ["held-out-rows-in-training", "padding-trained-on", "unequal-tuning"]
    return {**made, "seeds": 3, "controls": None, "hypotheses": [],
            "training": {"budget": "4 steps", "sequence_length": 32, "batch_sequences": 4, "evaluations": 0}}


@pytest.mark.slow
def test_claims_are_read_with_and_without_their_flaws(tmp_path: Path) -> None:
    study = parse_study(content(tmp_path), "claims")
    options = RunOptions(runs=tmp_path / "runs", view=False, figures=False)
    for threat in ("held-out-rows-in-training", "padding-trained-on"):  # seen in the rows, before anything is trained
        others = tuple(name for name in study.accept_threats if name != threat)
        with pytest.raises(UserError, match=threat):
            run_study(study.model_copy(update={"accept_threats": others}), options, relative_to=tmp_path)
    results = run_study(study, options, relative_to=tmp_path).results
    assert results.status == "complete"
    scored = {(row.sequence, row.task) for row in results.scores if row.seed == 0 and row.split == "test"}
    assert scored == {("mended", "new"), ("mended", "old"), ("published", "head"), ("published", "new")}
    first, second, third = results.claims
    assert third.standing == "cannot be tested at this scale"
    for row in (first, second):
        assert row.as_published is not None and row.mended is not None
        assert (row.as_published.n_seeds, row.mended.n_seeds) == (1, 3) and row.mended.low is not None
        assert row.worth == pytest.approx(row.as_published.value - row.mended.value)
        assert row.standing in ("survives", "does not survive", "undecided")
    assert first.as_published == second.as_published and first.mended != second.mended
    page = (tmp_path / "runs" / "tiny-custom-small" / "report.html").read_text()
    assert "Published claims" in page and "held out from training" in page and "worth of the flaw" in page
