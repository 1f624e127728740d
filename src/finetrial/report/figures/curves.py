"""Learning curves: loss by optimizer step, training and validation, at the rate that validation chose."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import altair as alt

from finetrial.analysis import numbers
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, colour, named, panel, span, title
from finetrial.report.quantities import metric_name, unit_name

SPLITS = {"train": "training", "val": "validation"}
MAX_POINTS = 40  # of one line: more cannot be told apart on the page


def figure(facts: Facts) -> Figure | None:
    """A panel for each base, sequence, phase, split and scored task; None without curves."""
    panels, shown, seeds = [], set(), set()
    for path in facts.paths:
        for phase in range(1, path.last_phase + 1):
            groups = curve_rows(facts, path, phase)
            for (split, task, metric), rows in groups.items():
                words = [facts.path_label(path), f"phase {phase}" if path.last_phase > 1 else "", SPLITS[split], task]
                panels.append(_panel(facts, task, metric, rows, ", ".join(filter(None, words))))
                shown |= {row["name"] for row in rows}
                seeds |= {row["n"] for row in rows}
    if not panels:
        return None
    number = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
    return Figure("curves", "Learning curves",
                  f"Mean over seeds (n = {number} a point) at the chosen learning rate; bands: lowest to highest seed.",
                  f"Line charts of the loss by optimizer step, for {numbers.listed([p.title for p in panels])}.",
                  tuple(panels), 2, 240, named(facts.arms, shown))


def curve_rows(facts: Facts, path: Path, phase: int) -> dict[tuple[str, str, str], Rows]:
    """(split, task, metric) -> rows of arm, step, mean, lowest, highest and n over seeds; at most 40 steps a line."""
    groups: dict[tuple[str, str, str], dict[tuple[str, int], list[float]]] = {}
    for row in facts.curve(path, phase):
        if row.split in SPLITS and row.value is not None and row.step is not None:
            cells = groups.setdefault((row.split, row.task, row.metric), defaultdict(list))
            cells[row.arm, row.step].append(row.value)
    order = {split: place for place, split in enumerate(SPLITS)}
    return {key: _lines(facts, groups[key]) for key in sorted(groups, key=lambda key: (order[key[0]], key[1:]))}


def _lines(facts: Facts, cells: dict[tuple[str, int], list[float]]) -> Rows:
    rows: Rows = []
    for arm in facts.arms:
        steps = sorted(step for name, step in cells if name == arm.name)
        for step in _thinned(steps):
            values = cells[arm.name, step]
            rows.append({"name": arm.name, "arm": arm.label, "step": step, "value": fmean(values),
                         "low": min(values), "high": max(values), "n": len(values)})
    return rows


def _thinned(steps: list[int]) -> list[int]:
    if len(steps) <= MAX_POINTS:
        return steps
    stride = (len(steps) - 1) / (MAX_POINTS - 1)
    return [steps[round(place * stride)] for place in range(MAX_POINTS)]


def _panel(facts: Facts, task: str, metric: str, rows: Rows, name: str) -> Panel:
    unit = unit_name(facts.unit(task, metric))
    x = alt.X("step:Q", title="optimizer steps", scale=alt.Scale(nice=False))
    scale = alt.Scale(domain=span([row[end] for row in rows for end in ("low", "high")]), nice=False)
    y = alt.Y("value:Q", title=title(f"{metric_name(metric)}{f' ({unit})' if unit else ''}", 30), scale=scale)
    chart = alt.Chart().encode(x=x, color=colour(named(facts.arms, (row["name"] for row in rows))))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=".4g"),
            alt.Tooltip("n:Q", title="seeds")]
    return panel(name, rows, [
        chart.mark_area(opacity=0.14, line=False).encode(y=alt.Y("low:Q", scale=scale, title=None),
                                                         y2=alt.Y2("high:Q")),
        chart.mark_line(strokeWidth=2).encode(y=y),
        chart.mark_point(size=40, opacity=0).encode(y=y, tooltip=tips)])
