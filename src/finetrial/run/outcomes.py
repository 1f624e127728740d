"""What became of stages that no run will compute any more: training that ended in an outcome that stands, and all that
would have read from it, over every later phase. And why a run has nothing to tell, where no arm came to its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from finetrial import catalog
from finetrial.errors import UserError
from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.stages.base import Lookup, Stage, StageKind

MENDS = {Outcome.OOM: "choose smaller arms, shorter rows or a smaller model: docs/troubleshooting.md",
         Outcome.DIVERGED: "lower the learning rates: docs/troubleshooting.md",
         Outcome.TIMEOUT: "give each stage more time: --timeout"}
STANDING = (Outcome.OOM, Outcome.DIVERGED)  # of training: another run would give the same


def standing_outcomes(stages: Iterable[Stage], lookup: Lookup) -> dict[str, Outcome]:
    """The outcome of each such stage: its own, or that of what it needs. `stages` in the order in which they may run.

    A choice among runs none of which is left, or too few, has the outcome of the first that failed.
    """
    ended: dict[str, Outcome] = {}
    for stage in stages:
        found = lookup(stage.id)
        if found is not None and found.record.outcome is Outcome.OK:
            continue
        if found is not None and found.record.outcome in STANDING:
            ended[stage.id] = found.record.outcome
            continue
        sources = [ended.get(source if isinstance(source, str) else source.select) for source in stage.inputs.values()]
        failed = [outcome for outcome in sources if outcome is not None]
        kind: type[StageKind] = catalog.find("stage", stage.kind)
        if failed and (not kind.tolerates_failures or found is not None or len(failed) == len(sources)):
            ended[stage.id] = failed[0]
    return ended


def nothing_finished(plan: Plan, lookup: Lookup, folder: Path) -> UserError | None:
    """What most stages ended with, where no arm could be trained, or none of those that were could be scored; None where one could.

    `folder` is the run's, below which the logs lie.
    """
    arms = [phase for cell in plan.cells if cell.role != "base" for phase in cell.phases]
    trained = [phase.train for phase in arms if phase.train is not None]
    scored = [stage for phase in arms for stage in phase.predictions.values()] + [one.predict for one in plan.losses]
    for done, stages in (("trained", trained), ("scored", scored)):
        records = [found.record for stage in dict.fromkeys(stages) if (found := lookup(stage)) is not None]
        if not records or any(record.outcome is Outcome.OK for record in records):
            continue
        (outcome, message), count = Counter((record.outcome, record.message) for record in records).most_common(1)[0]
        return UserError(f"no arm could be {done}: {count} of {len(records)} stages ended with {outcome}: {message}",
                         MENDS.get(outcome, f"mend that and run the same command again; the logs lie in {folder / 'logs'}"),
                         code="failed")
    return None
