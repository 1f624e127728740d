"""Learning curves: loss by optimizer step, training and validation, at the rate that validation chose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import TypeVar

import altair as alt

from finetrial.analysis import numbers
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, colour, named, panel, span, title
from finetrial.report.quantities import metric_name, unit_name

SPLITS = {"train": "training", "val": "validation"}
Point = TypeVar("Point")
Points = list[tuple[int, float]]  # step, value
ALONE = alt.condition("datum.alone", alt.value(1), alt.value(0))  # a line of one point would not be seen
MAX_POINTS = 40  # of one line: more cannot be told apart on the page


def figure(facts: Facts) -> Figure | None:
    """A panel for each base, sequence, phase, split and scored task; None without curves, points alone being none."""
    panels, shown = [], set()
    for path in facts.paths:
        for phase in range(1, path.last_phase + 1):
            groups = curve_rows(facts, path, phase)
            for (split, task, metric), rows in groups.items():
                if all(row["alone"] for row in rows):
                    continue
                words = [facts.path_label(path), f"phase {phase}" if path.last_phase > 1 else "", SPLITS[split], task]
                panels.append((_panel(facts, task, metric, rows, ", ".join(filter(None, words))), rows))
                shown |= {row["name"] for row in rows}
    if not panels:
        return None
    seeds = {row["n"] for _, rows in panels for row in rows}
    number = f"{min(seeds)} to {max(seeds)}, by arm" if len(seeds) > 1 else f"{max(seeds)}"
    return Figure("curves", "Learning curves",
                  f"Mean over seeds (n = {number}) at the chosen learning rate (controls: at their own), by evaluation; bands: lowest to "
                  "highest seed. A line ends where its first seed stopped.",
                  f"Line charts of the loss by optimizer step, for {numbers.listed([p.title for p, _ in panels])}.",
                  tuple(drawn for drawn, _ in panels), 2, 240, named(facts.arms, shown))


def curve_rows(facts: Facts, path: Path, phase: int) -> dict[tuple[str, str, str], Rows]:
    """(split, task, metric) -> rows of arm, step, mean, lowest, highest and n over seeds, and whether the line has no other;
    at most 40 points a line.

    A budget in tokens ends seeds at unlike steps, so points are matched by the evaluation's number, not by its step.
    """
    groups: dict[tuple[str, str, str], dict[tuple[str, int | None], Points]] = {}
    for row in facts.curve(path, phase):
        if row.split in SPLITS and row.value is not None and row.step is not None:
            runs = groups.setdefault((row.split, row.task, row.metric), defaultdict(list))
            runs[row.arm, row.seed].append((row.step, row.value))
    order = {split: place for place, split in enumerate(SPLITS)}
    return {key: _lines(facts, groups[key]) for key in sorted(groups, key=lambda key: (order[key[0]], key[1:]))}


def _lines(facts: Facts, runs: Mapping[tuple[str, int | None], Points]) -> Rows:
    rows: Rows = []
    for arm in facts.arms:
        of_seeds = [sorted(points) for (name, _), points in runs.items() if name == arm.name]
        points = _thinned(list(zip(*of_seeds, strict=False)))  # as far as all seeds go
        for together in points:
            values = [value for _, value in together]
            rows.append({"name": arm.name, "arm": arm.label, "step": fmean(step for step, _ in together),
                         "value": fmean(values), "low": min(values), "high": max(values), "n": len(values),
                         "alone": len(points) == 1})
    return rows


def _thinned(points: list[Point]) -> list[Point]:
    if len(points) <= MAX_POINTS:
        return points
    stride = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(place * stride)] for place in range(MAX_POINTS)]


def _panel(facts: Facts, task: str, metric: str, rows: Rows, name: str) -> Panel:
    unit = unit_name(facts.unit(task, metric))
    x = alt.X("step:Q", title="optimizer steps", scale=alt.Scale(nice=False))
    scale = alt.Scale(domain=span([row[end] for row in rows for end in ("low", "high")]), nice=False)
    y = alt.Y("value:Q", title=title(f"{metric_name(metric)}{f' ({unit})' if unit else ''}", 30), scale=scale)
    chart = alt.Chart().encode(x=x, color=colour(named(facts.arms, (row["name"] for row in rows))))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("step:Q", format=".0f"), alt.Tooltip("value:Q", format=".4g"),
            alt.Tooltip("n:Q", title="seeds")]
    return panel(name, rows, [
        chart.mark_area(opacity=0.14, line=False).encode(y=alt.Y("low:Q", scale=scale, title=None),
                                                         y2=alt.Y2("high:Q")),
        chart.mark_line(strokeWidth=2).encode(y=y),
        chart.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", scale=scale, title=None), y2=alt.Y2("high:Q"), opacity=ALONE),
        chart.mark_point(size=40, filled=True).encode(y=y, tooltip=tips, opacity=ALONE)])
