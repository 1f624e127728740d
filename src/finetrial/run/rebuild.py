"""The report of a run again, from its folder and the store: of what was planned then, whatever data, bases and versions of
finetrial are by now."""

from __future__ import annotations

from pathlib import Path

from finetrial.errors import StoreError, UserError
from finetrial.plan.build import Resolved, build
from finetrial.run.provenance import environment
from finetrial.run.remote import is_url
from finetrial.run.remote_store import open_store
from finetrial.run.run_file import RESULTS_FILE, RUN_FILE, STUDY_FILE, read_how, read_plan
from finetrial.run.trial import Trial, earlier_results, finish, recorded_in_store
from finetrial.spec.io import read_study


def rebuild(folder: Path, *, figures: bool = True) -> Trial:
    """The report of a run again, from the store, whatever is recorded by now of its plan. Computes and fetches nothing.

    Raises StoreError, and writes nothing, where the store is not there or has lost what the folder's results were made of.
    """
    for name in (STUDY_FILE, RUN_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a run: it has no {name}", "name a folder below runs/, see finetrial status")
    how = read_how(folder)
    if not is_url(how.store) and not Path(how.store).is_dir():
        raise StoreError(f"the store {how.store} of run {folder.name} is not there",
                         f"put it back, or write where it lies now as `store` into {folder / RUN_FILE}")
    study = read_study(folder / STUDY_FILE, how.relative_to)
    plan = build(study, resolved=Resolved(), relative_to=how.relative_to, fetch=False).as_described(read_plan(folder))
    here = how.environment or environment(how.device)
    recorded = recorded_in_store(plan, open_store(how.store, trusting=True), here)
    if _holds_scores(folder) and all(stage.kind == "data" for stage in plan.stages if stage.id in recorded):
        raise StoreError(f"the store {how.store} holds nothing that {folder / RESULTS_FILE} was made of, which stays as it is",
                         f"if the records lie elsewhere, write the place as `store` into {folder / RUN_FILE}; "
                         "else run the study again")
    return finish(study, plan, recorded.get, folder, here, how.command, figures=figures, again=True)


def _holds_scores(folder: Path) -> bool:
    """Whether the folder has results that may not be lost."""
    before = earlier_results(folder)
    return bool(before.scores) if before is not None else (folder / RESULTS_FILE).is_file()
