"""Score tables: every arm on every task, floors and the untouched base beside them, each mean with interval and n."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from finetrial.analysis import numbers
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.report.arms import AA, BASE, FLOOR, POSITIVE_CONTROL, ArmMark
from finetrial.report.facts import LATEST, Estimate, Facts, Path
from finetrial.report.quantities import KL, NEITHER, metric_name, metric_words
from finetrial.report.tabular import Cell, Column, Table, TableRow, estimate_cell, shared_decimals


@dataclass(frozen=True)
class _Head:
    """What a row is of."""

    arm: ArmMark
    phase: int
    routing: str = LATEST


@dataclass(frozen=True)
class _Shown:
    """What a column is of."""

    task: str
    metric: str
    as_perplexity: bool = False


def score_tables(facts: Facts) -> tuple[Table, ...]:
    """For each base and sequence: every arm on every task scored along it by the primary metric and perplexity; then other metrics."""
    pairs = [(use.name, metric) for use in facts.tested_tasks for metric in facts.metrics(use.name)]
    main = [(task, metric) for task, metric in pairs
            if metric == facts.primary_metric(task) or metric_name(metric) == "perplexity"]
    further = [pair for pair in pairs if pair not in main]
    made = [_score_table(facts, path, main, "Test scores", is_folded=path.is_control)
            for path in (*facts.paths, *facts.control_paths)]
    made += [_score_table(facts, path, further, "Further metrics, test", is_folded=len(facts.paths) > 1)
             for path in facts.paths]
    return tuple(table for table in made if table is not None)


def perplexity(estimate: Estimate) -> Estimate:
    """e to the power of a loss and of the ends of its interval."""
    value, low, high = (None if point is None else math.exp(min(point, 700.0))
                        for point in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def _score_table(facts: Facts, path: Path, pairs: list[tuple[str, str]], title: str, is_folded: bool) -> Table | None:
    scored = facts.scored_along(path)
    shown = [column for task, metric in pairs if task in scored for column in _columns(facts, task, metric)]
    if not shown:
        return None
    estimates = {head: [_estimate(facts, path, head, column) for column in shown] for head in _heads(facts, path)}
    estimates = {head: row for head, row in estimates.items() if not _says_nothing(head, row, estimates)}
    decimals = [shared_decimals((row[place].low, row[place].high) for row in estimates.values())
                for place in range(len(shown))]
    judged = {row.metric for row in facts.results.scores if facts.results.roles.get(row.arm) == FLOOR}  # floors are outputs
    judged |= {one.metric for one in facts.results.distributions}
    of_outputs = [column.metric in judged for column in shown]
    rows = tuple(TableRow((Cell(head.arm.label, _row_note(facts, path, head)),
                           *(_cell(head, *one) for one in zip(shown, row, decimals, of_outputs, strict=True))),
                          head.arm) for head, row in estimates.items())
    name = facts.path_label(path)
    kind = f"{title}, control" if path.is_control else title
    controls = " (controls: at the rate in their row)" if any(head.arm.is_control for head in estimates) else ""
    caption = f"{kind}{f' ({name})' if name else ''}, at the learning rate that validation chose{controls}. " \
              f"Below each mean: its {numbers.percent(facts.study.evaluation.confidence)} interval and n."
    return Table(caption, (Column("arm"), *(_score_column(facts, column) for column in shown)), rows, is_folded)


def _columns(facts: Facts, task: str, metric: str) -> list[_Shown]:
    """Perplexity is shown beside nats per token; it is made from the loss where no row has it."""
    names = {metric_name(name) for name in facts.metrics(task)}
    beside = metric == NATS_PER_TOKEN and metric == facts.primary_metric(task) and "perplexity" not in names
    return [_Shown(task, metric), *([_Shown(task, metric, as_perplexity=True)] if beside else [])]


def _heads(facts: Facts, path: Path) -> list[_Head]:
    """Base and floors once; every other arm after each phase, under each routing."""
    return [_Head(arm, phase, routing) for arm in facts.along(path)
            for phase in ([0] if arm.is_fixed else range(1, path.last_phase + 1))
            for routing in ([LATEST] if arm.is_fixed else facts.routings(path, arm.name))]


def _says_nothing(head: _Head, row: list[Estimate], rows: dict[_Head, list[Estimate]]) -> bool:
    """Floors without any score, and ORACLE where it is no other than LATEST."""
    values = [estimate.value for estimate in row]
    if head.arm.role == FLOOR:
        return all(value is None for value in values)
    if head.routing == LATEST:
        return False
    latest = [estimate.value for estimate in rows[replace(head, routing=LATEST)]]
    return all(value is None or value == other for value, other in zip(values, latest, strict=True))


def _cell(head: _Head, column: _Shown, estimate: Estimate, decimals: int | None, is_of_outputs: bool) -> Cell:
    is_probe = column.metric == KL
    if head.arm.role == BASE and is_probe:
        return Cell("\N{EN DASH}", help="this is how far the others are from it")
    if head.arm.role == FLOOR and estimate.value is None:
        return Cell("\N{EN DASH}", help="a floor is an output: it has no loss, and only generating tasks have floors")
    if head.arm.role == POSITIVE_CONTROL and estimate.value is None and not estimate.failures and (
            is_of_outputs or is_probe):
        return Cell("\N{EN DASH}", help="this control generates nothing and is not probed: its harm is read in the loss")
    return estimate_cell(estimate, decimals)


def _score_column(facts: Facts, column: _Shown) -> Column:
    if column.as_perplexity:
        return Column(column.task, "perplexity, lower is better", "e to the power of the loss")
    better = "higher is better" if facts.higher_is_better(column.task, column.metric) else "lower is better"
    better = NEITHER.get(column.metric, better)
    return Column(column.task, ", ".join((*metric_words(column.metric, facts.unit(column.task, column.metric)), better)))


def _estimate(facts: Facts, path: Path, head: _Head, column: _Shown) -> Estimate:
    estimate = facts.score(path, head.arm.name, head.phase, column.task, column.metric, head.routing)
    return perplexity(estimate) if column.as_perplexity else estimate


def _row_note(facts: Facts, path: Path, head: _Head) -> str:
    words = [head.arm.role, *_control_rate(facts, path, head)] if head.arm.is_control else []
    if head.phase and path.last_phase > 1:
        words.append(f"after phase {head.phase}: {path.tasks[head.phase - 1]}")
    words += ["ORACLE routing"] if head.routing != LATEST else []
    return ", ".join(words) if head.arm.role != BASE else ""


def _control_rate(facts: Facts, path: Path, head: _Head) -> list[str]:
    """The fixed rate of a control: `at 3e-4, the grid's centre`."""
    controls = facts.study.controls
    if controls is None:
        return []
    trained = path.tasks[head.phase - 1]
    if head.arm.role == AA:
        return [f"at {numbers.rate(facts.study.arm(controls.reference).centre_rate(trained))}", "the grid's centre"]
    if controls.positive is None:
        return []
    factor = controls.positive.rate_factor
    rate = facts.study.arm(controls.positive.arm).centre_rate(trained) * factor
    return [f"at {numbers.rate(rate)}", f"{factor:g} times the grid's centre"]
