"""Transfer both ways: what was learned before does for a task, and what is learned after does to it."""

from __future__ import annotations

from typing import Any

import altair as alt

from finetrial.analysis import numbers
from finetrial.records.results import Measure
from finetrial.report.arms import ARM
from finetrial.report.facts import LATEST, Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, colour, named, of_kind, panel, shape, span, title
from finetrial.report.quantities import metric_with_unit

FORWARD, BACKWARD = "forward-transfer", "backward-transfer"
_WORDS = {FORWARD: "forward: from what was learned before", BACKWARD: "backward: from what was learned after"}
_LINE = 30  # pixels of one arm


def figure(facts: Facts) -> Figure | None:
    """A panel for each task of every sequence and each direction that it has; None without sequences."""
    panels, texts, shown, exact = [], [], set(), False
    for path in facts.paths:
        for task in path.learned:
            for direction in (FORWARD, BACKWARD):
                rows = transfer_rows(facts, path, direction, task)
                if not rows:
                    continue
                name = [task, _WORDS[direction], facts.path_label(path)]
                panels.append(_panel(facts, rows, ", ".join(filter(None, name))))
                shown |= {row["name"] for row in rows}
                exact = exact or any(row["kind"] == "exact" for row in rows)
                texts += [f"{task}, {direction.replace('-', ' ')}, {row['line']}: {row['found']}" for row in rows]
    if not panels:
        return None
    note = " Rings: exactly zero by construction, because the weights that answer are untouched." if exact else ""
    return Figure("transfer", "Transfer both ways",
                  "Right of the dashed line the other task helped, left of it it harmed, with intervals. Forward: the "
                  "gain on a task, over the untouched base, before its own phase. Backward: its change after its own "
                  f"phase.{note}", f"Dot plots of transfer. {'; '.join(texts)}.", tuple(panels), 2, 160,
                  named(facts.arms, shown))


def transfer_rows(facts: Facts, path: Path, direction: str, task: str) -> Rows:
    """A row for each arm and routing: kind `interval`, or `exact` where it is zero by construction."""
    rows: Rows = []
    for arm in (arm for arm in facts.arms if arm.role == ARM):
        seen: list[Measure] = []
        for routing in facts.routings(path, arm.name):
            found = _latest(facts, path, direction, arm.name, task, routing)
            if found is None or found.value is None or any(_same(found, other) for other in seen):
                continue
            seen.append(found)
            line = arm.label + ("" if routing == LATEST else ", ORACLE")
            rows.append(_row(found) | {"name": arm.name, "arm": arm.label, "line": line,
                                       "unit": metric_with_unit(found.metric, found.unit)})
    return rows


def _latest(facts: Facts, path: Path, direction: str, arm: str, task: str, routing: str) -> Measure | None:
    """The reading of a task after the last phase that has one, by its primary metric."""
    found = (facts.measure(direction, path, arm, phase, task, routing=routing)
             for phase in range(path.last_phase, 0, -1))
    return next((row for row in found if row is not None), None)


def _same(one: Measure, other: Measure) -> bool:
    return (one.value, one.low, one.by_construction) == (other.value, other.low, other.by_construction)


def _row(found: Measure) -> dict[str, Any]:
    assert found.value is not None
    if found.by_construction:
        return {"kind": "exact", "x": 0.0, "found": "0 by construction"}
    value, interval = numbers.with_interval(found.value, found.low, found.high)
    ends = {"low": found.low, "high": found.high}
    return {"kind": "interval", "x": found.value, "found": f"{value} ({interval or 'no interval'})"} | {
        name: end for name, end in ends.items() if end is not None}


def _panel(facts: Facts, rows: Rows, name: str) -> Panel:
    arms, lines = named(facts.arms, (row["name"] for row in rows)), [row["line"] for row in rows]
    ends = [0.0, *(row[end] for row in rows for end in ("x", "low", "high") if end in row)]
    x = alt.X("x:Q", title=title(f"change in {rows[0]['unit']}, positive is better", 44), axis=alt.Axis(tickCount=5),
              scale=alt.Scale(domain=span(ends), nice=False))
    y = alt.Y("line:N", sort=lines, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=190))
    tips = [alt.Tooltip("line:N", title="arm"), alt.Tooltip("found:N", title="transfer")]
    tint = colour(arms)
    interval = of_kind("interval").encode(y=y, color=tint)
    return panel(name, [*rows, {"kind": "zero", "x": 0.0}], [
        of_kind("zero").mark_rule(strokeDash=[3, 3]).encode(x=x),
        interval.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2.5).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=tips),
        interval.mark_point(filled=True, size=100, opacity=1).encode(x=x, shape=shape(arms), tooltip=tips),
        of_kind("exact").mark_point(size=100, strokeWidth=2, opacity=1).encode(x=x, y=y, color=tint, tooltip=tips)],
        _LINE * len(rows) + 20)
