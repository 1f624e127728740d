"""What became of stages that no run will compute any more: training that ended in an outcome that stands, and all that
would have read from it, over every later phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from finetrial import catalog
from finetrial.records.record import Outcome
from finetrial.stages.base import Stage, StageInput, StageKind

STANDING = (Outcome.OOM, Outcome.DIVERGED)  # of training: another run would give the same


def standing_outcomes(stages: Iterable[Stage], lookup: Callable[[str], StageInput | None]) -> dict[str, Outcome]:
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
