"""The learning-forgetting plane: how much an arm learned, against how much of the old it forgot.

x is plasticity on the task learned last, y is forgetting after the last phase, both in nats per token (which is known
at every learning rate) and relative to the untouched base, which lies at (0, 0). The best place is at the bottom right.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

import altair as alt

from finetrial.analysis import numbers
from finetrial.measures.base import phase_that_trained
from finetrial.report.arms import AA, ARM, BASE, FLOOR, POSITIVE_CONTROL, ArmMark
from finetrial.report.facts import FORGETTING, PLASTICITY, Facts, Path
from finetrial.report.figures.theme import (
    NEUTRAL,
    Figure,
    Panel,
    Rows,
    colour,
    named,
    of_kind,
    panel,
    shape,
    span,
    title,
)
from finetrial.report.quantities import unit_name
from finetrial.spec.slots import joined_tasks

_EQUAL = "how far the reference arm and its repetition (A/A), both at the centre of the grid,"
_ONE_DRAW = "one draw of what no effect looks like; chance alone can do more"
Frame = tuple[list[float], list[float]]  # the domains of x and y
_MARK = 12 / 400  # how wide a large mark is, of a panel
_FAR = 1.6  # what lies beside the chosen arms is drawn if the axis grows by no more than this factor


def figure(facts: Facts) -> Figure | None:
    """One panel for each base, sequence and task that can be forgotten; None where no arm has both sides."""
    panels: list[Panel] = []
    texts, boxes, notes, shown = [], list[str](), list[str](), set()
    for path in facts.paths:
        for task in forgettable(facts, path):
            rows = plane_rows(facts, path, task)
            marks = [row for row in rows if row["kind"] == "mark"]
            if len(marks) < 2:
                continue
            frame, far = _frame(facts, rows)
            words = [facts.path_label(path), f"forgetting {task}" if len(forgettable(facts, path)) > 1 else ""]
            name = ", ".join(filter(None, words))
            boxes += [_floor_text(facts, path, task, row, frame) for row in rows if row["kind"] == "floor"]
            controls = {row["name"] for row in far if row["kind"] == "mark"}
            outside = [_outside(row) for row in far
                       if row["kind"] == "mark" or (row["kind"] == "mean" and row["name"] not in controls)]
            if outside:
                notes.append(f"Outside the frame{f' of {name}' if name else ''}: {'; '.join(outside)}.")
            shown |= {row["name"] for row in marks}
            texts += [f"{f'{name}, ' if name else ''}{row['arm']}: learned {row['learned']}, forgot {row['forgotten']}" for row in marks]
            drawn = [row for row in rows if row not in far and not (row["kind"] == "floor" and _is_hidden(row, frame))]
            panels.append(_panel(facts, path, task, drawn, frame, name))
    if not panels:
        return None
    if len(boxes) > 1:
        boxes = [f"Grey box around the reference arm, where it is larger than the mark: {_EQUAL} lie apart, {_ONE_DRAW}."]
    caption = ("Right is better learned, down is less forgotten: the best place is at the bottom right. Large marks: "
               "each arm at the rate that validation chose, with intervals (positive control: mean over seeds). Small marks on "
               "a line: the mean over seeds at each learning rate, from the lowest to the highest; dots: single seeds.")
    if any(arm.role == AA for arm in facts.arms):
        notes.append("The repeated reference arm (A/A) has no mark: its rate is the centre of the grid, not a chosen one.")
    return Figure("plane", "Learning and forgetting", " ".join([caption, *boxes, *notes]),
                  f"Scatter plot of forgetting against learning. {'; '.join(texts)}.", tuple(panels),
                  min(2, len(panels)), 400, named(facts.arms, shown))


def forgettable(facts: Facts, path: Path) -> list[str]:
    """What can be forgotten after the last phase: texts never trained on, and the tasks learned before."""
    outside = [use.name for use in facts.tested_tasks if use.role == "outside"]
    return [*outside, *(task for task in path.learned if task not in joined_tasks(path.tasks[-1]))]


def plane_rows(facts: Facts, path: Path, task: str) -> Rows:
    """Rows by `kind`: seed (a cell), mean (over seeds, one a rate), mark (an arm), floor (the A/A box), zero."""
    trails = _trail_rows(facts, path, task)
    drawn = sorted(facts.arms, key=lambda arm: arm.role == ARM)  # the arms last, so that no control hides them
    marks = [row for arm in drawn if (row := _mark_row(facts, path, task, arm, trails))]
    grids = {row["name"] for row in trails if sum(row["name"] == other["name"] and other["kind"] == "mean"
                                                  for other in trails) > 1}
    return [{"kind": "zero", "x": 0.0, "y": 0.0}, *_floor_rows(facts, path, marks, trails),
            *(row for row in trails if row["name"] in grids), *marks]


def _mark_row(facts: Facts, path: Path, task: str, arm: ArmMark, trails: Rows) -> dict[str, Any] | None:
    if arm.role in (FLOOR, AA):
        return None  # the A/A arm is at the centre of the grid: beside the chosen rate it would look like another arm
    row: dict[str, Any] = {"kind": "mark", "name": arm.name, "arm": arm.label}
    if arm.role == BASE:
        return row | {"x": 0.0, "y": 0.0, "learned": "0", "forgotten": "0"}
    x = facts.measure(PLASTICITY, path, arm.name, path.last_phase, path.last_task,
                      facts.tuning_metric(path.last_task))
    y = facts.measure(FORGETTING, path, arm.name, path.last_phase, task, facts.tuning_metric(task))
    if x is not None and y is not None and x.value is not None and y.value is not None:
        ends = {"x1": x.low, "x2": x.high, "y1": y.low, "y2": y.high}
        return row | {"x": x.value, "y": y.value, "learned": _words(x.value, x.low, x.high),
                      "forgotten": _words(y.value, y.low, y.high)} | {
                          name: end for name, end in ends.items() if end is not None}
    means = [mean for mean in trails if mean["kind"] == "mean" and mean["name"] == arm.name]
    if len(means) != 1 or not arm.is_control:
        return None
    return row | {"x": means[0]["x"], "y": means[0]["y"], "learned": f"{numbers.plain(means[0]['x'])} (mean of seeds)",
                  "forgotten": f"{numbers.plain(means[0]['y'])} (mean of seeds)"}


def _trail_rows(facts: Facts, path: Path, task: str) -> Rows:
    rows: Rows = []
    for arm in facts.arms:
        if arm.role == ARM and not facts.study.at_every_rate(arm.name):
            continue
        since = phase_that_trained(task, path.tasks, path.last_phase)
        learned, kept = _gains(facts, path, arm, path.last_task), _gains(facts, path, arm, task, since)
        by_rate: dict[float, list[tuple[float, float]]] = defaultdict(list)
        for seed, rate in learned.keys() & kept.keys():
            by_rate[rate].append((learned[seed, rate], -kept[seed, rate]))
        for rate, points in sorted(by_rate.items()):
            common = {"name": arm.name, "arm": arm.label, "rate": rate, "at": numbers.rate(rate)}
            rows += [{"kind": "seed", "x": x, "y": y, **common} for x, y in sorted(points)]
            rows.append({"kind": "mean", "x": fmean(x for x, _ in points), "y": fmean(y for _, y in points), **common})
    return rows


def _gains(facts: Facts, path: Path, arm: ArmMark, task: str, since: int = 0) -> dict[tuple[int | None, float], float]:
    """Change of the test score since a phase (0: the untouched base), positive is better, by (seed, rate)."""
    metric = facts.tuning_metric(task)
    if arm.is_fixed:
        return {}
    start = {row.seed: row.value for row in (facts.chosen_rows(path, arm.name, since, task, "test", metric) if since
                                             else facts.rows(path, BASE, 0, task, "test", metric))}
    sign = 1.0 if facts.higher_is_better(task, metric) else -1.0
    return {(row.seed, row.point.learning_rate): sign * (row.value - before)
            for row in facts.rows(path, arm.name, path.last_phase, task, "test", metric)
            if row.value is not None and row.point.learning_rate is not None
            and (before := start.get(row.seed if since else None)) is not None}


def _floor_rows(facts: Facts, path: Path, marks: Rows, trails: Rows) -> Rows:
    """The A/A box: around the reference arm, as wide and high as two equal arms lie apart at the same rate."""
    twin = next((arm.name for arm in facts.arms if arm.role == AA), "")
    controls = facts.study.controls
    means = {(row["name"], row["rate"]): row for row in trails if row["kind"] == "mean"}
    again = next((row for (name, _), row in means.items() if name == twin), None)
    if controls is None or again is None:
        return []
    once = means.get((controls.reference, again["rate"]))
    centre = next((row for row in marks if row["name"] == controls.reference), None)
    if once is None or centre is None or not _came_alike(facts, path, controls.reference):
        return []
    half_x, half_y = abs(once["x"] - again["x"]), abs(once["y"] - again["y"])
    return [{"kind": "floor", "x": centre["x"] - half_x, "x2": centre["x"] + half_x,
             "y": centre["y"] - half_y, "y2": centre["y"] + half_y}]


def _came_alike(facts: Facts, path: Path, reference: str) -> bool:
    """Whether the reference went into the last phase from the centres of its grids, as its A/A control does."""
    earlier = [row for row in facts.results.tuning if (row.base, row.sequence, row.arm) ==
               (path.base, path.sequence, reference) and row.phase < path.last_phase]
    arm = facts.study.arm(reference)
    return all(row.chosen == arm.centre_rate(row.task) for row in earlier)


def _frame(facts: Facts, rows: Rows) -> tuple[Frame, Rows]:
    """The domains of both axes, and what is left out so as not to squeeze the rest: positive controls, and learning rates
    at which an arm lies far from where validation put any."""
    controls = {arm.name for arm in facts.arms if arm.role == POSITIVE_CONTROL}
    kept = [row for row in rows if row.get("name") not in controls and "rate" not in row]
    core, far = _domains(kept), []
    for row in [row for row in rows if row not in kept]:
        wide = _domains([*kept, row])
        if all(whole[1] - whole[0] <= _FAR * (part[1] - part[0]) for whole, part in zip(wide, core, strict=True)):
            kept.append(row)
        else:
            far.append(row)
    return _domains(kept), far


def _outside(row: dict[str, Any]) -> str:
    if row["kind"] == "mark":
        return f"{row['arm']}, learned {row['learned']}, forgotten {row['forgotten']}"
    return f"{row['arm']} at {row['at']}, learned {numbers.plain(row['x'])}, forgotten {numbers.plain(row['y'])} (mean of seeds)"


def _domains(rows: Rows) -> Frame:
    return (span([row[name] for row in rows for name in ("x", "x1", "x2") if name in row]),
            span([row[name] for row in rows for name in ("y", "y1", "y2") if name in row]))


def _panel(facts: Facts, path: Path, task: str, rows: Rows, frame: Frame, name: str) -> Panel:
    arms = named(facts.arms, (row["name"] for row in rows if row["kind"] == "mark"))
    unit_x, unit_y = (unit_name(facts.unit(of, facts.tuning_metric(of))) or "score" for of in (path.last_task, task))
    x = alt.X("x:Q", scale=alt.Scale(domain=frame[0], nice=False, zero=False),
              title=title(f"learned: gain on {path.last_task} ({unit_x}) \N{RIGHTWARDS ARROW}"))
    above = "since it was learned" if task in path.learned else "above the base"
    y = alt.Y("y:Q", scale=alt.Scale(domain=frame[1], nice=False, zero=False),
              title=title(f"forgotten: loss on {task} {above} ({unit_y})", 50))
    tint, form = colour(arms), shape(arms)
    mean, mark = of_kind("mean").encode(x=x, y=y, color=tint), of_kind("mark").encode(x=x, y=y, color=tint)
    return panel(name, rows, [
        of_kind("floor").mark_rect(color=NEUTRAL, stroke=NEUTRAL, opacity=0.28, clip=True).encode(x=x, x2=alt.X2("x2:Q"), y=y,
                                                                                  y2=alt.Y2("y2:Q")),
        of_kind("zero").mark_rule(strokeDash=[3, 3]).encode(x=x),
        of_kind("zero").mark_rule(strokeDash=[3, 3]).encode(y=y),
        of_kind("seed").mark_circle(size=9, opacity=0.35, clip=True).encode(x=x, y=y, color=tint),
        mean.mark_line(strokeWidth=1, opacity=0.6, clip=True).encode(order=alt.Order("rate:Q")),
        mean.mark_point(size=22, filled=True, opacity=0.7, clip=True).encode(
            shape=form, tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("at:N", title="learning rate")]),
        mark.transform_filter("isValid(datum.x1)").mark_rule(strokeWidth=2, clip=True).encode(
            x=alt.X("x1:Q"), x2=alt.X2("x2:Q")),
        mark.transform_filter("isValid(datum.y1)").mark_rule(strokeWidth=2, clip=True).encode(
            y=alt.Y("y1:Q"), y2=alt.Y2("y2:Q")),
        mark.mark_point(size=130, filled=True, opacity=1).encode(
            shape=form, tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("learned:N"), alt.Tooltip("forgotten:N")])])


def _is_hidden(row: dict[str, Any], frame: Frame) -> bool:
    """Whether the A/A box lies behind the reference arm's mark."""
    return all(row[end] - row[start] <= _MARK * (high - low)
               for (start, end), (low, high) in zip((("x", "x2"), ("y", "y2")), frame, strict=True))


def _floor_text(facts: Facts, path: Path, task: str, row: dict[str, Any], frame: Frame) -> str:
    wide, high = (numbers.plain((row[end] - row[start]) / 2, 2) for start, end in (("x", "x2"), ("y", "y2")))
    unit_x, unit_y = (unit_name(facts.unit(of, facts.tuning_metric(of))) for of in (path.last_task, task))
    start = "Not drawn, being smaller than a mark" if _is_hidden(row, frame) else "Grey box around the reference arm"
    return f"{start}: {_EQUAL} lie apart, {wide} {unit_x} in learning and {high} {unit_y} in forgetting, {_ONE_DRAW}."


def _words(value: float, low: float | None, high: float | None) -> str:
    shown, interval = numbers.with_interval(value, low, high)
    return f"{shown} ({interval or 'no interval'})"
