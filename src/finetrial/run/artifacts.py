"""What a run trained, beside its report: links to the files in the store."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.records.results import Results
from finetrial.stages.adapted import STATE, WEIGHTS, link_tree
from finetrial.stages.base import Lookup


def seed_folder(artifacts: Path, base: str, arm: str, sequence: str, seed: int | None) -> Path:
    """Where the weights of one arm and seed lie, phase by phase."""
    return artifacts / base / arm / sequence / f"seed-{seed}"


def phase_folder(artifacts: Path, base: str, arm: str, sequence: str, seed: int | None, index: int, task: str) -> Path:
    """Where the weights after one phase lie."""
    return seed_folder(artifacts, base, arm, sequence, seed) / f"phase-{index}-{task}"


def phases_in(folder: Path) -> dict[int, Path]:
    """The phases' folders in that of a seed, by the phase's index."""
    return {int(place.name.split("-")[1]): place for place in folder.glob("phase-*")}


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
            target = phase_folder(folder, cell.key.base, cell.key.arm, cell.key.sequence, cell.key.seed, phase.index, phase.task)
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
