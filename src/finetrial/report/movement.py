"""How far each arm has moved from its base, beside what it has forgotten: predictions (KL) and weights."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from finetrial.analysis import numbers
from finetrial.report.arms import ARM, ArmMark
from finetrial.report.facts import Facts, Path
from finetrial.report.quantities import KL, metric_words
from finetrial.report.tabular import Cell, Column, Table, TableRow, estimate_cell, shared_decimals

FORGETTING, WHOLE = "forgetting", "whole"
FEWEST_ARMS = 4  # for a rank correlation to be said at all


def movement_table(facts: Facts, path: Path) -> Table | None:
    """Divergence on each probed task, change of the weights, and forgetting, after the last phase; None without probes."""
    tasks = [use.name for use in facts.study.tasks if KL in facts.metrics(use.name)]
    arms = [arm for arm in facts.along(path) if arm.role == ARM]
    if not tasks or not arms:
        return None
    forgotten = [name for name in tasks if name != path.last_task]
    columns = [Column("arm"), *(Column(f"KL on {task}", "nats/token from the base's predictions") for task in tasks)]
    columns += [Column("weights", "relative change", "Frobenius norm of the change over that of the base's weights"),
                Column("most in", "part of the base")]
    columns += [Column(f"{task} forgotten", ", ".join(metric_words(facts.primary_metric(task), facts.unit(
        task, facts.primary_metric(task)))), "positive = worse than right after it was learned, or than the base")
        for task in forgotten]
    rows = tuple(TableRow((Cell(arm.label), *_divergence_cells(facts, path, arms, arm, tasks),
                           *_weight_cells(facts, path, arm), *_forgetting_cells(facts, path, arm, forgotten)), arm)
                 for arm in arms)
    name = facts.path_label(path)
    relation = " ".join(filter(None, (_relation(facts, path, arms, task) for task in forgotten)))
    return Table(f"How far the models moved from their base{f' ({name})' if name else ''}, at the chosen rates. {relation}"
                 .strip(), tuple(columns), rows)


def _divergence_cells(facts: Facts, path: Path, arms: Sequence[ArmMark], arm: ArmMark,
                      tasks: Sequence[str]) -> list[Cell]:
    cells = []
    for task in tasks:
        found = {one.name: facts.score(path, one.name, path.last_phase, task, KL) for one in arms}
        decimals = shared_decimals((estimate.low, estimate.high) for estimate in found.values())
        cells.append(estimate_cell(found[arm.name], decimals))
    return cells


def _weight_cells(facts: Facts, path: Path, arm: ArmMark) -> list[Cell]:
    parts: dict[str, list[float]] = {}
    for row in facts.results.weight_changes:
        if (row.base, row.arm, row.sequence, row.phase) == (path.base, arm.name, path.sequence, path.last_phase):
            parts.setdefault(row.part, []).append(row.relative_change)
    whole = parts.pop(WHOLE, [])
    if not whole:
        return [Cell("unknown", kind="missing"), Cell("", kind="missing")]
    most = max(sorted(parts), key=lambda part: statistics.fmean(parts[part]))
    note = f"from {numbers.percent(min(whole))} to {numbers.percent(max(whole))} over runs" if len(whole) > 1 else ""
    return [Cell(numbers.percent(statistics.fmean(whole)), note, numbers.counted(len(whole), "seed"), "number"),
            Cell(most, numbers.percent(statistics.fmean(parts[most])))]


def _forgetting_cells(facts: Facts, path: Path, arm: ArmMark, tasks: Sequence[str]) -> list[Cell]:
    cells = []
    for task in tasks:
        row = facts.measure(FORGETTING, path, arm.name, path.last_phase, task)
        if row is None or row.value is None:
            cells.append(Cell("missing", kind="missing"))
            continue
        value, interval = numbers.with_interval(row.value, row.low, row.high)
        cells.append(Cell(value, "by construction" if row.by_construction else interval, kind="number"))
    return cells


def _relation(facts: Facts, path: Path, arms: Sequence[ArmMark], task: str) -> str:
    """Whether the arms that moved further on a text forgot more of it: a rank correlation over arms, descriptive."""
    pairs = []
    for arm in arms:
        moved = facts.score(path, arm.name, path.last_phase, task, KL).value
        lost = facts.measure(FORGETTING, path, arm.name, path.last_phase, task)
        if moved is not None and lost is not None and lost.value is not None:
            pairs.append((moved, lost.value))
    if len(pairs) < FEWEST_ARMS:
        return ""
    found = rank_correlation(*zip(*pairs, strict=True))
    if found is None:
        return ""
    return (f"Across {len(pairs)} arms the rank correlation of KL on {task} with what was forgotten of it is "
            f"{found:.2f} (descriptive: arms are few).")


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank. None where all values are equal."""
    try:
        return statistics.correlation(_ranks(one), _ranks(other))
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + ordered.count(value) / 2 for value in values]
