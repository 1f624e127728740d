"""What a run's folder holds of another question: kept with its study in `earlier/<question>/`, a run's folder as well."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from finetrial.errors import UserError
from finetrial.fingerprint import key_of
from finetrial.run.disk import replace_text
from finetrial.run.looks import EXTENDED, question_of
from finetrial.run.run_file import (
    ANALYSIS_FILE,
    ARTIFACTS,
    EARLIER,
    FIGURES,
    ITEMS_FILE,
    PLAN_FILE,
    REPORT_FILE,
    RESULTS_FILE,
    RUN_FILE,
    STUDY_FILE,
    read_how,
    read_run_file,
    write_run_file,
)
from finetrial.spec.io import read_study
from finetrial.spec.study import Study

MADE = (PLAN_FILE, REPORT_FILE, ANALYSIS_FILE, FIGURES, ITEMS_FILE, ARTIFACTS, RESULTS_FILE)  # results last


def set_aside(folder: Path, study: Study) -> Path | None:
    """Move the results of another question than the study's, with all that was made of them, to a folder of their own.

    Returns that folder; None where there are no such results. Looks at them stay known to the run.
    """
    if not all((folder / name).is_file() for name in (RESULTS_FILE, STUDY_FILE, RUN_FILE)):
        return None
    how = read_how(folder)
    text = (folder / STUDY_FILE).read_text(encoding="utf-8")
    try:
        question = question_of(read_study(folder / STUDY_FILE, how.relative_to))
    except UserError:  # of another version, or its plug-ins are gone
        question = key_of(text)
    if question == question_of(study):
        return None
    place = folder / EARLIER / question[:8]
    place.mkdir(parents=True, exist_ok=True)
    kept = read_run_file(folder)
    kept.pop(EXTENDED, None)
    write_run_file(place, {**kept, **how.as_json(place, folder.parent)})
    replace_text(place / STUDY_FILE, text)
    for source in (folder / name for name in MADE):
        if source.exists():
            _replace(source, place / source.name)
    write_run_file(folder, kept)
    return place


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
