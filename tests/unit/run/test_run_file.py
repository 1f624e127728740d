"""What a run's folder says of how it was made, and what is done with it after a move."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import HERE, make_run

from finetrial.errors import StoreError, UserError
from finetrial.plan.build import build
from finetrial.plan.plan import described_stages, keys_of
from finetrial.run.garbage import remove, unused
from finetrial.run.options import RunOptions
from finetrial.run.rebuild import rebuild
from finetrial.run.run_file import RESULTS_FILE, HowRun, read_how, read_plan
from finetrial.run.trial import run_study
from finetrial.spec.io import read_study


@pytest.mark.parametrize("store", ["s3://bucket/store", "/elsewhere/store"])
def test_a_store_that_lies_elsewhere_stays_there(tmp_path: Path, store: str) -> None:
    folder = make_run(tmp_path / "project", store)
    (tmp_path / "project").rename(tmp_path / "moved")
    how = read_how(tmp_path / "moved" / folder.relative_to(tmp_path / "project"))
    assert how == HowRun("cpu", HERE, store, "finetrial run study.yaml", tmp_path / "moved")


def test_what_lies_in_the_project_moves_with_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    (tmp_path / "project").rename(tmp_path / "moved")
    how = read_how(tmp_path / "moved" / folder.relative_to(tmp_path / "project"))
    assert (how.store, how.relative_to) == (str(tmp_path / "moved" / "runs" / ".store"), tmp_path / "moved")


def test_a_report_that_finds_nothing_leaves_the_results_as_they_are(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    results = folder / RESULTS_FILE
    results.write_text("of another version")
    with pytest.raises(StoreError, match=r"\.store of run tiny-\S+ is not there"):
        rebuild(folder)
    (folder.parent / ".store").mkdir()
    with pytest.raises(StoreError, match=r"holds nothing that .*results\.json was made of"):
        rebuild(folder)
    assert results.read_text() == "of another version"
    results.unlink()
    assert rebuild(folder, figures=False).results.status == "partial"  # nothing can be lost


def test_what_a_moved_run_needs_is_no_waste_and_a_store_without_runs_is_not_judged(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    plan = build(read_study(folder / "study.yaml", tmp_path / "project"), relative_to=tmp_path / "project")
    key = next(stage.key({}) for stage in plan.stages if stage.kind == "data")
    (tmp_path / "project").rename(tmp_path / "moved")
    runs = tmp_path / "moved" / "runs"
    for name in (key, "ab" * 16):
        entry = runs / ".store" / "data" / name[:2] / f"{name}-{HERE.key()}"
        entry.mkdir(parents=True)
        (entry / "record.json").write_text("{}")
    waste, named = unused(runs / ".store", runs)
    assert named == [folder.name] and [entry.folder.name for entry in waste] == [f"{'ab' * 16}-{HERE.key()}"]
    with pytest.raises(UserError, match="no run below .* uses the store"):
        unused(runs / ".store", tmp_path)


def test_nothing_is_waste_while_a_selection_that_is_needed_cannot_be_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, needed = tmp_path / "store", "ab" * 16
    for key in (needed, "cd" * 16):
        entry = store / "select" / key[:2] / f"{key}-{HERE.key()}"
        entry.mkdir(parents=True)
        (entry / "record.json").write_text("{")
    monkeypatch.setattr("finetrial.run.garbage.needed_keys", lambda runs, location, chosen: (set(), ["run"]))
    assert [entry.kind for entry in unused(store, tmp_path)[0]] == ["select", "select"]
    monkeypatch.setattr("finetrial.run.garbage.needed_keys", lambda runs, location, chosen: ({needed}, ["run"]))
    with pytest.raises(StoreError, match=f"{needed}.* cannot be read, so what was selected is unknown"):
        unused(store, tmp_path)


def test_what_became_needed_since_it_was_listed_stays(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    runs = folder.parent
    key = next(row["key"] for row in read_plan(folder)["stages"] if row["kind"] == "data")
    entry = runs / ".store" / "data" / key[:2] / f"{key}-{HERE.key()}"
    entry.mkdir(parents=True)
    (entry / "record.json").write_text("{}")
    plan = (folder / "plan.json").read_text()
    (folder / "plan.json").write_text('{"stages": [], "origins": {}}')
    waste, _ = unused(runs / ".store", runs)
    assert [found.folder for found in waste] == [entry]
    (folder / "plan.json").write_text(plan)
    (runs / ".store" / "locks").mkdir()
    assert remove(waste, runs / ".store", runs) == 0 and entry.is_dir()


def test_a_plan_as_it_was_described_has_the_keys_of_then(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    plan = build(read_study(folder / "study.yaml", tmp_path / "project"), relative_to=tmp_path / "project")
    assert plan.keys() == keys_of(described_stages(read_plan(folder)))
    later = replace(plan, stages=[replace(stage, version=99) for stage in plan.stages])
    assert later.as_described(read_plan(folder)).keys() == plan.keys() != later.keys()
    fewer = {**read_plan(folder), "stages": read_plan(folder)["stages"][:3]}
    assert [stage.id for stage in later.as_described(fewer).stages] == [stage.id for stage in plan.stages]


def test_a_run_that_begins_never_leaves_half_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc may read it at any moment: the file is replaced in one step."""
    folder = make_run(tmp_path / "project")
    study = read_study(folder / "study.yaml", tmp_path / "project")
    before = (folder / "study.yaml").read_text()
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if target == folder / "study.yaml":
            raise OSError(errno.ENOSPC, "full")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    options = RunOptions(runs=folder.parent, view=False)
    with pytest.raises(StoreError, match="is full"):
        run_study(study.model_copy(update={"seeds": (7,)}), options, relative_to=tmp_path / "project")
    assert (folder / "study.yaml").read_text() == before
