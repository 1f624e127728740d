"""The learning-forgetting plane: how much an arm learned, against how much of the old it forgot.

x is plasticity on the task learned last, y is forgetting after the last phase, both in the metric's unit and relative
to the untouched base, which lies at (0, 0). The best place is at the bottom right.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import altair as alt

from finetrial.records.results import Score
from finetrial.report import numbers
from finetrial.report.arms import AA, BASE, POSITIVE_CONTROL, ArmMark
from finetrial.report.facts import FORGETTING, PLASTICITY, Facts, Path
from finetrial.report.figures.theme import NEUTRAL, Figure, Panel, Rows, Style, data, span, title
from finetrial.report.sentences import unit_name


def figure(facts: Facts, legend: bool) -> Figure | None:
    """One panel for each base, sequence and task that can be forgotten; None where neither side was measured."""
    panels, outside, shown = [], [], set()
    for path in facts.paths:
        for task in forgettable(facts, path):
            marks, trails = mark_rows(facts, path, task), trail_rows(facts, path, task)
            if len(marks) < 2:
                continue
            name = ", ".join(filter(None, (facts.path_label(path), f"forgetting {task}")))
            frame, far = _frame(facts, marks, trails)
            outside += [f"{row['arm']} lies outside the frame (learned {numbers.plain(row['x'])}, forgotten "
                        f"{numbers.plain(row['y'])})" for row in far]
            style = Style(facts.arms, legend).of(row["name"] for row in marks)
            shown |= {row["name"] for row in marks}
            panels.append(Panel(_chart(facts, path, task, style, marks, trails, frame), name))
    if not panels:
        return None
    caption = ("Right is better learned, down is less forgotten: the best place is at the bottom right. "
               "Large marks: each arm at the rate that validation chose, with intervals. Small marks joined by a line: "
               "the mean at each learning rate of its grid, rising along the line; dots: single seeds. ")
    caption += "Grey box: how far two runs of the same arm lie apart (A/A). " if _has_floor(facts) else ""
    caption += "".join(f"{text}. " for text in outside)
    return Figure("plane", "Learning and forgetting", caption.strip(), _alt(facts), tuple(panels), min(2, len(panels)),
                  400, tuple(arm for arm in facts.arms if arm.name in shown))


def forgettable(facts: Facts, path: Path) -> list[str]:
    """What can be forgotten after the last phase: texts never trained on, and the tasks learned before."""
    outside = [use.name for use in facts.study.tasks if use.role == "outside"]
    return [*outside, *(task for task in path.tasks[:-1] if task != path.tasks[-1])]


def mark_rows(facts: Facts, path: Path, task: str) -> Rows:
    """One row an arm at its chosen rate, the base at (0, 0); arms without both measures are left out."""
    rows: Rows = []
    learned = path.tasks[-1]
    for arm in facts.arms:
        if arm.role == BASE:
            rows.append({"name": arm.name, "arm": arm.label, "x": 0.0, "y": 0.0})
            continue
        x = facts.measure(PLASTICITY, path, arm.name, path.last_phase, learned)
        y = facts.measure(FORGETTING, path, arm.name, path.last_phase, task)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        row = {"name": arm.name, "arm": arm.label, "x": x.value, "y": y.value,
               "learned": _words(x.value, x.low, x.high), "forgotten": _words(y.value, y.low, y.high)}
        bounds = {"x1": x.low, "x2": x.high, "y1": y.low, "y2": y.high}
        rows.append(row | {name: value for name, value in bounds.items() if value is not None})
    return rows


def trail_rows(facts: Facts, path: Path, task: str) -> Rows:
    """Every seed at every rate (`kind` seed) and the mean over seeds at each rate (`kind` mean), at the end."""
    rows: Rows = []
    for arm in facts.arms:
        learned = _by_cell(facts, path, arm, path.tasks[-1])
        kept = _by_cell(facts, path, arm, task)
        by_rate: dict[float, list[tuple[float, float]]] = defaultdict(list)
        for (seed, rate), x in learned.items():
            if (seed, rate) in kept and rate is not None:
                by_rate[rate].append((x, -kept[seed, rate]))
        if len(by_rate) < 2 or arm.is_control:
            continue
        for rate, points in sorted(by_rate.items()):
            common = {"name": arm.name, "arm": arm.label, "rate": rate, "at": numbers.rate(rate)}
            rows += [common | {"kind": "seed", "x": x, "y": y} for x, y in points]
            rows.append(common | {"kind": "mean", "x": fmean(x for x, _ in points), "y": fmean(y for _, y in points)})
    return rows


def _by_cell(facts: Facts, path: Path, arm: ArmMark, task: str) -> dict[tuple[int | None, float | None], float]:
    """Signed change of the test score from the base, by (seed, rate); positive is better."""
    metric = facts.primary_metric(task)
    base = facts.base_value(path, task, metric)
    if base is None or arm.role == BASE:
        return {}
    rows: list[Score] = facts.rows(path, arm.name, path.last_phase, task, "test", metric)
    sign = 1.0 if facts.higher_is_better(task, metric) else -1.0
    return {(row.seed, row.point.learning_rate): sign * (row.value - base) for row in rows if row.value is not None}


def _frame(facts: Facts, marks: Rows, trails: Rows) -> tuple[tuple[list[float], list[float]], Rows]:
    """The domains of both axes, and the positive controls that are left outside so as not to squeeze the rest."""
    controls = {arm.name for arm in facts.arms if arm.role == POSITIVE_CONTROL}
    near = [row for row in marks if row["name"] not in controls] + trails
    xs, ys = ([row[name] for row in near for name in names if name in row]
              for names in (("x", "x1", "x2"), ("y", "y1", "y2")))
    frame = (span(xs), span(ys))
    far = [row for row in marks if not (frame[0][0] <= row["x"] <= frame[0][1]
                                        and frame[1][0] <= row["y"] <= frame[1][1])]
    reach = span(ys + [row["y"] for row in far])
    if far and reach[1] - reach[0] <= 1.6 * (frame[1][1] - frame[1][0]):
        return (span(xs + [row["x"] for row in far]), reach), []
    return frame, far


def _chart(facts: Facts, path: Path, task: str, style: Style, marks: Rows, trails: Rows,
           frame: tuple[list[float], list[float]]) -> alt.LayerChart:
    unit_x = unit_name(facts.unit(path.tasks[-1], facts.primary_metric(path.tasks[-1]))) or "score"
    unit_y = unit_name(facts.unit(task, facts.primary_metric(task))) or "score"
    x = alt.X("x:Q", scale=alt.Scale(domain=frame[0], nice=False, zero=False),
              title=title(f"learned: gain on {path.tasks[-1]} ({unit_x}) \N{RIGHTWARDS ARROW}"))
    y = alt.Y("y:Q", scale=alt.Scale(domain=frame[1], nice=False, zero=False),
              title=title(f"forgotten: loss on {task} above the base ({unit_y})"))
    inside = [row for row in marks if frame[0][0] <= row["x"] <= frame[0][1] and frame[1][0] <= row["y"] <= frame[1][1]]
    colour, shape = style.colour(), style.shape()
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("learned:N"), alt.Tooltip("forgotten:N")]
    trail = alt.Chart(data(trails)).encode(x=x, y=y, color=colour)
    mean = trail.transform_filter("datum.kind == 'mean'").encode(order="rate:Q", detail="arm:N")
    mark = alt.Chart(data(inside)).encode(x=x, y=y, color=colour)
    layers = [*_floor(facts, marks, x, y), *_zero_lines(x, y),
              trail.transform_filter("datum.kind == 'seed'").mark_circle(size=9, opacity=0.35, clip=True),
              mean.mark_line(strokeWidth=1, opacity=0.6, clip=True),
              mean.mark_point(size=22, filled=True, opacity=0.7, clip=True).encode(
                  shape=shape, tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("at:N", title="learning rate")]),
              mark.transform_filter("isValid(datum.x1)").mark_rule(strokeWidth=2, clip=True).encode(x="x1:Q", x2="x2:Q"),
              mark.transform_filter("isValid(datum.y1)").mark_rule(strokeWidth=2, clip=True).encode(y="y1:Q", y2="y2:Q"),
              mark.mark_point(size=130, filled=True, opacity=1).encode(shape=shape, tooltip=tips)]
    return alt.layer(*layers)


def _zero_lines(x: alt.X, y: alt.Y) -> list[alt.Chart]:
    zero = alt.Chart(data([{"x": 0.0, "y": 0.0}]))
    return [zero.mark_rule(strokeDash=[3, 3]).encode(x=x), zero.mark_rule(strokeDash=[3, 3]).encode(y=y)]


def _floor(facts: Facts, marks: Rows, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """A box around the reference arm, as wide and high as the A/A replicate lies away from it."""
    twin, reference = _aa_pair(facts, marks)
    if twin is None or reference is None:
        return []
    half_x, half_y = abs(twin["x"] - reference["x"]), abs(twin["y"] - reference["y"])
    box = {"x": reference["x"] - half_x, "x2": reference["x"] + half_x,
           "y": reference["y"] - half_y, "y2": reference["y"] + half_y}
    return [alt.Chart(data([box])).mark_rect(color=NEUTRAL, opacity=0.28, clip=True).encode(
        x=x, x2="x2:Q", y=y, y2="y2:Q")]


def _aa_pair(facts: Facts, marks: Rows) -> tuple[dict[str, object] | None, dict[str, object] | None]:
    by_name = {row["name"]: row for row in marks}
    twin = next((arm.name for arm in facts.arms if arm.role == AA), "")
    reference = facts.study.controls.reference if facts.study.controls else ""
    return by_name.get(twin), by_name.get(reference)


def _has_floor(facts: Facts) -> bool:
    return any(_floor(facts, mark_rows(facts, path, task), alt.X("x:Q"), alt.Y("y:Q"))
               for path in facts.paths for task in forgettable(facts, path))


def _words(value: float, low: float | None, high: float | None) -> str:
    shown, interval = numbers.with_interval(value, low, high)
    return f"{shown} ({interval})" if interval else f"{shown} (no interval)"


def _alt(facts: Facts) -> str:
    texts = []
    for path in facts.paths:
        for task in forgettable(facts, path):
            texts += [f"{row['arm']}: learned {row['learned']}, forgot {row['forgotten']}"
                      for row in mark_rows(facts, path, task) if "learned" in row]
    return "Scatter plot of forgetting against learning. " + "; ".join(texts) + "."
