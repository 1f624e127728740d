"""Tables as data: the same `Table` becomes HTML and Markdown. Every mean has its interval and n beside it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace

from finetrial.records.results import Cost
from finetrial.report import numbers
from finetrial.report.arms import ARM, BASE, ArmMark
from finetrial.report.facts import Estimate, Facts, Path
from finetrial.report.sentences import metric_name, unit_name

OUTCOMES = {"OOM": "ran out of memory", "DIVERGED": "the loss diverged", "TIMEOUT": "ran out of time",
            "FAILED": "ended in an error"}


@dataclass(frozen=True)
class Column:
    """A column: its heading, a smaller second line, and the explanation shown on hover."""

    title: str
    note: str = ""
    help: str = ""


@dataclass(frozen=True)
class Cell:
    """`text` is read first, `note` and `more` small below it. `kind`: number, text, outcome (in words) or missing."""

    text: str
    note: str = ""
    more: str = ""
    kind: str = "text"
    help: str = ""


@dataclass(frozen=True)
class TableRow:
    """One row; `arm` gives the mark shown before the first cell."""

    cells: tuple[Cell, ...]
    arm: ArmMark | None = None


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is its heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]


def score_tables(facts: Facts) -> tuple[Table, ...]:
    """For each base and sequence: every arm on every task by the primary metric and perplexity; then other metrics."""
    pairs = [(use.name, metric) for use in facts.tested_tasks for metric in facts.metrics(use.name)]
    main = [(task, metric) for task, metric in pairs
            if metric == facts.primary_metric(task) or metric_name(metric) == "perplexity"]
    further = [pair for pair in pairs if pair not in main]
    return tuple(_score_table(facts, path, shown, title) for shown, title in ((main, "Test scores"),
                 (further, "Further metrics, test")) if shown for path in facts.paths)


def estimate_cell(estimate: Estimate, decimals: int | None = None) -> Cell:
    """A mean with interval and n; the outcome's word where nothing was measured; never a number for a failure."""
    if estimate.value is None:
        if not estimate.failures:
            return Cell("missing", estimate.note, kind="missing")
        word = max(sorted(estimate.failures), key=lambda name: estimate.failures[name])
        return Cell(word, numbers.counted(estimate.failures[word], "cell"), kind="outcome", help=OUTCOMES.get(word, ""))
    failed = [f"{number} {word}" for word, number in sorted(estimate.failures.items())]
    value, interval = numbers.with_interval(estimate.value, estimate.low, estimate.high, decimals)
    more = [_support(estimate), f"failed: {numbers.listed(failed)}" if failed else ""]
    return Cell(value, interval or "no interval", ", ".join(filter(None, more)), "number", estimate.note)


def perplexity(estimate: Estimate) -> Estimate:
    """e to the power of a loss and of the ends of its interval."""
    value, low, high = (None if point is None else math.exp(min(point, 700.0))
                        for point in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def cost_table(facts: Facts, path: Path) -> Table | None:
    """What each arm costs; "unknown" where it was not measured. None without any cost row."""
    rows = [(arm, cost) for arm in facts.arms if arm.role == ARM and (cost := facts.cost(path, arm.name))]
    if not rows:
        return None
    columns = (Column("arm"), Column("trainable", "parameters"), Column("of all", "parameters"),
               Column("stored", "per adapted task", "what must be kept on disk for each task that was learned"),
               Column("optimizer", "memory", "the optimizer's state"),
               Column("speed", "training tokens/s"), Column("one run", "at the chosen rate"),
               Column("tuning", "all rates and seeds"), Column("prediction", "test items"),
               Column("peak memory", _memory_kind(rows), "host: above what the process held before the model"))
    where = numbers.listed(sorted({f"{cost.device}, {cost.precision}" for _, cost in rows if cost.device}))
    name = facts.path_label(path)
    caption = f"Cost of each arm{f' ({name})' if name else ''}. Parameters and bytes are exact; speed and memory " \
              f"come from a separate profile run{f' on {where}' if where else ''}."
    return Table(caption, columns, tuple(TableRow(_cost_cells(arm, cost), arm) for arm, cost in rows))


def peak_bytes(cost: Cost) -> int | None:
    """Peak memory where the model lives: the device's if there is one, else the host's."""
    return cost.peak_host_bytes if cost.peak_device_allocated_bytes is None else cost.peak_device_allocated_bytes


def tuning_table(facts: Facts) -> Table | None:
    """For every arm that has a grid: the rates, what validation chose for each seed, and edges."""
    rows = []
    for path in facts.paths:
        for phase in range(1, path.last_phase + 1):
            rows += [row for arm in facts.arms if (row := _tuning_row(facts, path, arm, phase))]
    if not rows:
        return None
    columns = (Column("arm"), Column("grid", "learning rates"),
               Column("chosen", "rate: seeds", "for each seed, the rate with the best validation score over the "
                                               "other seeds"),
               Column("by the primary metric", "rate: seeds", "the rate that the primary metric would have chosen"),
               Column("edge", "", "the best rate is the first or last of the grid: the true best may lie outside"))
    return Table("Learning rates tried and chosen, by validation on the new task.", columns, tuple(rows))


def audit_table(facts: Facts) -> Table | None:
    """What the audit of the plan found, the worst first. None where it found nothing."""
    order = {"threat": 0, "warning": 1, "note": 2}
    found = sorted(facts.results.audit, key=lambda row: order[row.severity])
    if not found:
        return None
    rows = [TableRow((Cell(row.severity + (", accepted" if row.accepted else ""), kind=row.severity), Cell(row.rule),
                      Cell(row.message, row.where))) for row in found]
    return Table("Audit of the plan.", (Column("severity"), Column("rule"), Column("finding")), tuple(rows))


def _score_table(facts: Facts, path: Path, pairs: list[tuple[str, str]], title: str) -> Table:
    shown = [(task, metric, beside) for task, metric in pairs
             for beside in ([False, True] if _needs_perplexity(facts, task, metric) else [False])]
    heads = [(arm, phase) for arm in facts.arms
             for phase in ([0] if arm.role == BASE else range(1, path.last_phase + 1))]
    columns = [[_estimate(facts, path, arm, phase, column) for arm, phase in heads] for column in shown]
    cells = [[estimate_cell(estimate, _shared_decimals(column)) for estimate in column] for column in columns]
    rows = tuple(TableRow((Cell(arm.label, _row_note(path, arm, phase)), *(column[place] for column in cells)), arm)
                 for place, (arm, phase) in enumerate(heads))
    name = facts.path_label(path)
    caption = f"{title}{f' ({name})' if name else ''}, at the learning rate that validation chose. " \
              f"Below each mean: its {numbers.percent(facts.study.evaluation.confidence)} interval and n."
    return Table(caption, (Column("arm"), *(_score_column(facts, *column) for column in shown)), rows)


def _score_column(facts: Facts, task: str, metric: str, as_perplexity: bool) -> Column:
    if as_perplexity:
        return Column(task, "perplexity, lower is better", "e to the power of the loss")
    unit, name = unit_name(facts.unit(task, metric)), metric_name(metric)
    said = unit_name(name) == unit or unit.lower() in name.lower()  # "bits per byte" needs no unit beside it
    better = "higher is better" if facts.higher_is_better(task, metric) else "lower is better"
    return Column(task, ", ".join(filter(None, (name, "" if said else unit, better))))


def _estimate(facts: Facts, path: Path, arm: ArmMark, phase: int, column: tuple[str, str, bool]) -> Estimate:
    task, metric, as_perplexity = column
    estimate = facts.score(path, arm.name, phase, task, metric)
    return perplexity(estimate) if as_perplexity else estimate


def _shared_decimals(column: list[Estimate]) -> int | None:
    """One precision for a column: the median of what its intervals support. None without any interval."""
    places = [numbers.decimals_for(estimate.low, estimate.high) for estimate in column
              if estimate.low is not None and estimate.high is not None]
    return statistics.median_low(places) if places else None


def _row_note(path: Path, arm: ArmMark, phase: int) -> str:
    words = [arm.role] if arm.is_control else []
    words += [f"after phase {phase}: {path.tasks[phase - 1]}"] if path.last_phase > 1 and phase else []
    return ", ".join(words)


def _needs_perplexity(facts: Facts, task: str, metric: str) -> bool:
    """Perplexity is shown beside nats per token; it is made from the loss where no row has it."""
    names = {metric_name(name) for name in facts.metrics(task)}
    return metric == "nats-per-token" and "perplexity" not in names


def _support(estimate: Estimate) -> str:
    words = [numbers.counted(estimate.num_seeds, "seed")] if estimate.num_seeds else []
    words += [numbers.counted(estimate.num_items, "item")] if estimate.num_items else []
    words += [f"{estimate.num_missing_items:,} unscored"] if estimate.num_missing_items else []
    return " \N{MULTIPLICATION SIGN} ".join(words[:2]) + "".join(f", {word}" for word in words[2:])


def _cost_cells(arm: ArmMark, cost: Cost) -> tuple[Cell, ...]:
    share = numbers.UNKNOWN
    if cost.params_trainable is not None and cost.params_total:
        share = f"{numbers.plain(100 * cost.params_trainable / cost.params_total)} %"
    exact = "" if cost.params_trainable is None else f"{cost.params_trainable:,}"
    texts = (share, numbers.bytes_text(cost.stored_bytes), numbers.bytes_text(cost.optimizer_bytes),
             numbers.short_count(cost.tokens_per_second), numbers.seconds_text(cost.train_seconds),
             numbers.seconds_text(cost.tuning_seconds), numbers.seconds_text(cost.predict_seconds),
             numbers.bytes_text(peak_bytes(cost)))
    return (Cell(arm.label), replace(_cost_cell(numbers.short_count(cost.params_trainable)), help=exact),
            *(_cost_cell(text) for text in texts))


def _cost_cell(text: str) -> Cell:
    return Cell(text, kind="missing" if text == numbers.UNKNOWN else "number")


def _memory_kind(rows: list[tuple[ArmMark, Cost]]) -> str:
    return "device" if any(cost.peak_device_allocated_bytes is not None for _, cost in rows) else "host"


def _tuning_row(facts: Facts, path: Path, arm: ArmMark, phase: int) -> TableRow | None:
    chosen = facts.selections(path, arm.name, phase)
    if not chosen:
        return None
    note = ", ".join(filter(None, (facts.path_label(path), f"phase {phase}" if path.last_phase > 1 else "")))
    edge = sum(row.at_edge for row in chosen)
    grid = " ".join(numbers.rate(rate) for rate in chosen[0].learning_rates)
    return TableRow((Cell(arm.label, note), Cell(grid), Cell(_votes([row.chosen for row in chosen])),
                     Cell(_votes([row.chosen_by_primary for row in chosen])),
                     Cell(f"at the edge for {edge} of {numbers.counted(len(chosen), 'seed')}", kind="warning")
                     if edge else Cell("inside the grid" if len(chosen[0].learning_rates) > 1 else "one rate")), arm)


def _votes(rates: list[float | None]) -> str:
    known = sorted({rate for rate in rates if rate is not None})
    words = [f"{numbers.rate(rate)}: {rates.count(rate)}" for rate in known]
    return ", ".join(words + ([f"none: {rates.count(None)}"] if None in rates else []))
