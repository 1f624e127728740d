"""A run's folder when another question is asked in it."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_study import HERE, make_run

from finetrial.plan.build import build
from finetrial.run.earlier import set_aside
from finetrial.run.garbage import unused
from finetrial.run.looks import Looks
from finetrial.run.run_file import read_how, write_run_files
from finetrial.spec.io import read_study, study_yaml


def test_results_of_another_question_are_kept_and_what_they_need_is_no_waste(tmp_path: Path) -> None:
    project = tmp_path / "project"
    folder = make_run(project)
    store, study = folder.parent / ".store", read_study(folder / "study.yaml", project)
    other = study.model_copy(update={"arms": study.arms[:1], "hypotheses": ()})
    assert set_aside(folder, other) is None  # nothing was found out yet
    (folder / "results.json").write_text("old")
    (folder / "report.html").write_text("old report")
    (folder / "artifacts").mkdir()
    Looks(folder, study).remember(2)
    assert set_aside(folder, study.model_copy(update={"seeds": (0, 1, 2)})) is None  # the same question

    place = set_aside(folder, other)
    assert place is not None and place.parent == folder / "earlier"
    assert {path.name for path in place.iterdir()} == {"run.json", "study.yaml", "plan.json", "results.json", "report.html",
                                                    "artifacts"}
    assert {path.name for path in folder.iterdir()} == {"run.json", "study.yaml", "earlier"}
    assert read_study(place / "study.yaml", project) == study and read_how(place) == read_how(folder)
    assert not Path(json.loads((place / "run.json").read_text())["store"]).is_absolute()
    assert Looks(folder, study).earlier == Looks(place, study).earlier == (2,)

    write_run_files(folder, other, build(other, relative_to=project), read_how(folder))
    trained = next(stage for stage in build(study, relative_to=project).stages if stage.id not in
                   {stage.id for stage in build(other, relative_to=project).stages})
    keys = build(study, relative_to=project).keys(lambda *_: None)
    assert keys[trained.id] is not None
    entry = store / trained.kind / keys[trained.id][:2] / f"{keys[trained.id]}-{HERE.key()}"
    entry.mkdir(parents=True)
    (entry / "record.json").write_text("{}")
    assert unused(store, folder.parent) == ([], [folder.name, f"{folder.name}/earlier/{place.name}"])

    (folder / "results.json").write_text("new")
    assert set_aside(folder, study) != place
    (folder / "study.yaml").write_text(study_yaml(study))
    (folder / "results.json").write_text("old again")
    (folder / "artifacts").mkdir()
    assert set_aside(folder, other) == place and (place / "results.json").read_text() == "old again"
