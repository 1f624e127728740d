"""How a run was made, kept in its folder as `run.json`: enough to build its report again.

A store below the folder of runs, and a study's files in the project around it, are written relative to the run's
folder, so that a project can be moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.errors import StoreError
from finetrial.plan.plan import Plan
from finetrial.records.record import Environment
from finetrial.run.disk import replace_text
from finetrial.run.remote import is_url
from finetrial.spec.io import read_study, study_yaml
from finetrial.spec.study import Study

STUDY_FILE, PLAN_FILE, RUN_FILE = "study.yaml", "plan.json", "run.json"
RESULTS_FILE, REPORT_FILE, ANALYSIS_FILE, ITEMS_FILE = "results.json", "report.html", "analysis.md", "records.parquet"
FIGURES, ARTIFACTS = "figures", "artifacts"  # folders: of the report's figures, of what was trained
EARLIER = "earlier"  # in a run's folder: runs of other questions that were asked in it
PROFILE = "profile"  # in a run's folder: what is measured before it, by `finetrial profile` and `compare`, like a run
_MEND = "mend it, or move the run's folder away and run its study again: what the store holds is not computed anew"


@dataclass(frozen=True)
class HowRun:
    """Where and how a run computes."""

    device: str
    environment: Environment | None  # of its results; None in the file of an early version
    store: str  # a folder or a URL
    command: str
    relative_to: Path | None  # what the study's paths are relative to

    def as_json(self, folder: Path, runs: Path | None = None) -> dict[str, Any]:
        """What `run.json` in the run's folder says of it. `runs`: the folder of runs; None = the one around it."""
        runs = (runs or folder.resolve().parent).resolve()
        return {"device": self.device, "command": self.command,
                "store": self.store if is_url(self.store) else _written(Path(self.store), folder, moves_with=runs),
                "relative_to": _written(self.relative_to, folder, moves_with=runs.parent) if self.relative_to else None,
                "environment": self.environment.model_dump(mode="json") if self.environment else None}


def read_run_file(folder: Path) -> dict[str, Any]:
    """What `run.json` says; nothing where there is none. Raises StoreError where it cannot be read: people write places into it."""
    return _read_object(folder / RUN_FILE) if (folder / RUN_FILE).is_file() else {}


def write_run_file(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace what `run.json` says. Raises StoreError."""
    _write_object(folder / RUN_FILE, content)


def read_how(folder: Path) -> HowRun:
    """How the run in a folder was made. Raises StoreError where its `run.json` cannot be read, or does not say it."""
    how = read_run_file(folder)
    if missing := [name for name in ("device", "store", "command", "relative_to") if name not in how]:
        raise StoreError(f"{folder / RUN_FILE} says nothing of `{missing[0]}`", _MEND)
    store, here = how["store"], how.get("environment")
    return HowRun(how["device"], Environment(**here) if here else None,
                  store if is_url(store) else str((folder / store).resolve()), how["command"],
                  (folder / how["relative_to"]).resolve() if how["relative_to"] else None)


def write_run_files(folder: Path, study: Study, plan: Plan, how: HowRun, looks: Mapping[str, Any] | None = None) -> None:
    """What a run is, before it starts: the resolved study, the plan, and how to build its report again.

    `looks`: what else `run.json` remembers. Raises StoreError, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_run_file(folder, {**how.as_json(folder), **(looks or {})})
    replace_text(folder / STUDY_FILE, study_yaml(study))
    _write_object(folder / PLAN_FILE, plan.describe())


def read_plan(folder: Path) -> dict[str, Any]:
    """What the run in a folder planned, as `Plan.describe` told of it. Raises StoreError where it cannot be read."""
    if not (folder / PLAN_FILE).is_file():
        raise StoreError(f"{folder} has no {PLAN_FILE}: its run was stopped before it began",
                         "run its study again, or remove the folder if it is not needed")
    described = _read_object(folder / PLAN_FILE)
    if not {"stages", "origins"} <= set(described):
        raise StoreError(f"{folder / PLAN_FILE} is no plan", _MEND)
    return described


def study_of_run(folder: Path) -> Study:
    """The study of a run's folder: a copy, whose plug-ins lie where `run.json` says. Raises what `read_study` raises."""
    return read_study(folder / STUDY_FILE, read_how(folder).relative_to if (folder / RUN_FILE).is_file() else None)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}", _MEND) from error
    if not isinstance(found, dict):
        raise StoreError(f"{path} holds a {type(found).__name__}, not an object", _MEND)
    return found


def _write_object(path: Path, content: Mapping[str, Any]) -> None:
    replace_text(path, json.dumps(content, indent=1) + "\n")


def _written(place: Path, folder: Path, *, moves_with: Path) -> str:
    place = place.resolve()
    return os.path.relpath(place, folder.resolve()) if place.is_relative_to(moves_with) else str(place)
