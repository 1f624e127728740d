"""Looks that a run's folder remembers."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_study import tiny_content

from finetrial.cli.running import with_more_seeds
from finetrial.run.looks import Looks
from finetrial.run.options import run_folder
from finetrial.spec.io import parse_study, study_yaml
from finetrial.spec.study import Study

HOW = {"device": "cpu", "command": "finetrial run", "store": "../.store", "relative_to": None}


def test_looks_of_the_same_question_are_remembered_and_others_are_not(tmp_path: Path) -> None:
    study = Study.model_validate(tiny_content(tmp_path))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"device": "cpu"}))
    assert Looks(tmp_path, study).earlier == ()
    Looks(tmp_path, study).remember(3)
    more = study.model_copy(update={"seeds": tuple(range(5)), "notes": ("again",)})
    assert Looks(tmp_path, more).earlier == (3,)
    Looks(tmp_path, more).remember(5)
    Looks(tmp_path, more).remember(5)
    assert Looks(tmp_path, study).earlier == (3, 5)
    assert json.loads(path.read_text())["device"] == "cpu"
    other = study.model_copy(update={"question": "Another?"})
    assert Looks(tmp_path, other).earlier == () and Looks(tmp_path, other).as_json() != {}


def test_without_a_folder_nothing_was_seen(tmp_path: Path) -> None:
    looks = Looks(tmp_path / "run.json", Study.model_validate(tiny_content(tmp_path)))
    assert looks.earlier == () and looks.as_json() == {}


def test_more_seeds_are_added_once_however_often_the_run_is_interrupted(tmp_path: Path) -> None:
    study = Study.model_validate(tiny_content(tmp_path))  # 2 seeds
    folder = run_folder(study, tmp_path)

    def begin() -> Study:
        """What a run writes before it computes anything."""
        more, before = with_more_seeds(study, 2, tmp_path)
        folder.mkdir(exist_ok=True)
        looks = Looks(folder, more)
        (folder / "run.json").write_text(json.dumps({**HOW, **looks.as_json(before)}))
        (folder / "study.yaml").write_text(study_yaml(more))
        return more

    assert begin().seeds == begin().seeds == (0, 1, 2, 3)
    assert Looks(folder, study).as_json() == {"more_seeds_from": [0, 1]}  # without --more-seeds it is kept
    Looks(folder, study).extension_is_complete()
    assert json.loads((folder / "run.json").read_text()) == HOW
    assert begin().seeds == begin().seeds == (0, 1, 2, 3, 4, 5)


def test_more_seeds_of_a_study_with_a_plugin_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "my_lora.py").write_text("from finetrial.methods.lora import Lora\n\n\nclass Mine(Lora):\n    version = 1\n")
    content = {**tiny_content(tmp_path), "plugins": ["my_lora.py"]}
    study = parse_study(content, "study", plugins_in=tmp_path)
    folder = run_folder(study, tmp_path / "runs")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**HOW, "relative_to": "../.."}))
    (folder / "study.yaml").write_text(study_yaml(study))
    assert with_more_seeds(study, 1, tmp_path / "runs")[0].seeds == (0, 1, 2)


def test_what_a_time_holds_is_decided_again_for_another_time(tmp_path: Path) -> None:
    study = Study.model_validate({**tiny_content(tmp_path), "seeds": 5})
    path = tmp_path / "run.json"
    path.write_text("{}")
    assert Looks(tmp_path, study).seeds_within(600.0) == ()
    Looks(tmp_path, study).decide((0, 1, 2), 600.0)
    assert Looks(tmp_path, study).seeds_within(600.0) == (0, 1, 2)
    assert Looks(tmp_path, study).seeds_within(28800.0) == ()
    Looks(tmp_path, study).decide(range(5), 28800.0)
    assert Looks(tmp_path, study).seeds_within(28800.0) == tuple(range(5)) and Looks(tmp_path, study).seeds_within(600.0) == ()
