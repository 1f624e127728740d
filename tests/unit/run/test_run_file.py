"""What a run's folder says of how it was made, and what is done with it after a move."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tiny_study import HERE, make_run

from finetrial.errors import StoreError, UserError
from finetrial.plan.build import build
from finetrial.run.garbage import unused
from finetrial.run.run_file import RESULTS_FILE, HowRun, read_how
from finetrial.run.trial import RunOptions, rebuild, run_study
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
