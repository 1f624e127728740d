"""A small picture of one interval for a verdict card: where it lies against zero and the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetrial.analysis import numbers
from finetrial.records.results import Finding
from finetrial.report.orientation import band, is_ratio, mirrored, turned
from finetrial.report.quantities import directions
from finetrial.spec import Contrast

_EDGE = 8.0  # percent of the width left free at both ends


@dataclass(frozen=True)
class Strip:
    """Positions from 0 (left) to 100 (right). `band`: the margin or the stated bounds; `words`: what the sides mean."""

    low: float
    high: float
    estimate: float
    null: float
    null_label: str
    band: tuple[float, float] | None
    words: tuple[str, str]


def strip(finding: Finding, contrast: Contrast | None) -> Strip | None:
    """The picture of a finding, the way round that its sentence says it; None without an interval or assay."""
    if finding.verdict == "ASSAY FAILED":
        return None
    ratio = is_ratio(contrast)
    is_interaction = contrast is not None and contrast.interaction is not None
    if not is_interaction and turned(finding, contrast):
        finding = mirrored(finding)
    low, high, estimate = finding.low, finding.high, finding.estimate
    if low is None or high is None or estimate is None or low == high:
        return None
    if ratio and low <= 0:
        return None
    scale = math.log if ratio else float
    null = 1.0 if ratio else 0.0
    limits = band(finding, contrast)
    ends = [scale(value) for value in (low, high, null, *(limits or ()))]
    left, width = min(ends), max(ends) - min(ends)

    def place(value: float) -> float:
        return round(_EDGE + (100 - 2 * _EDGE) * (scale(value) - left) / width, 2)

    words = directions(contrast) if contrast else ("", "")
    return Strip(place(low), place(high), place(estimate), place(null), numbers.given(null),
                 (place(limits[0]), place(limits[1])) if limits else None, words)
