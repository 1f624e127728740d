"""Score against cost: parameters, training time and peak memory of every arm; the base and the floors are lines."""

from __future__ import annotations

from collections.abc import Callable

import altair as alt

from finetrial.analysis import numbers
from finetrial.records.results import Cost
from finetrial.report.arms import BASE
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, colour, named, of_kind, panel, shape, span, title
from finetrial.report.quantities import metric_on
from finetrial.report.tables import peak_bytes

AXES: dict[str, tuple[str, Callable[[Cost], float | None], Callable[[float | None], str]]] = {
    "trainable parameters": ("trainable parameters", lambda cost: cost.params_trainable, numbers.short_count),
    "training time": ("seconds of one training run", lambda cost: cost.train_seconds, numbers.seconds_text),
    "peak memory": ("peak memory, MB", peak_bytes, numbers.bytes_text),
}


def figure(facts: Facts) -> Figure | None:
    """Three panels for each base and sequence, less those whose cost is unknown."""
    panels, unknown, texts, shown = [], [], [], set()
    for path in facts.paths:
        for name in AXES:
            rows = efficiency_rows(facts, path, name)
            where = ", ".join(filter(None, (facts.path_label(path), name)))
            if len(rows) < 2:
                unknown.append(where)
                continue
            panels.append(_panel(facts, path, name, rows, where))
            shown |= {row["name"] for row in rows}
            texts += [f"{row['arm']}: {row['score']} at {row['cost']}" for row in rows]
    if not panels:
        return None
    note = f" Unknown, so not shown: {numbers.listed(unknown)}." if unknown else ""
    return Figure("efficiency", "Score against cost",
                  "Test score on the new task with its interval, at the chosen learning rate. Dashed line: the "
                  f"untouched base{_floors_text(facts)}. Cost grows to the right, on a logarithmic axis.{note}",
                  f"Scatter plots of score against cost. {'; '.join(texts)}.", tuple(panels), 3, 240,
                  named(facts.arms, shown))


def efficiency_rows(facts: Facts, path: Path, axis: str) -> Rows:
    """One row for each arm (no controls) whose cost and score are both known."""
    task = path.last_task
    metric = facts.primary_metric(task)
    _, read, written = AXES[axis]
    rows: Rows = []
    for arm in facts.along(path):
        cost = facts.cost(path, arm.name)
        amount = read(cost) if cost else None
        if arm.is_fixed or arm.is_control or not amount:
            continue
        estimate = facts.score(path, arm.name, path.last_phase, task, metric)
        if estimate.value is None:
            continue
        shown, interval = numbers.with_interval(estimate.value, estimate.low, estimate.high)
        row = {"kind": "arm", "name": arm.name, "arm": arm.label, "y": estimate.value,
               "x": amount / 1e6 if axis == "peak memory" else amount, "cost": written(amount),
               "score": f"{shown} ({interval or 'no interval'})"}
        ends = {"low": estimate.low, "high": estimate.high}
        rows.append(row | {name: end for name, end in ends.items() if end is not None})
    return rows


def _panel(facts: Facts, path: Path, axis: str, rows: Rows, name: str) -> Panel:
    task = path.last_task
    metric = facts.primary_metric(task)
    line = _lines(facts, path, task, metric)
    arms = named(facts.arms, (row["name"] for row in rows))
    lowest, highest = min(row["x"] for row in rows), max(row["x"] for row in rows)
    x = alt.X("x:Q", title=AXES[axis][0], axis=alt.Axis(format="~s", tickCount=3, grid=False),
              scale=alt.Scale(type="log", domain=[lowest / 1.6, highest * 1.6], nice=False))
    y = alt.Y("y:Q", title=title(metric_on(metric, facts.unit(task, metric), task), 30),
              scale=alt.Scale(domain=span([row[end] for row in [*rows, *line] for end in ("y", "low", "high")
                                           if end in row]), nice=False))
    chart = of_kind("arm").encode(x=x, y=y, color=colour(arms))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("score:N"), alt.Tooltip("cost:N", title=axis)]
    return panel(name, [*rows, *line], [
        of_kind("base").mark_rule(strokeDash=[3, 3]).encode(y=y),
        of_kind("floor").mark_rule(strokeDash=[1, 3], strokeWidth=1.5).encode(y=y, tooltip=[alt.Tooltip("arm:N")]),
        chart.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q"),
                                                                                     y2=alt.Y2("high:Q")),
        chart.mark_point(size=120, filled=True, opacity=1).encode(shape=shape(arms), tooltip=tips)])


def _lines(facts: Facts, path: Path, task: str, metric: str) -> Rows:
    """What an arm has to beat: the untouched base and the floors."""
    fixed = [(arm, facts.base_value(path, task, metric) if arm.role == BASE
              else facts.score(path, arm.name, 0, task, metric).value) for arm in facts.arms if arm.is_fixed]
    return [{"kind": "base" if arm.role == BASE else "floor", "y": value, "arm": arm.label}
            for arm, value in fixed if value is not None]


def _floors_text(facts: Facts) -> str:
    return f"; dotted: floors, outputs that need no model ({numbers.listed([arm.label for arm in facts.floors])})" \
        if facts.floors else ""
