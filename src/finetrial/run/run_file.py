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

from finetrial.records.record import Environment
from finetrial.run.remote import is_url
from finetrial.spec.io import read_study
from finetrial.spec.study import Study

STUDY_FILE, PLAN_FILE, RUN_FILE = "study.yaml", "plan.json", "run.json"
RESULTS_FILE, REPORT_FILE = "results.json", "report.html"


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


def read_how(folder: Path) -> HowRun:
    """How the run in a folder was made."""
    how: Mapping[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    store, here = how["store"], how.get("environment")
    return HowRun(how["device"], Environment(**here) if here else None,
                  store if is_url(store) else str((folder / store).resolve()), how["command"],
                  (folder / how["relative_to"]).resolve() if how["relative_to"] else None)


def study_of_run(folder: Path) -> Study:
    """The study of a run's folder: a copy, whose plug-ins lie where `run.json` says. Raises what `read_study` raises."""
    return read_study(folder / STUDY_FILE, read_how(folder).relative_to if (folder / RUN_FILE).is_file() else None)


def _written(place: Path, folder: Path, *, moves_with: Path) -> str:
    place = place.resolve()
    return os.path.relpath(place, folder.resolve()) if place.is_relative_to(moves_with) else str(place)
