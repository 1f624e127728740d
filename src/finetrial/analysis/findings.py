"""Findings: every hypothesis answered, one row for the whole and one for each of its contrasts.

The contrasts of all primary hypotheses form one Holm family, each distinct one once; the others are judged alone and
say so (no family). Exact contrasts (parameters, bytes, zero by construction) have no error rate and belong to none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from finetrial.analysis import sentences
from finetrial.analysis.answer import Answer
from finetrial.analysis.contrasts import answer
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.looks import Look, settle
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.multiplicity import Adjusted, holm
from finetrial.analysis.power import detectable_effect
from finetrial.analysis.sides import pairing
from finetrial.analysis.trial import Trial
from finetrial.analysis.verdicts import combine, decision_interval, decision_p_value, verdict_of
from finetrial.records.results import Assay, Finding, Verdict
from finetrial.spec.hypothesis import COST, Contrast, Hypothesis

FAMILY = "primary"


def findings(trial: Trial, assay: Assay, look: Look, stated_after: Mapping[str, str]) -> tuple[Finding, ...]:
    """The findings of a study at one look, in the order of its hypotheses. A failed assay overrides every verdict; beside
    that of a hypothesis in `stated_after` its sentence stands, and it is marked as exploratory."""
    every = dict.fromkeys(contrast for hypothesis in trial.study.hypotheses for contrast in hypothesis.contrasts)
    answers = {contrast: answer(trial, contrast) for contrast in every}
    levels = _levels(trial, answers, look)
    rows = (row for hypothesis in trial.study.hypotheses
            for row in _rows(trial, hypothesis, answers, levels, look, stated_after.get(hypothesis.name, "")))
    if assay.positive_control != "not seen":
        return tuple(rows)
    return tuple(row.model_copy(update={"verdict": "ASSAY FAILED", "reason": assay.positive_text}) for row in rows)


def _levels(trial: Trial, answers: Mapping[Contrast, Answer], look: Look) -> dict[Contrast, Adjusted]:
    """The Holm family: adjusted p-value and error rate of each primary contrast; both directions are one test."""
    primary = [contrast for hypothesis in trial.study.hypotheses if hypothesis.primary for contrast in hypothesis.contrasts
               if not answers[contrast].exact and contrast.is_tested]
    members = {contrast.test: decision_p_value(contrast, answers[contrast]) for contrast in primary}
    adjusted = dict(zip(members, holm([*members.values()], look.alpha), strict=True))
    return {contrast: adjusted[contrast.test] for contrast in primary}


def _rows(trial: Trial, hypothesis: Hypothesis, answers: Mapping[Contrast, Answer],
          levels: Mapping[Contrast, Adjusted], look: Look, caveat: str) -> Iterator[Finding]:
    parts = [_contrast_row(trial, hypothesis, contrast, answers[contrast],
                           levels.get(contrast) if hypothesis.primary else None, look, caveat)
             for contrast in hypothesis.contrasts]
    verdict = combine(hypothesis, [part.verdict for part in parts])
    reason = "; ".join(dict.fromkeys(part.reason for part in parts if part.reason))
    yield Finding(hypothesis=hypothesis.name, statement=hypothesis.statement, verdict=verdict, reason=reason,
                  primary=hypothesis.primary, look=look.number, exploratory=bool(caveat))
    yield from parts


def _contrast_row(trial: Trial, hypothesis: Hypothesis, contrast: Contrast, found: Answer,
                  level: Adjusted | None, look: Look, caveat: str) -> Finding:
    alpha = level.alpha if level else look.alpha
    metric = found.metric or contrast.metric
    if not metric and contrast.task and contrast.quantity != COST:
        metric = trial.primary(contrast.task)
    unit = found.unit or (trial.table.metrics[metric].unit if metric in trial.table.metrics else "")
    row = Finding(hypothesis=hypothesis.name, statement=sentences.claim(contrast, unit, trial.label),
                  contrast=sentences.key(contrast, metric), verdict=verdict_of(contrast, found, alpha), unit=unit,
                  expect=contrast.expect, margin=contrast.margin, primary=hypothesis.primary,
                  family=FAMILY if level else None, exact=found.exact, by_construction=found.by_construction,
                  look=look.number, exploratory=bool(caveat),
                  reason="; ".join(filter(None, (caveat, found.reason, *found.notes))))
    if found.estimate is None:
        return row
    return row.model_copy(update={**_numbers(contrast, found, level, alpha, row.verdict), **_paired(trial, contrast, found),
                                  **_settling(contrast, found, row, alpha)})


def _paired(trial: Trial, contrast: Contrast, found: Answer) -> dict[str, float]:
    """What pairing bought a difference that has an interval over items, where each side can be read by itself."""
    try:
        bought = pairing(trial, contrast) if found.over_items and found.has_interval else None
    except NotMeasured:  # of scores that cancel in the difference
        return {}
    return {} if bought is None else {"pairing_correlation": bought.correlation, "pairing_gain": bought.gain}


def _settling(contrast: Contrast, found: Answer, row: Finding, alpha: float) -> dict[str, str | int | None]:
    """What would settle an open comparison of a difference with 0 or a margin, where seeds or items can."""
    if (row.verdict != "INCONCLUSIVE" or contrast.expect == "within" or not found.over_items or found.is_log
            or found.estimate is None):
        return {}
    settling = settle(found.estimate, alpha, margin=contrast.margin, equivalence=contrast.expect == "equal")
    return {"settling": settling.text, "more_seeds": settling.more_seeds}


def _numbers(contrast: Contrast, found: Answer, level: Adjusted | None, alpha: float,
             verdict: Verdict) -> dict[str, float | int | None]:
    """Estimate, interval, p-values and counts, on the scale that people read (ratios, not logs)."""
    assert found.estimate is not None
    scale = math.exp if found.is_log else float
    number = found.estimate.num_seeds or None
    counts = {"n_repeats": number} if found.over_repeats else {"n_seeds": number}
    if not found.has_interval:
        exact = found.estimate.mean if found.exact and not found.by_construction else None
        return {"estimate": scale(found.estimate.mean), "low": exact, "high": exact, **counts}
    interval = decision_interval(contrast, found, alpha, verdict)
    assert interval.low is not None and interval.high is not None
    return {"estimate": scale(interval.mean), "low": scale(interval.low), "high": scale(interval.high),
            "confidence": interval.confidence, "p_value": decision_p_value(contrast, found),
            "p_adjusted": level.p_value if level else None, **counts,
            "n_clusters": interval.num_clusters if found.over_items else None,
            "detectable": scale(_detectable(interval, alpha))}


def _detectable(interval: Estimate, alpha: float) -> float:
    return max(detectable_effect(spread.standard_error, spread.degrees_of_freedom, alpha) for spread in interval.spreads)
