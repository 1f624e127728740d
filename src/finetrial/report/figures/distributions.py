"""How each metric of generated outputs is spread over items: one line an arm, floors and the base among them."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt

from finetrial.analysis import numbers
from finetrial.records.outputs import Distribution
from finetrial.report.facts import Facts, Path
from finetrial.report.figures.theme import Figure, Panel, Rows, colour, named, panel, span, title
from finetrial.report.quantities import metric_on

_LINE = 28  # pixels of one arm
_AT = {"lowest": 1, "lower": 5, "middle": 10, "upper": 15, "highest": 19}  # of the quantiles at 0, 5, ..., 100 %


def figure(facts: Facts) -> Figure | None:
    """A panel for each sequence, task and metric that is more than yes or no; None where nothing was generated."""
    groups: dict[tuple[str, str, str, str], list[Distribution]] = {}
    for row in facts.results.distributions:
        groups.setdefault((row.base, row.sequence, row.task, row.metric), []).append(row)
    panels, shown, texts = [], set(), []
    for path in facts.paths:
        for (base, sequence, task, metric), found in groups.items():
            if (base, sequence) != (path.base, path.sequence) or _is_yes_or_no(found):
                continue
            rows = distribution_rows(facts, found)
            panels.append(_panel(facts, path, task, metric, rows))
            shown |= {row["name"] for row in rows}
            texts += [f"{row['arm']}, {metric} on {task}: median {numbers.plain(row['middle'])}" for row in rows]
    if not panels:
        return None
    return Figure("distributions", "Spread over items",
                  "Each metric item by item, all seeds together, at the chosen learning rate: the point is the median, "
                  "the thick line the middle half of the items, the thin line nine tenths of them. The value of a "
                  f"corpus metric (BLEU, chrF) over all items is not the mean of its values on single items.{_left_out(groups)}",
                  f"Quantile plots. {'; '.join(texts)}.", tuple(panels), 2, 160, named(facts.arms, shown))


def _is_yes_or_no(found: list[Distribution]) -> bool:
    """Whether each item has 0 or 1, from all arms: the means say it all then."""
    return all(row.is_yes_or_no for row in found)


def _left_out(groups: Mapping[tuple[str, str, str, str], list[Distribution]]) -> str:
    names = dict.fromkeys(metric_on(metric, "", task) for (_, _, task, metric), found in groups.items() if _is_yes_or_no(found))
    return f" Not drawn, since an item has 0 or 1 there and the mean says it all: {', '.join(names)}." if names else ""


def distribution_rows(facts: Facts, found: list[Distribution]) -> Rows:
    """A row for each arm, in the order of the report."""
    by_arm = {row.arm: row for row in found}
    return [{"name": arm.name, "arm": arm.label, "n": row.n, "missing": row.n_missing,
             **{name: row.quantiles[at] for name, at in _AT.items()}}
            for arm in facts.arms if (row := by_arm.get(arm.name))]


def _panel(facts: Facts, path: Path, task: str, metric: str, rows: Rows) -> Panel:
    arms = named(facts.arms, (row["name"] for row in rows))
    ends = [row[end] for row in rows for end in ("lowest", "highest")]
    x = alt.X("middle:Q", title=title(metric_on(metric, facts.unit(task, metric), task), 44),
              scale=alt.Scale(domain=span(ends), nice=False), axis=alt.Axis(tickCount=5))
    y = alt.Y("arm:N", sort=[arm.label for arm in arms], title=None,
              axis=alt.Axis(domain=False, ticks=False, labelLimit=190))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("middle:Q", title="median", format=".3g"),
            alt.Tooltip("n:Q", title="values"), alt.Tooltip("missing:Q", title="unscored")]
    chart = alt.Chart().encode(y=y, color=colour(arms))
    return panel(facts.path_label(path), rows, [
        chart.mark_rule(strokeWidth=1.5).encode(x=alt.X("lowest:Q"), x2=alt.X2("highest:Q")),
        chart.mark_rule(strokeWidth=7, opacity=0.45).encode(x=alt.X("lower:Q"), x2=alt.X2("upper:Q"), tooltip=tips),
        chart.mark_point(filled=True, size=70, opacity=1).encode(x=x, tooltip=tips)], _LINE * len(rows) + 20)
