"""The score matrix R[k, j] as a heat map: score on task j after phase k, one panel an arm and routing."""

from __future__ import annotations

import altair as alt

from finetrial.analysis import numbers
from finetrial.report.arms import BASE, ArmMark
from finetrial.report.facts import LATEST, Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, panel
from finetrial.report.quantities import metric_with_unit

_ROW = 46  # pixels
_WORSE, _BETTER = "#D55E00", "#2380C3"


def figure(facts: Facts) -> Figure | None:
    """A panel for each arm and routing of every sequence of at least two phases; None without one."""
    panels, texts = [], []
    for path in facts.paths:
        if path.last_phase < 2:
            continue
        largest = _largest(facts, path)
        for arm in facts.along(path):
            if arm.is_fixed or arm.is_control:
                continue
            for routing in facts.routings(path, arm.name):
                rows = matrix_rows(facts, path, arm, routing, largest)
                if routing != LATEST and rows == matrix_rows(facts, path, arm, LATEST, largest):
                    continue
                if not any("score" in row for row in rows):
                    continue
                words = [arm.label, facts.path_label(path), "" if routing == LATEST else "ORACLE routing"]
                name = ", ".join(filter(None, words))
                panels.append(_panel(rows, name))
                texts += [f"{name}, {row['task']} {row['phase']}: {row['text']}" for row in rows if "score" in row]
    if not panels:
        return None
    metrics = [f"{use.name}: {metric_with_unit(metric, facts.unit(use.name, metric))}" for use in facts.tested_tasks
               if (metric := facts.primary_metric(use.name))]
    return Figure("matrix", "Score after each phase",
                  "Each row is a phase, each column a task: the test score with its interval. Blue: better than the "
                  "untouched base, orange: worse; the stronger, the more, relative to the largest change on that task. "
                  f"{'; '.join(metrics)}.", f"Heat maps of scores. {'; '.join(texts)}.", tuple(panels), 2,
                  _ROW * 3 + 30)


def matrix_rows(facts: Facts, path: Path, arm: ArmMark, routing: str, largest: dict[str, float]) -> Rows:
    """A row for each phase and task; without `score` where nothing was measured."""
    rows: Rows = []
    for phase in range(path.last_phase + 1):
        name = f"{phase}: {path.tasks[phase - 1]}" if phase else "0: untouched"
        for use in facts.tested_tasks:
            metric = facts.primary_metric(use.name)
            found = facts.score(path, arm.name if phase else BASE, phase, use.name, metric, routing)
            row = {"phase": name, "task": use.name}
            if found.value is None:
                rows.append(row | {"text": "missing", "interval": "", "gain": 0.0})
                continue
            value, interval = numbers.with_interval(found.value, found.low, found.high)
            gain = _gain(facts, path, use.name, found.value)
            rows.append(row | {"score": found.value, "text": value, "interval": interval,
                               "gain": gain / largest[use.name] if largest.get(use.name) else 0.0})
    return rows


def _largest(facts: Facts, path: Path) -> dict[str, float]:
    """The largest change on each task over all arms (no controls), phases and routings."""
    found: dict[str, float] = {}
    shown = {arm.name for arm in facts.arms if not arm.is_control}
    for row in facts.results.measures:
        if row.measure == "score" and row.arm in shown and row.base == path.base and row.sequence == path.sequence \
                and row.value is not None and row.metric == facts.primary_metric(row.task):
            found[row.task] = max(found.get(row.task, 0.0), abs(_gain(facts, path, row.task, row.value)))
    return found


def _gain(facts: Facts, path: Path, task: str, value: float) -> float:
    metric = facts.primary_metric(task)
    base = facts.base_value(path, task, metric)
    return 0.0 if base is None else (value - base) * (1.0 if facts.higher_is_better(task, metric) else -1.0)


def _panel(rows: Rows, name: str) -> Panel:
    phases, tasks = (list(dict.fromkeys(row[key] for row in rows)) for key in ("phase", "task"))
    x = alt.X("task:N", sort=tasks, title="scored on", axis=alt.Axis(orient="top", labelAngle=0, domain=False,
                                                                    ticks=False))
    y = alt.Y("phase:N", sort=phases, title="after phase", axis=alt.Axis(domain=False, ticks=False, labelLimit=160))
    fill = alt.Color("way:N", legend=None, scale=alt.Scale(domain=["worse", "better"], range=[_WORSE, _BETTER]))
    tips = [alt.Tooltip("phase:N"), alt.Tooltip("task:N"), alt.Tooltip("text:N", title="score"),
            alt.Tooltip("interval:N")]
    strength = alt.Opacity("strength:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.04, 0.65]))
    chart = alt.Chart().encode(x=x, y=y)
    cells = [row | {"strength": min(1.0, abs(row["gain"])), "way": "worse" if row["gain"] < 0 else "better"}
             for row in rows]
    return panel(name, cells, [
        chart.mark_rect().encode(color=fill, opacity=strength, tooltip=tips),
        chart.mark_text(dy=-6, fontWeight="bold", fontSize=12).encode(text=alt.Text("text:N")),
        chart.mark_text(dy=9, fontSize=10).encode(text=alt.Text("interval:N"))], _ROW * len(phases) + 30)
