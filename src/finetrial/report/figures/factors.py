"""Two crossed factors as a heat map: the score of the arm at each pair of levels, with its interval."""

from __future__ import annotations

from itertools import combinations

import altair as alt

from finetrial.analysis import numbers
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, panel
from finetrial.report.quantities import metric_on

NAMES = {"num_train": "training examples", "rank": "rank"}
_ROW, _SHADE = 46, "#2380C3"


def figure(facts: Facts) -> Figure | None:
    """A panel for each path and pair of numeric factors that have a grid of at least 2 x 2 and tell arms apart; else None."""
    panels, texts = [], []
    for path in facts.paths:
        for across, down in _pairs(facts):
            rows = factor_rows(facts, path, across, down)
            if len({row["x"] for row in rows}) < 2 or len({row["y"] for row in rows}) < 2:
                continue
            if len({(row["x"], row["y"]) for row in rows}) < len(rows):
                continue  # arms that differ in something else, too
            panels.append(_panel(facts, path, rows, (across, down)))
            texts += [f"{down} {row['y']}, {across} {row['x']}: {row['text']} ({row['interval']})" for row in rows]
    if not panels:
        return None
    return Figure("factors", "Two factors",
                  "Test score of the arm at each pair of levels, at its chosen learning rate, with its interval. The "
                  "stronger the blue, the better the score; the best is framed.",
                  f"Heat maps of scores over two factors. {'; '.join(texts)}.", tuple(panels), 2, 200)


def factor_rows(facts: Facts, path: Path, across: str, down: str) -> Rows:
    """A row for each arm that has a level of both factors and a score."""
    task = path.last_task
    metric = facts.primary_metric(task)
    sign = 1.0 if facts.higher_is_better(task, metric) else -1.0
    rows: Rows = []
    for arm in facts.arms:
        levels = facts.results.factors.get(arm.name, {})
        found = facts.score(path, arm.name, path.last_phase, task, metric)
        if not {across, down} <= set(levels) or found.value is None:
            continue
        value, interval = numbers.with_interval(found.value, found.low, found.high)
        rows.append({"x": levels[across], "y": levels[down], "text": value, "interval": interval or "no interval",
                     "arm": arm.label, "signed": sign * found.value})
    return rows


def _pairs(facts: Facts) -> list[tuple[str, str]]:
    """Pairs of factors with numeric levels, the number of examples across."""
    factors = facts.results.factors.values()
    names = dict.fromkeys(name for levels in factors for name, level in levels.items() if not isinstance(level, str))
    ordered = sorted(names, key=lambda name: name != "num_train")
    return list(combinations(ordered, 2))


def _panel(facts: Facts, path: Path, rows: Rows, factors: tuple[str, str]) -> Panel:
    task = path.last_task
    metric = facts.primary_metric(task)
    columns, lines = (sorted({row[key] for row in rows}) for key in ("x", "y"))
    x = alt.X("x:O", sort=columns, title=NAMES.get(factors[0], factors[0]),
              axis=alt.Axis(labelAngle=0, domain=False, ticks=False))
    y = alt.Y("y:O", sort=lines[::-1], title=NAMES.get(factors[1], factors[1]),
              axis=alt.Axis(domain=False, ticks=False))
    lowest, highest = min(row["signed"] for row in rows), max(row["signed"] for row in rows)
    width = (highest - lowest) or 1.0
    cells = [row | {"strength": (row["signed"] - lowest) / width, "best": row["signed"] == highest} for row in rows]
    strength = alt.Opacity("strength:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.06, 0.65]))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("text:N", title="score"), alt.Tooltip("interval:N")]
    chart = alt.Chart().encode(x=x, y=y)
    where = ", ".join(filter(None, (metric_on(metric, facts.unit(task, metric), task), facts.path_label(path))))
    return panel(where, cells, [
        chart.mark_rect(color=_SHADE).encode(opacity=strength, tooltip=tips),
        chart.transform_filter("datum.best").mark_rect(filled=False, stroke=_SHADE, strokeWidth=2),
        chart.mark_text(dy=-6, fontWeight="bold", fontSize=12).encode(text=alt.Text("text:N")),
        chart.mark_text(dy=9, fontSize=10).encode(text=alt.Text("interval:N"))], _ROW * len(lines) + 20)
