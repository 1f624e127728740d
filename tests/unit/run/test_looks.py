"""Looks that a run's folder remembers."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_study import tiny_content

from finetrial.run.looks import Looks
from finetrial.spec.study import Study


def test_looks_of_the_same_question_are_remembered_and_others_are_not(tmp_path: Path) -> None:
    study = Study.model_validate(tiny_content(tmp_path))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"device": "cpu"}))
    assert Looks(path, study).earlier == ()
    Looks(path, study).remember(3)
    more = study.model_copy(update={"seeds": tuple(range(5)), "notes": ("again",)})
    assert Looks(path, more).earlier == (3,)
    Looks(path, more).remember(5)
    Looks(path, more).remember(5)
    assert Looks(path, study).earlier == (3, 5)
    assert json.loads(path.read_text())["device"] == "cpu"
    other = study.model_copy(update={"question": "Another?"})
    assert Looks(path, other).earlier == () and Looks(path, other).as_json() != {}


def test_without_a_folder_nothing_was_seen(tmp_path: Path) -> None:
    looks = Looks(tmp_path / "run.json", Study.model_validate(tiny_content(tmp_path)))
    assert looks.earlier == () and looks.as_json() == {}
