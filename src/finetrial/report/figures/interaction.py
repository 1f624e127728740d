"""Interaction plots: the four arms of a 2x2 factorial; parallel lines mean that the two factors add up."""

from __future__ import annotations

import altair as alt

from finetrial.analysis import numbers
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, panel, span, title
from finetrial.report.quantities import metric_on, unit_name
from finetrial.spec import Contrast
from finetrial.spec.hypothesis import SCORE, Side

_WITH, _WITHOUT = "#D55E00", "#2380C3"


def figure(facts: Facts) -> Figure | None:
    """A panel for each interaction contrast of scores; None without any that is measured."""
    panels, texts, seen = [], [], set()
    for hypothesis in facts.study.hypotheses:
        for finding, contrast in facts.answers(hypothesis):
            if contrast is None or contrast.interaction is None or contrast.quantity != SCORE or contrast in seen:
                continue
            seen.add(contrast)
            rows = interaction_rows(facts, contrast)
            if len(rows) < 4:
                continue
            estimate, interval = "", ""
            if finding.estimate is not None:
                estimate, interval = numbers.with_interval(finding.estimate, finding.low, finding.high)
            found = f"interaction {estimate} {unit_name(finding.unit)} ({interval})" if interval else "not estimated"
            panels.append(_panel(facts, contrast, rows, f"{hypothesis.name}: {found}"))
            texts += [f"{row['arm']}: {row['found']}" for row in rows] + [found]
    if not panels:
        return None
    return Figure("interaction", "Interaction",
                  "Scores of the four arms of a factorial, with intervals. From left to right one factor is added, "
                  "from the dashed to the solid line the other. Parallel lines: their effects add up. The interaction, "
                  "above each panel, is the rise of the solid line less the rise of the dashed one, signed so that "
                  "above zero the two together do better than they promise alone.",
                  f"Interaction plots. {'; '.join(texts)}.", tuple(panels), 2, 280)


def interaction_rows(facts: Facts, contrast: Contrast) -> Rows:
    """Four rows: (left - right) is one line, (first - second) the other; each rises from its second arm."""
    left, right, first, second = contrast.sides
    rows = []
    for side, line, at in ((second, "without", 0), (first, "without", 1), (right, "with", 0), (left, "with", 1)):
        row = _reading(facts, contrast, side)
        if row is not None:
            rows.append(row | {"line": line, "at": at})
    return rows


def _reading(facts: Facts, contrast: Contrast, side: Side) -> dict[str, object] | None:
    path = _path(facts, side)
    mark = facts.arm(side.arm)
    if path is None or mark is None:
        return None
    phase = 0 if mark.is_fixed else path.last_phase if contrast.phase is None else contrast.phase
    metric = contrast.metric or facts.primary_metric(contrast.task)
    found = facts.score(path, side.arm, phase, contrast.task, metric, contrast.routing)
    if found.value is None:
        return None
    value, interval = numbers.with_interval(found.value, found.low, found.high)
    ends = {"low": found.low, "high": found.high}
    return {"arm": mark.label, "y": found.value, "found": f"{value} ({interval or 'no interval'})"} | {
        name: end for name, end in ends.items() if end is not None}


def _path(facts: Facts, side: Side) -> Path | None:
    every = (*facts.paths, *facts.control_paths)
    return next((path for path in every if path.base == (side.base or facts.paths[0].base)
                 and path.sequence == (side.sequence or facts.paths[0].sequence)), None)


def _panel(facts: Facts, contrast: Contrast, rows: Rows, name: str) -> Panel:
    metric = contrast.metric or facts.primary_metric(contrast.task)
    ends = [row[end] for row in rows for end in ("y", "low", "high") if end in row]
    x = alt.X("at:Q", axis=None, scale=alt.Scale(domain=[-0.6, 1.6], nice=False))
    y = alt.Y("y:Q", title=title(metric_on(metric, facts.unit(contrast.task, metric), contrast.task), 34),
              scale=alt.Scale(domain=span(ends), nice=False))
    tint = alt.Color("line:N", legend=None, scale=alt.Scale(domain=["with", "without"], range=[_WITH, _WITHOUT]))
    dash = alt.StrokeDash("line:N", legend=None, scale=alt.Scale(domain=["with", "without"], range=[[1, 0], [5, 4]]))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("found:N", title="score")]
    chart = alt.Chart().encode(x=x, y=y, color=tint)
    at_start, at_end = (chart.transform_filter(f"datum.at === {at}") for at in (0, 1))
    return panel(name, rows, [
        chart.mark_line(strokeWidth=2.5).encode(strokeDash=dash),
        chart.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q"),
                                                                                     y2=alt.Y2("high:Q")),
        chart.mark_point(filled=True, size=110, opacity=1).encode(tooltip=tips),
        at_start.mark_text(align="right", dx=-11, fontSize=12).encode(text=alt.Text("arm:N")),
        at_end.mark_text(align="left", dx=11, fontSize=12).encode(text=alt.Text("arm:N"))])
