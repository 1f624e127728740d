"""Hypotheses that were stated before results were seen, and those that were not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_content

from finetrial.run.run_file import RUN_FILE
from finetrial.run.seen import remember_showing, stated_after
from finetrial.spec.study import Study

LESS = {"left": "lora-r2", "right": "full", "task": "old", "quantity": "forgetting", "expect": "less"}


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    (tmp_path / "model").mkdir()
    content = tiny_content(tmp_path)

    def with_hypotheses(*contrasts: dict[str, Any], **changes: Any) -> Study:
        rows = [{"name": f"H{number}", "statement": "Some words.", "contrast": contrast}
                for number, contrast in enumerate(contrasts, start=1)]
        return Study.model_validate({**content, "hypotheses": rows, **changes})

    return with_hypotheses


def test_what_is_turned_changed_or_added_after_results_is_exploratory_and_what_stays_is_not(
        tmp_path: Path, study: Callable[..., Study]) -> None:
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    first = study(LESS)
    assert stated_after(folder, first) == {}
    remember_showing(folder, first, "1")
    remember_showing(folder, first, "2")  # reading them again
    assert [row["at"] for row in json.loads((folder / RUN_FILE).read_text())["seen"]] == ["1"]
    assert stated_after(folder, first) == {}

    for changed in ({**LESS, "expect": "greater"}, {**LESS, "expect": "equal", "margin": 0.5}, {**LESS, "phase": 1}):
        assert "stated after these results were seen" in stated_after(folder, study(changed))["H1"]
    assert list(stated_after(folder, study(LESS, {**LESS, "task": "new", "quantity": "score"}))) == ["H2"]
    assert stated_after(folder, study({**LESS, "expect": "greater"}, seeds=[7, 8, 9])) == {}  # confirmed with new seeds

    remember_showing(folder, study({**LESS, "expect": "greater"}), "3")
    assert stated_after(folder, first) == {}  # it was there first


def test_a_family_that_lost_a_member_is_exploratory(tmp_path: Path, study: Callable[..., Study]) -> None:
    other = {**LESS, "task": "new", "quantity": "score"}
    remember_showing(tmp_path, study(LESS, other), "1")
    assert "1 of the 2 hypotheses that it was stated with were left out" in stated_after(tmp_path, study(LESS))["H1"]
    assert stated_after(tmp_path, study(other, LESS)) == {}


def test_arms_that_were_not_seen_may_be_asked_about_and_names_do_not_matter(tmp_path: Path,
                                                                         study: Callable[..., Study]) -> None:
    first = study(LESS)
    remember_showing(tmp_path, first, "1")
    arms = [arm.identity() for arm in first.arms]
    faster = {**arms[1], "name": "lora-r2-fast", "learning_rates": [0.5]}
    asked = stated_after(tmp_path, study(LESS, {**LESS, "left": "lora-r2-fast"}, arms=[*arms, faster]))
    assert asked == {}
    renamed = study({**LESS, "left": "small"}, arms=[arms[0], {**arms[1], "name": "small"}], controls=None)
    assert stated_after(tmp_path, renamed) == {}


def test_runs_beside_it_and_those_set_aside_count_for_studies_of_ones_own(tmp_path: Path,
                                                                       study: Callable[..., Study]) -> None:
    turned = study({**LESS, "expect": "greater"})
    for place in (tmp_path / "one", tmp_path / "two" / "earlier" / "x"):
        place.mkdir(parents=True)
        remember_showing(place, study(LESS), "1")
        assert "H1" in stated_after(tmp_path / "three", turned)
        assert stated_after(tmp_path / "three", turned.model_copy(update={"scale": "embedded"})) == {}
        (place / RUN_FILE).write_text("{")  # its own run tells of it
        assert stated_after(tmp_path / "three", turned) == {}
