"""Forest plot: the estimate and interval of every contrast, beside zero and the margin; one panel a unit."""

from __future__ import annotations

import textwrap

import altair as alt

from finetrial.records.results import Finding
from finetrial.report import numbers, sentences
from finetrial.report.facts import Facts
from finetrial.report.figures.theme import NEUTRAL, Figure, Panel, Rows, of_kind, panel, span
from finetrial.report.model import answers
from finetrial.spec import Contrast

# Dark enough on white, light enough on near-black; the word stands beside the mark, so colour is not needed to read it.
VERDICT_COLOURS = {"SUPPORTED": "#009E73", "REFUTED": "#D55E00", "EQUIVALENT": "#3B86C6", "INCONCLUSIVE": "#B78A00",
                   "NOT MEASURED": "#808891", "ASSAY FAILED": "#C2609A"}
_HIGH_LINE = 46  # pixels for one contrast: its name above, its interval below


def figure(facts: Facts) -> Figure | None:
    """A panel for each unit; ratios on a log axis around 1. None where no contrast has an estimate."""
    groups: dict[tuple[str, bool], Rows] = {}
    for row, ratio in forest_rows(facts):
        groups.setdefault((row["unit"], ratio), []).append(row)
    if not groups:
        return None
    panels = tuple(_panel(rows, unit, ratio, unit if len(groups) > 1 else "")
                   for (unit, ratio), rows in groups.items())
    most = max(len(rows) for rows in groups.values())
    texts = [f"{row['text']}: {row['found']}, {row['verdict']}" for rows in groups.values() for row in rows]
    return Figure("forest", "All comparisons",
                  "Each comparison is left minus right, with its interval after correction for the number of primary "
                  "comparisons (Holm). For scores, right of the line favours the arm named first; for forgetting, "
                  "right of the line means that it forgets more. Grey band: the margin inside which a difference "
                  "does not matter.", f"Forest plot. {'; '.join(texts)}.", panels, 1, most * _HIGH_LINE + 10)


def forest_rows(facts: Facts) -> list[tuple[dict[str, object], bool]]:
    """Every contrast that has an estimate and an interval, in the order of the hypotheses; and whether it is a ratio."""
    rows = []
    for hypothesis in facts.study.hypotheses:
        for finding, contrast in answers(hypothesis, facts.results.findings):
            if finding.estimate is not None and finding.low is not None and finding.high is not None:
                rows.append((_row(facts, finding, contrast), _is_ratio(finding, contrast)))
    return rows


def _row(facts: Facts, finding: Finding, contrast: Contrast | None) -> dict[str, object]:
    name = f"{finding.hypothesis}: {sentences.contrast_name(finding, contrast, facts.label)}"
    estimate, interval = numbers.with_interval(finding.estimate or 0.0, finding.low, finding.high)
    unit = "ratio" if _is_ratio(finding, contrast) else sentences.unit_name(finding.unit) or "difference"
    row: dict[str, object] = {"text": name, "estimate": finding.estimate, "low": finding.low, "high": finding.high,
                              "verdict": finding.verdict, "unit": unit, "found": f"{estimate} ({interval}) {unit}"}
    return row | ({"margin": finding.margin} if finding.margin is not None else {})


def _is_ratio(finding: Finding, contrast: Contrast | None) -> bool:
    if contrast is not None:
        return contrast.quantity == "learning-rate-ratio"
    return finding.unit == "ratio"


def _panel(rows: Rows, unit: str, ratio: bool, name: str) -> Panel:
    null = 1.0 if ratio else 0.0
    placed = [row | {"kind": "contrast", "line": place, "label": textwrap.wrap(row["text"], 52),
                     "said": f"{row['verdict']}  {row['found']}"} for place, row in enumerate(rows)]
    ends = [null, *(float(row[name]) for row in rows for name in ("low", "high"))]
    ends += [side * float(row["margin"]) for row in rows if "margin" in row and not ratio for side in (-1, 1)]
    scale = alt.Scale(type="log", nice=True) if ratio else alt.Scale(domain=span(ends), nice=False)
    x = alt.X("estimate:Q", title=f"left {'divided by' if ratio else 'minus'} right{'' if ratio else f' ({unit})'}",
              scale=scale)
    y = alt.Y("line:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    colour = alt.Color("verdict:N", legend=None, scale=alt.Scale(domain=list(VERDICT_COLOURS),
                                                                 range=list(VERDICT_COLOURS.values())))
    chart = of_kind("contrast").encode(y=y)
    tips = [alt.Tooltip("text:N", title="comparison"), alt.Tooltip("said:N", title="found")]
    drop = 12  # pixels from the middle of a line down to its interval
    margins = chart.transform_filter("isValid(datum.margin)").transform_calculate(below="-datum.margin")
    return panel(name, [*placed, {"kind": "null", "estimate": null}], [
        *([] if ratio else [margins.mark_rule(strokeWidth=14, opacity=0.22, yOffset=drop).encode(
            x=alt.X("below:Q"), x2="margin:Q")]),
        of_kind("null").mark_rule(strokeDash=[3, 3], color=NEUTRAL).encode(x=x),
        chart.mark_rule(strokeWidth=2.5, yOffset=drop).encode(x=alt.X("low:Q"), x2="high:Q", color=colour, tooltip=tips),
        chart.mark_point(filled=True, size=90, opacity=1, yOffset=drop).encode(x=x, color=colour, tooltip=tips),
        chart.mark_text(align="left", baseline="middle", dy=-8).encode(x=alt.value(0), text="label:N")])
