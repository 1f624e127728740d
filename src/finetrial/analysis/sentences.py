"""Findings in words: what a contrast claims, and what came out."""

from __future__ import annotations

from finetrial.analysis.contrasts import Answer
from finetrial.records.results import Finding
from finetrial.spec.hypothesis import Contrast

_COMPARED = {"score": ("scores better than {right} on {task}", "scores worse than {right} on {task}"),
             "forgetting": ("forgets more of {task} than {right}", "forgets less of {task} than {right}"),
             "forgetting-at-matched-plasticity": (
                 "forgets more of {task} than {right} once both have learned as much of {learned}",
                 "forgets less of {task} than {right} once both have learned as much of {learned}"),
             "learning-rate-ratio": ("has a higher best learning rate than {right}",
                                     "has a lower best learning rate than {right}"),
             "cost": ("costs more {cost} than {right}", "costs less {cost} than {right}")}


def number(value: float) -> str:
    """Three significant digits; large counts in full."""
    if value == int(value) and abs(value) >= 1000:
        return f"{int(value):,}"
    return f"{value:.3g}"


def label(contrast: Contrast, metric: str) -> str:
    """`full - lora-r8: score on pydoc-chat (nats-per-token)`."""
    if contrast.quantity == "learning-rate-ratio":
        return f"{contrast.left} / {contrast.right}: best learning rate"
    what = contrast.cost if contrast.quantity == "cost" else contrast.quantity.replace("-", " ")
    where = f" on {contrast.task}" if contrast.task else ""
    if contrast.quantity.startswith("forgetting"):
        where = f" of {contrast.task}"
    after = f" after phase {contrast.phase}" if contrast.phase else ""
    return f"{contrast.left} - {contrast.right}: {what}{where}{after}" + (f" ({metric})" if metric else "")


def claim(contrast: Contrast, unit: str) -> str:
    """What the contrast states, before any result."""
    if contrast.expect in ("greater", "less"):
        return f"{contrast.left} {_direction(contrast, contrast.expect == 'greater')}"
    quantity = {"learning-rate-ratio": "best learning rate", "cost": contrast.cost}.get(
        contrast.quantity, contrast.quantity.replace("-", " "))
    on = f" on {contrast.task}" if contrast.task else ""
    if contrast.expect == "equal":
        assert contrast.margin is not None
        of = "share of each other" if contrast.quantity == "learning-rate-ratio" else f"{unit} of each other"
        return f"{contrast.left} and {contrast.right} lie within {number(contrast.margin)} {of} in {quantity}{on}"
    assert contrast.bounds is not None
    low, high = (number(bound) for bound in contrast.bounds)
    relation = "over" if contrast.quantity == "learning-rate-ratio" else "minus"
    return f"{quantity}{on} of {contrast.left} {relation} that of {contrast.right} lies between {low} and {high}"


def outcome(contrast: Contrast, found: Answer, finding: Finding) -> str:
    """What came out, with interval, seeds and clusters, and what bounds it."""
    if found.estimate is None or finding.estimate is None:
        return found.reason
    notes = "".join(f"; {note}" for note in found.notes)
    if finding.confidence is None:
        text = f"{_size(contrast, finding)}{notes}"
        return f"{text}; {found.reason}" if found.reason else text
    text = f"{_size(contrast, finding)} ({interval_text(finding)}){notes}"
    if finding.verdict == "INCONCLUSIVE" and finding.detectable is not None:
        seen = "a ratio of" if found.is_log else "a difference of"
        text += f"; {seen} {number(finding.detectable)} would have been seen with 80 % power"
    return text


def interval_text(finding: Finding) -> str:
    """`98.3 % interval 0.18 to 0.24; 5 seeds, 200 clusters`; wholly below zero, as a size (the words say "less")."""
    assert finding.low is not None and finding.high is not None and finding.confidence is not None
    ends = (finding.low, finding.high) if finding.high >= 0 else (-finding.high, -finding.low)
    counts = [f"{finding.n_seeds} seeds"] + ([f"{finding.n_clusters} clusters"] if finding.n_clusters else [])
    return (f"{100 * finding.confidence:.3g} % interval {number(ends[0])} to {number(ends[1])}; "
            f"{', '.join(counts)}")


def _size(contrast: Contrast, finding: Finding) -> str:
    assert finding.estimate is not None
    if contrast.quantity == "learning-rate-ratio":
        return (f"the best learning rate of {contrast.left} is {number(finding.estimate)} times that of "
                f"{contrast.right}")
    decided = finding.low is not None and finding.high is not None and (finding.low > 0 or finding.high < 0)
    unit = f" {finding.unit}" if finding.unit and finding.unit != contrast.cost else ""
    if not decided or finding.estimate == 0:
        return f"the difference {contrast.left} - {contrast.right} is {number(finding.estimate)}{unit}"
    return f"{contrast.left} {_direction(contrast, finding.estimate > 0)} by {number(abs(finding.estimate))}{unit}"


def _direction(contrast: Contrast, more: bool) -> str:
    text = _COMPARED[contrast.quantity][0 if more else 1]
    return text.format(right=contrast.right, task=contrast.task, learned=contrast.learned, cost=contrast.cost)
