"""Learning-rate curves: validation and test by rate, one panel an arm, with every seed and the rates chosen."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from statistics import fmean

import altair as alt

from finetrial.analysis import numbers
from finetrial.records.record import Outcome
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.report.arms import ArmMark
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, of_kind, panel, span, title
from finetrial.report.quantities import metric_name, metric_on
from finetrial.spec.slots import joined_tasks

VALIDATION, TEST = "validation", "test"
LINES = (("dashed", "validation, mean over seeds"), ("solid", "test, mean over seeds"), ("dot", "test, one seed"),
         ("ring", "test at the rate chosen for that seed"))


def figure(facts: Facts) -> Figure | None:
    """One panel for each arm with at least two rates, for each base, sequence and phase."""
    panels, shown = [], []
    for path in facts.paths:
        for phase, trained in enumerate(path.tasks, start=1):
            task = joined_tasks(trained)[-1]
            rows = {arm: rate_rows(facts, path, arm, phase) for arm in facts.arms}
            values = [row["value"] for found in rows.values() for row in found if row["kind"] != "failed"]
            if not values:
                continue
            for arm, found in rows.items():
                name = [facts.path_label(path), task if path.last_phase > 1 else "", arm.label]
                if found:
                    metric = facts.study.selection_metric(trained)
                    panels.append(_panel(facts, task, metric, arm, found, span(values), ", ".join(filter(None, name))))
                    shown.append(arm)
    if not panels:
        return None
    arms = tuple(dict.fromkeys(shown))
    seeds = numbers.counted(len(facts.study.seeds), "seed")
    return Figure("rates", "Learning-rate curves",
                  f"Score on the new task by learning rate, {seeds} planned at each. Dashed: validation, which "
                  "chooses; solid: test. Dots: test for single seeds, ringed at the rate chosen for that seed (by the "
                  "other seeds' validation). A rate that failed carries the outcome's word.", _alt(facts, arms),
                  tuple(panels), 3, 200, (), LINES)


def rate_rows(facts: Facts, path: Path, arm: ArmMark, phase: int) -> Rows:
    """Rows of `kind` validation and test (means), seed, chosen and failed; none for arms with a single rate."""
    task, metric = joined_tasks(path.tasks[phase - 1])[-1], facts.study.selection_metric(path.tasks[phase - 1])
    rows: Rows = []
    if arm.is_fixed:
        return rows
    whole = facts.study.at_every_rate(arm.name) and metric == NATS_PER_TOKEN  # else the test is taken at the chosen rate only
    for split, kind in (("val", VALIDATION), ("test", TEST)):
        by_rate: dict[float, list[float]] = defaultdict(list)
        failed: Counter[tuple[float, str]] = Counter()
        for row in facts.rows(path, arm.name, phase, task, split, metric):
            rate = row.point.learning_rate
            if rate is None:
                continue
            if row.value is None:
                failed[rate, str(row.outcome) if row.outcome is not Outcome.OK else "missing"] += 1
                continue
            by_rate[rate].append(row.value)
            if split == "test":
                kinds = ["seed", "chosen"] if row.selected else ["seed"]
                rows += [{"kind": name, "rate": rate, "value": row.value, "seed": row.seed} for name in kinds]
        if whole or split == "val":
            if len(set(by_rate) | {rate for rate, _ in failed}) < 2:
                return []
            rows += [{"kind": kind, "rate": rate, "value": fmean(values), "n": len(values)}
                     for rate, values in sorted(by_rate.items())]
        if split == ("test" if whole else "val"):
            rows += [{"kind": "failed", "rate": rate, "word": f"{word} \N{MULTIPLICATION SIGN}{number}"}
                     for (rate, word), number in sorted(failed.items())]
    return [row | {"at": numbers.rate(row["rate"])} for row in rows]


def _panel(facts: Facts, task: str, metric: str, arm: ArmMark, rows: Rows, domain: list[float], name: str) -> Panel:
    rates = sorted({row["rate"] for row in rows})
    edge = math.sqrt(rates[1] / rates[0])
    x = alt.X("rate:Q", title="learning rate", axis=alt.Axis(values=rates, labelExpr=_as_written(rates)),
              scale=alt.Scale(type="log", domain=[rates[0] / edge, rates[-1] * edge], nice=False))
    y = alt.Y("value:Q", title=title(metric_on(metric, facts.unit(task, metric), task), 28),
              scale=alt.Scale(domain=domain, zero=False, nice=False), axis=alt.Axis(tickCount=4))
    tips = [alt.Tooltip("at:N", title="learning rate"), alt.Tooltip("value:Q", format=".4g")]
    seed, n = [*tips, alt.Tooltip("seed:N")], [*tips, alt.Tooltip("n:Q", title="seeds")]
    tint = arm.colour
    return panel(name, rows, [
        of_kind(VALIDATION).mark_line(strokeDash=[4, 3], strokeWidth=1.5, opacity=0.8, color=tint).encode(x=x, y=y),
        of_kind(TEST).mark_line(strokeWidth=2, color=tint).encode(x=x, y=y),
        of_kind("seed").mark_circle(size=22, opacity=0.55, color=tint).encode(x=x, y=y, tooltip=seed),
        of_kind("chosen").mark_point(size=90, strokeWidth=1.8, opacity=1, color=tint).encode(x=x, y=y, tooltip=seed),
        of_kind(TEST).mark_point(size=60, opacity=0).encode(x=x, y=y, tooltip=n),
        of_kind("failed").mark_text(align="center", baseline="top", fontSize=10).encode(
            x=x, y=alt.value(2), text=alt.Text("word:N"))])


def _as_written(rates: list[float]) -> str:
    """A Vega expression that writes each rate of the grid as the tables do."""
    names = {f"{rate:.6g}": numbers.rate(rate) for rate in rates}
    cases = "".join(f"abs(datum.value / {rate} - 1) < 1e-4 ? '{name}' : " for rate, name in names.items())
    return f"{cases}''"


def _alt(facts: Facts, arms: tuple[ArmMark, ...]) -> str:
    texts = []
    for path in facts.paths:
        for phase in range(1, path.last_phase + 1):
            for arm in arms:
                rows = rate_rows(facts, path, arm, phase)
                kind = TEST if any(row["kind"] == TEST for row in rows) else VALIDATION
                means = [f"{numbers.plain(row['value'])} at {row['at']}" for row in rows if row["kind"] == kind]
                place = [facts.path_label(path), path.tasks[phase - 1] if path.last_phase > 1 else "", arm.label]
                what = f"{kind} {metric_name(facts.study.selection_metric(path.tasks[phase - 1]))}"
                texts += [f"{', '.join(filter(None, place))}: {what} {', '.join(means)}"] if means else []
    return f"Line charts of the score by learning rate. {'; '.join(texts)}."
