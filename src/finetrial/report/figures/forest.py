"""Forest plot: the estimate and interval of every contrast, beside zero and the margin; one panel a unit."""

from __future__ import annotations

import textwrap
from typing import Any

import altair as alt

from finetrial.analysis import numbers
from finetrial.records.results import Finding
from finetrial.report import sentences
from finetrial.report.facts import Facts
from finetrial.report.figures.theme import NEUTRAL, Figure, Panel, Rows, of_kind, panel, span
from finetrial.report.orientation import band, is_ratio
from finetrial.report.quantities import unit_name
from finetrial.spec import Contrast

# Dark enough on white, light enough on near-black; the word stands beside the mark, so colour is not needed to read it.
VERDICT_COLOURS = {"SUPPORTED": "#009E73", "REFUTED": "#D55E00", "EQUIVALENT": "#3B86C6", "INCONCLUSIVE": "#B78A00",
                   "NOT MEASURED": "#808891", "ASSAY FAILED": "#C2609A", "A/A": NEUTRAL}
_TEXT, _BAR, _WIDE = 13, 30, 56  # pixels of a line of text and of an interval; characters of a line


def figure(facts: Facts) -> Figure | None:
    """A panel for each unit; ratios on a log axis around 1. None where no contrast has an estimate."""
    groups: dict[tuple[str, bool], Rows] = {}
    for row, ratio in forest_rows(facts):
        groups.setdefault((row["unit"], ratio), []).append(row)
    if not groups:
        return None
    floor = noise_floor(facts)
    if floor and (floor["unit"], False) in groups:
        groups[floor["unit"], False].append(floor)
    panels = tuple(_panel(rows, unit, ratio, unit if len(groups) > 1 else "")
                   for (unit, ratio), rows in groups.items())
    texts = [f"{row['text']}: {row['found']}{f' {unit}' if len(groups) > 1 and not ratio else ''}, {row['verdict']}"
             for (unit, ratio), rows in groups.items() for row in rows]
    return Figure("forest", "All comparisons",
                  "Each comparison is left minus right, with its interval after correction for the number of primary "
                  "comparisons (Holm). For scores, right of the line favours the arm named first; for forgetting, "
                  "right of the line means that it forgets more. Grey band: the margin inside which a "
                  "difference does not matter. A/A: two equal arms at one learning rate, what no difference looks like "
                  "(its interval is not corrected).", f"Forest plot. {'; '.join(texts)}.", panels, 1, 200)


def forest_rows(facts: Facts) -> list[tuple[dict[str, Any], bool]]:
    """Every contrast with an interval, in the order of the hypotheses, and whether it is a ratio.

    Exact differences (parameters, bytes), and those that vary nowhere, have no interval to draw.
    """
    rows = []
    for hypothesis in facts.study.hypotheses:
        for finding, contrast in facts.answers(hypothesis):
            ratio = is_ratio(contrast) or (contrast is None and finding.unit == "ratio")
            if finding.estimate is not None and finding.low is not None and finding.high is not None \
                    and finding.low < finding.high:
                rows.append((_row(facts, finding, contrast, ratio), ratio))
    return rows


def noise_floor(facts: Facts) -> dict[str, Any] | None:
    """The difference of two equal arms with its interval, where the study has measured it."""
    assay = facts.results.assay
    if assay.aa_estimate is None or assay.aa_low is None or assay.aa_high is None:
        return None
    estimate, interval = numbers.with_interval(assay.aa_estimate, assay.aa_low, assay.aa_high)
    return {"text": f"Two equal arms: {assay.aa_compared}", "estimate": assay.aa_estimate, "low": assay.aa_low,
            "high": assay.aa_high, "verdict": "A/A", "found": f"{estimate} ({interval})", "unit": unit_name(assay.aa_unit)}


def _row(facts: Facts, finding: Finding, contrast: Contrast | None, ratio: bool) -> dict[str, Any]:
    name = f"{finding.hypothesis}: {sentences.contrast_name(finding, contrast, facts.label)}"
    estimate, interval = numbers.with_interval(finding.estimate or 0.0, finding.low, finding.high)
    row = {"text": name, "estimate": finding.estimate, "low": finding.low, "high": finding.high,
           "verdict": finding.verdict, "found": f"{estimate} ({interval})",
           "unit": "ratio" if ratio else unit_name(finding.unit) or "difference"}
    limits = band(finding, contrast)
    return row | ({"band_low": limits[0], "band_high": limits[1]} if limits else {})


def _panel(rows: Rows, unit: str, ratio: bool, name: str) -> Panel:
    null = 1.0 if ratio else 0.0
    labels = [[*textwrap.wrap(str(row["text"]), _WIDE), f"{row['verdict']}: {row['found']}"] for row in rows]
    most = max(len(label) for label in labels)
    placed = [{"kind": "contrast", "line": place, "label": label, "null": null, **row}
              for place, (row, label) in enumerate(zip(rows, labels, strict=True))]
    ends = [null, *(float(row[end]) for row in rows for end in ("low", "high", "band_low", "band_high") if end in row)]
    scale = (alt.Scale(type="log", domain=[min(ends) / 1.2, max(ends) * 1.2], nice=False) if ratio
             else alt.Scale(domain=span(ends), nice=False))
    x = alt.X("estimate:Q", title=f"left {'divided by' if ratio else 'minus'} right{'' if ratio else f' ({unit})'}",
              scale=scale, axis=alt.Axis(tickCount=5, grid=not ratio))
    y = alt.Y("line:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    colour = alt.Color("verdict:N", legend=None, scale=alt.Scale(domain=list(VERDICT_COLOURS),
                                                                 range=list(VERDICT_COLOURS.values())))
    chart = of_kind("contrast").encode(y=y)
    tips = [alt.Tooltip("text:N", title="comparison"), alt.Tooltip("verdict:N"), alt.Tooltip("found:N")]
    height = most * _TEXT + _BAR
    down, up = height / 2 - 13, 4 - height / 2  # from the middle of a line to its interval, and to its text
    return panel(name, placed, [
        chart.transform_filter("isValid(datum.band_low)").mark_rule(strokeWidth=14, opacity=0.22, yOffset=down).encode(
            x=alt.X("band_low:Q"), x2=alt.X2("band_high:Q")),
        chart.mark_tick(orient="vertical", size=_BAR - 8, thickness=1.5, yOffset=down, color=NEUTRAL, opacity=1).encode(
            x=alt.X("null:Q")),  # beside the intervals only: a line through the panel would cross the texts
        chart.mark_rule(strokeWidth=2.5, yOffset=down).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"), color=colour,
                                                              tooltip=tips),
        chart.mark_point(filled=True, size=90, opacity=1, yOffset=down).encode(x=x, color=colour, tooltip=tips),
        chart.mark_text(align="left", baseline="top", dy=up, lineHeight=_TEXT).encode(x=alt.value(0),
                                                                                     text=alt.Text("label:N"))],
        height * len(rows))
