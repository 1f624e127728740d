"""Findings in words: what was found, in which direction, how sure. Every sentence carries its interval.

The estimate of a contrast is left minus right. For scores positive means that left is better; for forgetting, that
left forgets more. A sentence names the winner first, so that a reader never has to decode a sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from finetrial.records.results import Finding
from finetrial.report import numbers
from finetrial.report.numbers import MINUS
from finetrial.spec import Contrast

Label = Callable[[str], str]

MEANINGS: Mapping[str, str] = {
    "SUPPORTED": "the whole interval lies on the side that was claimed",
    "REFUTED": "the whole interval lies on the other side of what was claimed",
    "EQUIVALENT": "any difference is smaller than the margin set before the run",
    "INCONCLUSIVE": "the data fit a difference either way, or one about as large as the margin",
    "NOT MEASURED": "the data needed are missing",
    "ASSAY FAILED": "the trial did not see an effect that is known to be there, so it can show nothing",
}
SYMBOLS: Mapping[str, str] = {"SUPPORTED": "\N{CHECK MARK}", "REFUTED": "\N{MULTIPLICATION SIGN}",
                              "EQUIVALENT": "\N{ALMOST EQUAL TO}", "INCONCLUSIVE": "?",
                              "NOT MEASURED": "\N{EN DASH}", "ASSAY FAILED": "!"}

METRICS: Mapping[str, str] = {"nats-per-token": "loss", "perplexity": "perplexity", "ppl": "perplexity",
                              "ppl-document-mean": "perplexity, mean of documents", "bits-per-byte": "bits per byte",
                              "rouge-l": "ROUGE-L", "chrf": "chrF", "bleu": "BLEU", "meteor": "METEOR"}
UNITS: Mapping[str, str] = {"nats-per-token": "nats/token", "nats per token": "nats/token",
                            "nats per target token": "nats/token", "bits-per-byte": "bits/byte",
                            "bits per byte": "bits/byte"}
COSTS: Mapping[str, str] = {"params_total": "parameters in all", "params_trainable": "trainable parameters",
                            "stored_bytes": "stored bytes", "optimizer_bytes": "optimizer bytes",
                            "train_seconds": "training time", "tuning_seconds": "tuning time",
                            "predict_seconds": "prediction time", "tokens_per_second": "tokens per second",
                            "peak_host_bytes": "peak memory", "peak_device_allocated_bytes": "peak device memory",
                            "peak_device_reserved_bytes": "peak reserved device memory"}


def metric_name(metric: str) -> str:
    """What people call a metric."""
    return METRICS.get(metric.replace("_", "-"), metric)


def unit_name(unit: str) -> str:
    """A unit as it is written beside a number."""
    return UNITS.get(unit, unit)


def verdict_sentence(finding: Finding, contrast: Contrast | None, label: Label) -> str:
    """One sentence that answers one contrast: what was found, with its interval, and what that means."""
    if finding.verdict == "NOT MEASURED":
        return f"Not measured: {_reason(finding, 'the data are missing')}"
    if finding.verdict == "ASSAY FAILED":
        return f"No verdict: {_reason(finding, 'the positive control was not seen')}"
    if finding.estimate is None:
        return _sentence(finding.reason or MEANINGS[finding.verdict])
    found = _found(finding, contrast, label)
    text = {"SUPPORTED": _supported, "REFUTED": _refuted, "EQUIVALENT": _equivalent,
            "INCONCLUSIVE": _inconclusive}[finding.verdict](finding, contrast, found)
    return " ".join(filter(None, (text, _sentence(finding.reason))))


def whole_sentence(finding: Finding, parts: Sequence[Finding], combined: str) -> str:
    """One sentence for a hypothesis of several contrasts. `combined`: "all" (all_of) or "any" (any_of)."""
    counts = {verdict: sum(part.verdict == verdict for part in parts) for verdict in MEANINGS}
    words = [f"{number} {verdict.lower()}" for verdict, number in counts.items() if number]
    rule = "all must hold" if combined == "all" else "one must hold"
    text = f"Of {numbers.counted(len(parts), 'comparison')} ({rule}): {numbers.listed(words)}."
    return " ".join(filter(None, (text, _sentence(finding.reason))))


def interval_text(finding: Finding) -> str:
    """`97.5 % interval 0.22 to 0.40 nats/token`, "exact" for quantities that have no error, or "no interval"."""
    if finding.estimate is None:
        return ""
    if _exact(finding):
        return "exact"
    _, interval = numbers.with_interval(finding.estimate, finding.low, finding.high)
    if not interval:
        return "no interval"
    return f"{_confidence(finding)}interval {interval}{_unit(finding)}"


def estimate_text(finding: Finding) -> str:
    """The estimate with its unit, rounded to what the interval supports; empty where there is none."""
    if finding.estimate is None:
        return ""
    value, _ = numbers.with_interval(finding.estimate, finding.low, finding.high)
    return f"{value}{_unit(finding)}"


def support_facts(finding: Finding) -> tuple[str, ...]:
    """What stands beside a verdict: p values, seeds, clusters, what was detectable, the margin, looks."""
    facts = []
    if finding.p_value is not None:
        facts.append(numbers.probability(finding.p_value))
    if finding.p_adjusted is not None:
        facts.append(f"Holm-adjusted {numbers.probability(finding.p_adjusted)}")
    if finding.n_seeds is not None:
        facts.append(numbers.counted(finding.n_seeds, "seed"))
    elif finding.n_clusters is not None:
        facts.append("items only: no seed variance")
    if finding.n_clusters is not None:
        facts.append(numbers.counted(finding.n_clusters, "cluster"))
    if finding.detectable is not None:
        facts.append(f"detectable with 80 % power: {numbers.plain(finding.detectable, 2)}{_unit(finding)}")
    if finding.margin is not None:
        facts.append(f"margin \N{PLUS-MINUS SIGN}{numbers.plain(finding.margin)}{_unit(finding)}")
    if finding.look > 1:
        facts.append(f"look {finding.look} at the data")
    return tuple(facts)


def contrast_name(finding: Finding, contrast: Contrast | None, label: Label) -> str:
    """A short name of a comparison: `full fine-tuning − LoRA r=8: forgetting of python-text`."""
    if contrast is None:
        return finding.contrast or finding.hypothesis
    what = {"score": f"score on {contrast.task}", "forgetting": f"forgetting of {contrast.task}",
            "forgetting-at-matched-plasticity": f"forgetting of {contrast.task} at equal learning",
            "learning-rate-ratio": "ratio of best learning rates",
            "cost": COSTS.get(contrast.cost, contrast.cost)}[contrast.quantity]
    between = "\N{DIVISION SIGN}" if contrast.quantity == "learning-rate-ratio" else MINUS
    return f"{label(contrast.left)} {between} {label(contrast.right)}: {what}"


def _supported(finding: Finding, contrast: Contrast | None, found: str) -> str:
    margin, low, high = finding.margin, finding.low, finding.high
    small = margin is not None and low is not None and high is not None and max(abs(low), abs(high)) <= margin
    if contrast is not None and contrast.expect == "equal":
        return f"No difference that matters: {found}, inside the margin of {_margin(finding)}."
    if contrast is not None and contrast.expect == "within" and contrast.bounds:
        return _sentence(f"{found}, inside the stated bounds {_bounds(contrast)}")
    return _sentence(found + (f"; real, but below the margin of {_margin(finding)}" if small else ""))


def _refuted(finding: Finding, contrast: Contrast | None, found: str) -> str:
    if contrast is not None and contrast.expect == "equal":
        return f"They do differ: {found}; the margin was {_margin(finding)}."
    if contrast is not None and contrast.expect == "within" and contrast.bounds:
        return _sentence(f"{found}, outside the stated bounds {_bounds(contrast)}")
    return f"The opposite was found: {found}."


def _equivalent(finding: Finding, contrast: Contrast | None, found: str) -> str:
    inside = f", inside the margin of {_margin(finding)}" if finding.margin is not None else ""
    return f"No difference that matters: {found}{inside}."


def _inconclusive(finding: Finding, contrast: Contrast | None, found: str) -> str:
    seeds = f" With {numbers.counted(finding.n_seeds, 'seed')}" if finding.n_seeds else " Here"
    power = ("" if finding.detectable is None else f"{seeds}, only a difference of about "
             f"{numbers.plain(finding.detectable, 2)}{_unit(finding)} or more would have shown.")
    return f"Not settled: {found}.{power}"


def _found(finding: Finding, contrast: Contrast | None, label: Label) -> str:
    """What was measured, without a final stop; the winner first where the interval excludes zero."""
    if contrast is None:
        return f"{finding.contrast or finding.hypothesis}: {estimate_text(finding)} ({interval_text(finding)})"
    left, right = label(contrast.left), label(contrast.right)
    if contrast.quantity == "learning-rate-ratio":
        return f"the best learning rate of {left} is {estimate_text(finding)} times that of {right} " \
               f"({interval_text(finding)})"
    if _undirected(finding):
        return _neutral(finding, contrast, left, right)
    assert finding.estimate is not None
    if finding.estimate < 0:
        left, right, finding = right, left, _mirrored(finding)
    amount, interval = estimate_text(finding), interval_text(finding)
    return {"score": f"{left} does better than {right} on {contrast.task} by {amount} ({interval})",
            "forgetting": f"{left} forgets {amount} more of {contrast.task} than {right} ({interval})",
            "forgetting-at-matched-plasticity": f"at equal learning of {contrast.learned}, {left} forgets {amount} "
                                                f"more of {contrast.task} than {right} ({interval})",
            "cost": f"{left} needs {amount} more than {right} in {COSTS.get(contrast.cost, contrast.cost)} "
                    f"({interval})"}[contrast.quantity]


def _neutral(finding: Finding, contrast: Contrast, left: str, right: str) -> str:
    where = {"score": f"on {contrast.task}", "forgetting": f"in forgetting of {contrast.task}",
             "forgetting-at-matched-plasticity": f"in forgetting of {contrast.task} at equal learning of "
                                                 f"{contrast.learned}",
             "cost": f"in {COSTS.get(contrast.cost, contrast.cost)}"}[contrast.quantity]
    sign = {"score": f"positive: {left} does better", "cost": f"positive: {left} needs more"}
    meaning = sign.get(contrast.quantity, f"positive: {left} forgets more")
    return f"{left} and {right} differ {where} by {estimate_text(finding)} ({interval_text(finding)}; {meaning})"


def _undirected(finding: Finding) -> bool:
    """Whether the interval leaves the direction open."""
    if _exact(finding):
        return finding.estimate == 0
    return finding.low is None or finding.high is None or finding.low <= 0 <= finding.high


def _mirrored(finding: Finding) -> Finding:
    low, high = finding.low, finding.high
    return finding.model_copy(update={"estimate": -(finding.estimate or 0.0), "low": None if high is None else -high,
                                      "high": None if low is None else -low})


def _exact(finding: Finding) -> bool:
    """Parameters and bytes have no error: the interval is the estimate itself."""
    return finding.estimate is not None and finding.low == finding.estimate == finding.high


def _confidence(finding: Finding) -> str:
    return f"{numbers.percent(finding.confidence)} " if finding.confidence is not None else ""


def _unit(finding: Finding) -> str:
    unit = unit_name(finding.unit)
    return f" {unit}" if unit and unit != "ratio" else ""


def _margin(finding: Finding) -> str:
    margin = numbers.plain(finding.margin) if finding.margin is not None else numbers.UNKNOWN
    return f"\N{PLUS-MINUS SIGN}{margin}{_unit(finding)}"


def _bounds(contrast: Contrast) -> str:
    assert contrast.bounds is not None
    return f"{numbers.plain(contrast.bounds[0])} to {numbers.plain(contrast.bounds[1])}"


def _reason(finding: Finding, otherwise: str) -> str:
    return _sentence(finding.reason or otherwise, capital=False)


def _sentence(text: str, capital: bool = True) -> str:
    text = text.strip()
    if not text:
        return ""
    head = text[0].upper() if capital and re.match(r"[a-z]+[ ,;]", text) else text[0]
    return head + text[1:] + ("" if text[-1] in ".!?" else ".")
