"""What a run trained, beside its report: links to the files in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.records.results import Results
from finetrial.run.collect import Lookup
from finetrial.stages.adapted import STATE, WEIGHTS, link_tree


def link_artifacts(plan: Plan, results: Results, lookup: Lookup, folder: Path) -> None:
    """`artifacts/<base>/<arm>/<sequence>/seed-<s>/phase-<k>-<task>/`: the weights at the rate that was chosen."""
    chosen = {(row.base, row.arm, row.sequence, row.phase, row.seed): row.chosen for row in results.tuning}
    for cell in plan.cells:
        for phase in cell.phases:
            place = (cell.key.base, cell.key.arm, cell.key.sequence, phase.index, cell.key.seed)
            trained = lookup(phase.train) if phase.train else None
            if trained is None or trained.record.outcome is not Outcome.OK:
                continue
            if place in chosen and chosen[place] == cell.key.point.learning_rate:
                target = folder / cell.key.base / cell.key.arm / cell.key.sequence / f"seed-{cell.key.seed}"
                kept = target / f"phase-{phase.index}-{phase.task}"
                link_tree(trained.folder / WEIGHTS, kept)
                shutil.copyfile(trained.folder / STATE, kept / STATE)
