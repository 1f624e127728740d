"""Comparisons that no result can answer, found before anything is trained: a measure that is not defined along the sequence, a
task that is not scored there, a floor where no outputs are made."""

from __future__ import annotations

from collections.abc import Iterator

from finetrial.analysis.loading import is_fixed
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.sides import reading_along
from finetrial.plan.specs import output_metrics
from finetrial.spec.hypothesis import COST, FLOOR, MATCHED, RATE_RATIO, SCORE, Contrast, Side
from finetrial.spec.study import Sequence, Study

SWAPPED = "`learned` is what is learned, `task` what is forgotten: are they swapped?"


def unanswerable(study: Study) -> list[str]:
    """One sentence for each reason, with the hypothesis or claim that it holds for."""
    readers = [("hypothesis", hypothesis.name, hypothesis.contrasts) for hypothesis in study.hypotheses]
    readers += [("claim", claim.name, claim.contrasts) for claim in study.claims]
    return list(dict.fromkeys(f"{kind} {name}: {problem}" for kind, name, contrasts in readers for contrast in contrasts
                              for side in contrast.sides for problem in _problems(study, contrast, side)))


def _problems(study: Study, contrast: Contrast, side: Side) -> Iterator[str]:
    if contrast.quantity in (COST, RATE_RATIO):
        return
    path = study.path(side.sequence or study.paths[0].name)
    everywhere = contrast.quantity == SCORE and is_fixed(side.arm)  # what nothing was trained for has one row, whatever the path
    paths = study.every_path if everywhere else (path,)
    scored = list(dict.fromkeys(use.name for one in paths for use in study.evaluated_along(one)))
    yield from (f"{task} is not scored along the sequence {path.name}, which evaluates {', '.join(scored) or 'nothing'}"
                for task in dict.fromkeys((contrast.task, contrast.learned)) if task and task not in scored)
    if side.arm.startswith(FLOOR):
        yield from _of_floor(study, contrast, side)
    elif contrast.quantity == MATCHED:
        yield from (f"{problem}; {SWAPPED}" for problem in _reading("forgetting", contrast, path, scored))
    elif contrast.quantity != SCORE:
        yield from _reading(contrast.quantity, contrast, path, scored)


def _of_floor(study: Study, contrast: Contrast, side: Side) -> Iterator[str]:
    use = study.task(contrast.task)
    metric, read = contrast.metric or use.primary_metric, output_metrics(use)
    if metric not in read:
        yield (f"{side.arm} is scored beside outputs, and {metric} of {use.name} reads none; "
               + (f"name a metric that does: {', '.join(read)}" if read else f"{use.name} makes none"))


def _reading(measure: str, contrast: Contrast, path: Sequence, scored: list[str]) -> Iterator[str]:
    try:
        reading_along(measure, path.tasks, scored, contrast.task, contrast.phase)
    except NotMeasured as missing:
        yield str(missing)
