"""Published claims as rows: ours as published, ours mended, what the flaw was worth, and whether the claim survives.

As published a claim is read from one seed, without an interval: that is how it was made. Mended it is a contrast over
all seeds, judged alone at the study's confidence by the rules of `verdicts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from finetrial.analysis import numbers, sentences
from finetrial.analysis.answer import Answer
from finetrial.analysis.contrasts import answer
from finetrial.analysis.loading import is_fixed
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.sides import levels
from finetrial.analysis.trial import Trial
from finetrial.analysis.verdicts import decision_interval, verdict_of
from finetrial.records.results import Assay, Claim, Quote, Standing, Verdict
from finetrial.spec.claims import PublishedClaim
from finetrial.spec.hypothesis import Contrast

STANDINGS: Mapping[Verdict, Standing] = {
    "SUPPORTED": "survives", "REFUTED": "does not survive", "EQUIVALENT": "does not survive",
    "INCONCLUSIVE": "undecided", "ASSAY FAILED": "undecided", "NOT MEASURED": "not measured"}


def claim_rows(trial: Trial, assay: Assay) -> Iterator[Claim]:
    """One row for each claim of the study, in its order. A failed assay leaves all undecided."""
    of_seed: dict[int | None, Trial] = {None: trial}
    for claim in trial.study.claims:
        if claim.as_published is not None and claim.seed not in of_seed:
            one_seed = trial.study.model_copy(update={"seeds": (claim.seed,)})
            of_seed[claim.seed] = Trial(one_seed, trial.table)
        yield _row(claim, of_seed[claim.seed] if claim.as_published is not None else trial, trial, assay)


def _row(claim: PublishedClaim, published: Trial, trial: Trial, assay: Assay) -> Claim:
    row = Claim(claim=claim.claim, published=claim.published, flaw=claim.flaw, note=claim.note, standing="not measured")
    before = None if claim.as_published is None else answer(published, claim.as_published)
    if claim.as_published is not None and before is not None:
        row = row.model_copy(update={"as_published": _quote(published, claim.as_published, before)})
    if claim.mended is None:
        note = "; ".join(filter(None, (claim.note, claim.untestable)))
        return row.model_copy(update={"standing": "cannot be tested at this scale", "note": note})
    after = answer(trial, claim.mended)
    alpha = 1 - trial.study.evaluation.confidence
    verdict = decided = verdict_of(claim.mended, after, alpha)
    if assay.positive_control == "not seen":
        verdict = "ASSAY FAILED"
        row = row.model_copy(update={"note": "; ".join(filter(None, (claim.note, assay.positive_text)))})
    quote = _quote(trial, claim.mended, after, alpha, decided)
    return row.model_copy(update={"mended": quote, "standing": STANDINGS[verdict],
                                  "worth": None if before is None else _worth(claim, row, quote, before.metric, after.metric)})


def _quote(trial: Trial, contrast: Contrast, found: Answer, alpha: float | None = None,
           verdict: Verdict | None = None) -> Quote:
    """The estimate as people read it; with `alpha` also the interval that decided on `verdict`. The note tells what was read."""
    what = sentences.key(contrast, found.metric)
    if found.estimate is None:
        return Quote(value=None, unit=found.unit, note=f"{what}: {found.reason}")
    scale = math.exp if found.is_log else float
    low = high = confidence = None
    if alpha is not None and found.has_interval:
        interval = decision_interval(contrast, found, alpha, verdict)
        assert interval.low is not None and interval.high is not None
        low, high, confidence = scale(interval.low), scale(interval.high), interval.confidence
    said = "; ".join([what, *_levels(trial, contrast), *(found.notes if found.by_construction else ())])
    return Quote(value=scale(found.estimate.mean), low=low, high=high, confidence=confidence, unit=found.unit, note=said,
                 n_seeds=found.estimate.num_seeds or None)


def _levels(trial: Trial, contrast: Contrast) -> list[str]:
    """`full fine-tuning 13.1, LoRA r=8 14.2`; nothing where the contrast is not of scores."""
    try:
        found = levels(trial, contrast)
    except NotMeasured:  # the contrast itself has told what is missing
        return []
    return [", ".join(f"{label} {numbers.plain(value)}" for label, value in found)] if found else []


def _worth(claim: PublishedClaim, row: Claim, mended: Quote, *metrics: str) -> float | None:
    """As published minus mended; None unless both are differences of one quantity by one metric, between sides of one kind: what
    an arm gained over the base is no difference of two arms."""
    before = row.as_published
    if before is None or before.value is None or mended.value is None:
        return None
    assert claim.as_published is not None and claim.mended is not None
    comparable = (before.unit == mended.unit != "ratio" and len({*metrics}) == 1
                  and _kind(claim.as_published) == _kind(claim.mended))
    return before.value - mended.value if comparable else None


def _kind(contrast: Contrast) -> tuple[str, bool, tuple[bool, ...]]:
    return contrast.quantity, contrast.interaction is None, tuple(is_fixed(side.arm) for side in contrast.sides)
