"""Findings in words: what was found, in which direction, how sure. Every sentence carries its interval.

The estimate of a contrast is left minus right. For scores positive means that left is better; for forgetting, that
left forgets more. A sentence names the winner first, so that a reader never has to decode a sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from finetrial.analysis import numbers
from finetrial.analysis.numbers import MINUS
from finetrial.analysis.sentences import side_text
from finetrial.records.results import Finding
from finetrial.report.orientation import band, is_ratio, mirrored, turned, undirected
from finetrial.report.quantities import directions, framed, quantity_name, unit_name
from finetrial.spec import Contrast

Label = Callable[[str], str]

MEANINGS: Mapping[str, str] = {
    "SUPPORTED": "the whole interval lies on the side that was claimed",
    "REFUTED": "the claim does not hold: the whole interval contradicts it, or a part that it needs is refuted or equivalent",
    "EQUIVALENT": "any difference is smaller than the margin set before the run",
    "INCONCLUSIVE": "the data fit a difference either way, or one about as large as the margin",
    "NOT MEASURED": "the data needed are missing",
    "ASSAY FAILED": "the trial did not see an effect that is known to be there, so it can show nothing",
}
SYMBOLS: Mapping[str, str] = {"SUPPORTED": "\N{CHECK MARK}", "REFUTED": "\N{MULTIPLICATION SIGN}",
                              "EQUIVALENT": "\N{ALMOST EQUAL TO}", "INCONCLUSIVE": "?",
                              "NOT MEASURED": "\N{EN DASH}", "ASSAY FAILED": "!"}


def verdict_sentence(finding: Finding, contrast: Contrast | None, label: Label) -> str:
    """One sentence that answers one contrast: what was found, with its interval, and what that means."""
    if finding.verdict == "NOT MEASURED":
        return f"Not measured: {sentence(finding.reason or 'the data are missing', capital=False)}"
    if finding.verdict == "ASSAY FAILED":
        return f"No verdict: {MEANINGS['ASSAY FAILED']}."
    if finding.by_construction:
        return (f"Exactly zero, by construction: {contrast_name(finding, contrast, label)}. The weights that answer "
                "are untouched, so no data could have shown a difference.")
    if finding.estimate is None:
        return sentence(finding.reason or MEANINGS[finding.verdict])
    found = _found(finding, contrast, label)
    return {"SUPPORTED": _supported, "REFUTED": _refuted, "EQUIVALENT": _equivalent,
            "INCONCLUSIVE": _inconclusive}[finding.verdict](finding, contrast, found)


def sentence(text: str, capital: bool = True) -> str:
    """Text with a full stop and, where it starts with a plain word, a capital."""
    text = text.strip()
    if not text:
        return ""
    head = text[0].upper() if capital and re.match(r"[a-z]+[ ,;](?!- )", text) else text[0]
    return head + text[1:] + ("" if text[-1] in ".!?" else ".")


def whole_sentence(finding: Finding, parts: Sequence[Finding], groups: Sequence[int]) -> str:
    """One sentence for a hypothesis of several contrasts. `groups`: how many contrasts each group has, of which in
    one all must hold."""
    if finding.verdict == "ASSAY FAILED":
        return verdict_sentence(finding, None, str)
    counts = {verdict: sum(part.verdict == verdict for part in parts) for verdict in MEANINGS}
    words = [f"{number} {verdict.lower()}" for verdict, number in counts.items() if number]
    rule = "all must hold" if len(groups) == 1 else "one must hold" if max(groups) == 1 else (
        f"all of one of {len(groups)} groups must hold")
    return f"Of {numbers.counted(len(parts), 'comparison')} ({rule}): {numbers.listed(words)}."


def interval_text(finding: Finding) -> str:
    """`97.5 % interval 0.22 to 0.40`, in the estimate's unit; without one: "exact", that nothing varies, or "no interval"."""
    if finding.estimate is None:
        return ""
    if _exact(finding):
        return "exact"
    if agreed := _agreement(finding):
        return agreed
    _, interval = numbers.with_interval(finding.estimate, finding.low, finding.high)
    if not interval:
        return "no interval"
    return f"{_confidence(finding)}interval {interval}"


def estimate_text(finding: Finding) -> str:
    """The estimate with its unit, rounded to what the interval supports; empty where there is none."""
    if finding.estimate is None:
        return ""
    value, _ = numbers.with_interval(finding.estimate, finding.low, finding.high)
    return f"{value}{_unit(finding)}"


def support_facts(finding: Finding) -> tuple[str, ...]:
    """What stands beside a verdict: p values, seeds, clusters, what was detectable, the margin, looks."""
    facts: list[str] = []
    if finding.verdict == "ASSAY FAILED" or finding.by_construction:
        return ()
    if finding.p_value is not None:
        facts.append(numbers.probability(finding.p_value))
    if finding.p_adjusted is not None:
        facts.append(f"Holm-adjusted {numbers.probability(finding.p_adjusted)}")
    if finding.n_repeats is not None:
        facts.append(numbers.counted(finding.n_repeats, "repeat") + " of the profile")
    elif finding.n_seeds is not None:
        facts.append(numbers.counted(finding.n_seeds, "seed"))
    elif finding.n_clusters is not None:
        facts.append("items only: no seed variance")
    if finding.n_clusters is not None:
        facts.append(numbers.counted(finding.n_clusters, "cluster"))
    if finding.pairing_gain is not None:
        facts.append(f"pairing: r = {finding.pairing_correlation:.3f}, standard error {_times(finding.pairing_gain)}")
    if finding.detectable is not None and not _agreement(finding):
        ratio = finding.unit == "ratio"
        facts.append(f"detectable with 80 % power: {'a ratio of ' if ratio else ''}"
                     f"{numbers.plain(finding.detectable, 3 if ratio else 2)}{_unit(finding)}")
    if finding.margin is not None:
        facts.append(f"margin \N{PLUS-MINUS SIGN}{numbers.given(finding.margin)}{_unit(finding)}")
    if finding.look > 1:
        facts.append(f"look {finding.look} at the data")
    return tuple(facts)


def _times(gain: float) -> str:
    """What pairing did to a standard error."""
    factor = numbers.plain(max(gain, 1 / gain), 2)
    if factor == "1.0":
        return "as without it"
    return f"{factor} times {'smaller' if gain >= 1 else 'larger'}"


def contrast_name(finding: Finding, contrast: Contrast | None, label: Label) -> str:
    """A short name of a comparison: `full fine-tuning − LoRA r=8: forgetting of python-text`."""
    if contrast is None:
        return finding.contrast or finding.hypothesis
    left, right = _sides(contrast, label)
    if contrast.is_ratio:
        return f"{left} \N{DIVISION SIGN} {right}: {quantity_name(contrast)}"
    if contrast.interaction is not None:
        first, second = map(label, contrast.interaction)
        return f"({left} {MINUS} {right}) {MINUS} ({first} {MINUS} {second}): {quantity_name(contrast)}"
    return f"{left} {MINUS} {right}: {quantity_name(contrast)}"


def _supported(finding: Finding, contrast: Contrast | None, found: str) -> str:
    if contrast is not None and contrast.expect == "equal":
        return f"No difference that matters: {found}, inside the margin of {_margin(finding, contrast)}."
    if contrast is not None and contrast.expect == "within" and contrast.bounds:
        return sentence(f"{found}, inside the stated bounds {_bounds(contrast)}")
    limits, low, high = band(finding, contrast), finding.low, finding.high
    small = limits is not None and low is not None and high is not None and limits[0] <= low and high <= limits[1]
    return sentence(found + (f"; real, but below the margin of {_margin(finding, contrast)}" if small else ""))


def _refuted(finding: Finding, contrast: Contrast | None, found: str) -> str:
    if contrast is not None and contrast.expect == "equal":
        return f"They do differ: {found}; the margin was {_margin(finding, contrast)}."
    if contrast is not None and contrast.expect == "within" and contrast.bounds:
        return sentence(f"{found}, outside the stated bounds {_bounds(contrast)}")
    return f"{'No difference' if finding.estimate == 0 else 'The opposite'} was found: {found}."


def _equivalent(finding: Finding, contrast: Contrast | None, found: str) -> str:
    inside = f", inside the margin of {_margin(finding, contrast)}" if finding.margin is not None else ""
    return f"No difference that matters: {found}{inside}."


def _inconclusive(finding: Finding, contrast: Contrast | None, found: str) -> str:
    if crossed := _crossed(finding, contrast):
        return f"Not settled: {found}. {crossed}"
    if finding.detectable is None or _agreement(finding):
        return f"Not settled: {found}."
    seeds = f"With {numbers.counted(finding.n_seeds, 'seed')}" if finding.n_seeds else "Here"
    what = "ratio" if is_ratio(contrast) else "difference"
    return (f"Not settled: {found}. {seeds}, only a {what} of about {numbers.plain(finding.detectable, 2)}"
            f"{_unit(finding)} or more would have shown.")


def _crossed(finding: Finding, contrast: Contrast | None) -> str:
    """Which ends of a claimed range the interval lies across; empty where a direction is claimed."""
    limits = band(finding, contrast)
    if contrast is None or contrast.expect not in ("equal", "within") or limits is None \
            or finding.low is None or finding.high is None:
        return ""
    below, above = finding.low < limits[0], finding.high > limits[1]
    if contrast.expect == "equal":
        return f"The interval crosses the margin of {_margin(finding, contrast)}{' on both sides' if below and above else ''}."
    end = "both" if below and above else "the lower" if below else "the upper"
    return f"The interval crosses {end} of the stated bounds {_bounds(contrast)}."


def _found(finding: Finding, contrast: Contrast | None, label: Label) -> str:
    """What was measured, without a final stop: the winner first, or the range where the direction is open."""
    if contrast is None:
        return f"{finding.contrast or finding.hypothesis}: {estimate_text(finding)} ({interval_text(finding)})"
    left, right = _sides(contrast, label)
    if is_ratio(contrast):
        return (f"the {quantity_name(contrast)} of {left} is {estimate_text(finding)} times that of {right} "
                f"({interval_text(finding)})")
    assert finding.estimate is not None
    after = ""
    if contrast.interaction is not None:
        first, second = map(label, contrast.interaction)
        after = f" {second} to {first}"
    agreed = _agreement(finding)
    if finding.estimate == 0 and (agreed or _exact(finding)):
        both = f"the steps from {right} to {left} and from{after}" if after else f"{left} and {right}"
        return f"in {quantity_name(contrast)}, {both} are exactly equal{f' ({agreed})' if agreed else ''}"
    if undirected(finding) and contrast.expect != "within":
        amount, bracket = _range_words(finding, contrast)
        return f"{framed(contrast, left, right, amount)}{after}{bracket}"
    less, more = directions(contrast)
    if turned(finding, contrast):
        finding = mirrored(finding)
        if contrast.interaction is None:
            left, right = right, left
        else:
            more = less
    amount = f"{estimate_text(finding)} {more}"
    return f"{framed(contrast, left, right, amount)}{after} ({interval_text(finding)})"


def _sides(contrast: Contrast, label: Label) -> tuple[str, str]:
    left, right = contrast.sides[:2]
    return side_text(contrast, left, label), side_text(contrast, right, label)


def _range_words(finding: Finding, contrast: Contrast) -> tuple[str, str]:
    """`between 0.14 less and 0.02 nats/token more`, and the estimate with its confidence in brackets."""
    less, more = directions(contrast)
    unit, estimate = _unit(finding), finding.estimate or 0.0
    direction = more if estimate >= 0 else less
    if finding.low is None or finding.high is None:
        value = numbers.plain(abs(estimate))
        return f"{value}{unit} {direction}", f" ({interval_text(finding)})"
    places = numbers.decimals_for(finding.low, finding.high)
    low, high, value = (numbers.fixed(abs(number), places) for number in (finding.low, finding.high, estimate))
    return (f"between {low} {less} and {high}{unit} {more}",
            f" ({_confidence(finding)}interval; estimate {value} {direction})")


def _exact(finding: Finding) -> bool:
    """Parameters and bytes have no error. Results of before `exact` tell it by equal ends without a confidence."""
    return finding.exact or (finding.low is not None and finding.low == finding.high and finding.confidence is None)


def _agreement(finding: Finding) -> str:
    """That a sampled difference does not vary, and over what; empty where it does."""
    if _exact(finding) or finding.low is None or finding.low != finding.high:
        return ""
    over = ["repeats"] if finding.n_repeats is not None else ["runs"] if finding.n_seeds is not None else []
    over += ["items"] if finding.n_clusters is not None else []
    return f"all {' and '.join(over) or 'values'} agree, so there is no noise to judge by"


def _confidence(finding: Finding) -> str:
    return f"{numbers.percent(finding.confidence)} " if finding.confidence is not None else ""


def _unit(finding: Finding) -> str:
    unit = unit_name(finding.unit)
    return f" {unit}" if unit and unit not in ("ratio", "parameters") else ""


def _margin(finding: Finding, contrast: Contrast | None) -> str:
    if finding.margin is None:
        return numbers.UNKNOWN
    if is_ratio(contrast):
        return f"a factor of {numbers.given(1 + finding.margin)}"
    return f"\N{PLUS-MINUS SIGN}{numbers.given(finding.margin)}{_unit(finding)}"


def _bounds(contrast: Contrast) -> str:
    assert contrast.bounds is not None
    return f"{numbers.given(contrast.bounds[0])} to {numbers.given(contrast.bounds[1])}"
