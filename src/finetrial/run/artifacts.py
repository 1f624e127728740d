"""What a run trained, beside its report: links to the files in the store."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.records.results import Results
from finetrial.run.collect import Lookup
from finetrial.stages.adapted import STATE, WEIGHTS, link_tree


def link_artifacts(plan: Plan, results: Results, lookup: Lookup, folder: Path) -> None:
    """`artifacts/<base>/<arm>/<sequence>/seed-<s>/phase-<k>-<task>/`: the weights at the rate that was chosen.

    Weights that are not of these results go; those of which the store has lost the original stay.
    """
    chosen = {(row.base, row.arm, row.sequence, row.phase, row.seed): row.chosen for row in results.tuning}
    scored = {(row.base, row.arm, row.sequence, row.phase, row.seed) for row in results.scores
              if row.selected and row.value is not None}
    kept = set()
    for cell in plan.cells:
        for phase in cell.phases:
            place = (cell.key.base, cell.key.arm, cell.key.sequence, phase.index, cell.key.seed)
            if place not in chosen or phase.train is None or chosen[place] != cell.key.point.learning_rate:
                continue
            target = (folder / cell.key.base / cell.key.arm / cell.key.sequence / f"seed-{cell.key.seed}"
                      / f"phase-{phase.index}-{phase.task}")
            trained = lookup(phase.train)
            if trained is not None and trained.record.outcome is Outcome.OK:
                link_tree(trained.folder / WEIGHTS, target)
                shutil.copyfile(trained.folder / STATE, target / STATE)
                kept.add(target)
            elif trained is None and place in scored:
                kept.add(target)
    _remove_others(folder, kept)


def _remove_others(folder: Path, kept: Collection[Path]) -> None:
    """The phases' folders that are not among these, and the folders that are empty then."""
    for phase in sorted(folder.glob("*/*/*/seed-*/phase-*")):
        if phase not in kept:
            shutil.rmtree(phase)
            for above in phase.relative_to(folder).parents[:-1]:
                if not any((folder / above).iterdir()):
                    (folder / above).rmdir()
