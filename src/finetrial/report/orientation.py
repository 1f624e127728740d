"""Which way round a finding is told, and the range that it is held against: for sentences and pictures alike."""

from __future__ import annotations

from finetrial.records.results import Finding
from finetrial.spec import Contrast


def undirected(finding: Finding) -> bool:
    """Whether the interval leaves the direction open."""
    return finding.low is None or finding.high is None or finding.low <= 0 <= finding.high


def mirrored(finding: Finding) -> Finding:
    """The same finding as right minus left."""
    low, high = finding.low, finding.high
    return finding.model_copy(update={"estimate": -(finding.estimate or 0.0), "low": None if high is None else -high,
                                      "high": None if low is None else -low})


def turned(finding: Finding, contrast: Contrast | None) -> bool:
    """Whether a difference is told as right minus left, so that the winner comes first. Stated bounds are of left minus
    right: what they are claimed of is told as it is."""
    return not is_ratio(contrast) and not undirected(finding) and (finding.estimate or 0) < 0 and (
        contrast is None or contrast.expect != "within")


def is_ratio(contrast: Contrast | None) -> bool:
    """Whether the estimate is a ratio, so that 1 means no difference."""
    return contrast is not None and contrast.is_ratio


def band(finding: Finding, contrast: Contrast | None) -> tuple[float, float] | None:
    """What a picture shades: the stated bounds, or the margin on both sides of no difference."""
    if contrast is not None and contrast.expect == "within":
        return contrast.bounds
    if finding.margin is None:
        return None
    if is_ratio(contrast):
        return 1 / (1 + finding.margin), 1 + finding.margin
    return -finding.margin, finding.margin
