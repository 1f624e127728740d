"""Findings: every hypothesis answered, one row for the whole and one for each of its contrasts.

The contrasts of all primary hypotheses form one Holm family; the others are judged alone and say so (no family).
Exact contrasts (parameters, bytes) have no error rate and belong to no family.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from finetrial.analysis import sentences
from finetrial.analysis.contrasts import Answer, answer
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.multiplicity import Adjusted, holm
from finetrial.analysis.power import detectable_effect
from finetrial.analysis.trial import Trial
from finetrial.analysis.verdicts import combine, decision_interval, decision_p_value, verdict_of
from finetrial.records.results import Assay, Finding
from finetrial.spec.hypothesis import Contrast, Hypothesis

FAMILY = "primary"


def findings(trial: Trial, assay: Assay) -> tuple[Finding, ...]:
    """The findings of a study, in the order of its hypotheses. A failed assay overrides every verdict."""
    answers = {hypothesis.name: [answer(trial, contrast) for contrast in hypothesis.contrasts]
               for hypothesis in trial.study.hypotheses}
    levels = _levels(trial, answers)
    rows = (row for hypothesis in trial.study.hypotheses
            for row in _rows(trial, hypothesis, answers[hypothesis.name], levels))
    if assay.positive_control != "not seen":
        return tuple(rows)
    return tuple(row.model_copy(update={"verdict": "ASSAY FAILED", "reason": assay.positive_text}) for row in rows)


def _levels(trial: Trial, answers: dict[str, list[Answer]]) -> dict[tuple[str, int], Adjusted]:
    """The Holm family: adjusted p-value and error rate of each primary contrast, by hypothesis and position."""
    members = [(hypothesis.name, at, decision_p_value(contrast, found))
               for hypothesis in trial.study.hypotheses if hypothesis.primary
               for at, (contrast, found) in enumerate(zip(hypothesis.contrasts, answers[hypothesis.name], strict=True))
               if contrast.quantity != "cost"]
    adjusted = holm([p_value for _, _, p_value in members], 1 - trial.study.evaluation.confidence)
    return {(name, at): level for (name, at, _), level in zip(members, adjusted, strict=True)}


def _rows(trial: Trial, hypothesis: Hypothesis, answers: list[Answer],
          levels: dict[tuple[str, int], Adjusted]) -> Iterator[Finding]:
    parts = [_contrast_row(trial, hypothesis, contrast, found, levels.get((hypothesis.name, at)))
             for at, (contrast, found) in enumerate(zip(hypothesis.contrasts, answers, strict=True))]
    verdict = combine(hypothesis, [part.verdict for part in parts])
    reason = "; ".join(part.reason for part in parts if part.reason)
    yield Finding(hypothesis=hypothesis.name, statement=hypothesis.statement, verdict=verdict, reason=reason,
                  primary=hypothesis.primary)
    yield from parts


def _contrast_row(trial: Trial, hypothesis: Hypothesis, contrast: Contrast, found: Answer,
                  level: Adjusted | None) -> Finding:
    alpha = level.alpha if level else 1 - trial.study.evaluation.confidence
    metric = contrast.metric or (trial.primary(contrast.task) if contrast.task and contrast.quantity != "cost" else "")
    unit = found.unit or (trial.table.metrics[metric].unit if metric in trial.table.metrics else "")
    row = Finding(hypothesis=hypothesis.name, statement=sentences.claim(contrast, unit),
                  contrast=sentences.label(contrast, metric), verdict=verdict_of(contrast, found, alpha), unit=unit,
                  expect=contrast.expect, margin=contrast.margin, primary=hypothesis.primary,
                  family=FAMILY if level else None)
    if found.estimate is None:
        return row.model_copy(update={"reason": found.reason})
    row = row.model_copy(update=_numbers(contrast, found, level, alpha))
    return row.model_copy(update={"reason": sentences.outcome(contrast, found, row)})


def _numbers(contrast: Contrast, found: Answer, level: Adjusted | None, alpha: float) -> dict[str, float | int | None]:
    """Estimate, interval, p-values and counts, on the scale that people read (ratios, not logs)."""
    assert found.estimate is not None
    scale = math.exp if found.is_log else float
    if not found.has_interval:
        exact = found.estimate.mean if found.exact else None
        return {"estimate": scale(found.estimate.mean), "low": exact, "high": exact,
                "n_seeds": found.estimate.num_seeds or None}
    interval = decision_interval(contrast, found, alpha)
    assert interval.low is not None and interval.high is not None
    return {"estimate": scale(interval.mean), "low": scale(interval.low), "high": scale(interval.high),
            "confidence": interval.confidence, "p_value": decision_p_value(contrast, found),
            "p_adjusted": level.p_value if level else None, "n_seeds": interval.num_seeds,
            "n_clusters": interval.num_clusters if found.over_items else None,
            "detectable": scale(_detectable(interval, alpha))}


def _detectable(interval: Estimate, alpha: float) -> float:
    assert interval.standard_error is not None and interval.degrees_of_freedom is not None
    return detectable_effect(interval.standard_error, interval.degrees_of_freedom, alpha)
