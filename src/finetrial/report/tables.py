"""The tables beside the scores: what sequences of tasks did, cost, storage, tuning, audit, published claims."""

from __future__ import annotations

from dataclasses import replace

from finetrial.analysis import numbers
from finetrial.records.results import NATS_PER_TOKEN, Claim, Cost, Measure, Quote
from finetrial.report.arms import ARM, ArmMark
from finetrial.report.facts import LATEST, Facts, Path
from finetrial.report.quantities import metric_words, unit_name
from finetrial.report.tabular import Cell, Column, Table, TableRow, known_or_not, shared_decimals
from finetrial.spec.slots import joined_tasks

STANDINGS = {"survives": "number", "does not survive": "outcome"}  # how the cell is shown


def sequence_table(facts: Facts, path: Path) -> Table | None:
    """Measures over the whole sequence, each arm under each routing; None for a single task."""
    if path.last_phase < 2:
        return None
    wanted = [("average-score", "", "average score", "over the tasks learned, after the last phase"),
              *(("retention", task, f"{task} kept", "share of the gain that later phases left; 1 = all")
                for task in path.learned if task != path.last_task),
              ("backward-transfer", "", "backward transfer",
               "change of earlier tasks since each was trained; positive = later phases helped"),
              ("forward-transfer", "", "forward transfer",
               "gain on later tasks from the phases before their own; positive = they helped"),
              ("drift", "", "drift", "loss on texts never trained on, since the untouched base; positive = worse")]
    found = {name: _over_sequence(facts, path, name[0], name[1]) for name in wanted}
    found = {name: rows for name, rows in found.items() if rows}
    heads = [(arm, routing) for arm in facts.arms if arm.role == ARM for routing in facts.routings(path, arm.name)
             if any(_differs(rows, arm.name, routing) for rows in found.values())]
    if not heads:
        return None
    columns = (Column("arm"), *(Column(title, _unit_note(rows), text) for (_, _, title, text), rows in found.items()))
    rows = tuple(TableRow((Cell(arm.label, "" if routing == LATEST else "ORACLE routing"),
                           *(_measure_cell(rows.get((arm.name, routing)), shared_decimals(
                               (row.low, row.high) for row in rows.values())) for rows in found.values())), arm)
                 for arm, routing in heads)
    name = facts.path_label(path)
    return Table(f"What the sequence did{f' ({name})' if name else ''}: below each value its "
                 f"{numbers.percent(facts.study.evaluation.confidence)} interval.", columns, rows)


def cost_table(facts: Facts, path: Path) -> Table | None:
    """What each arm costs; "unknown" where it was not measured. None without any cost row."""
    rows = [(arm, cost) for arm in facts.along(path) if arm.role == ARM and (cost := facts.cost(path, arm.name))]
    if not rows:
        return None
    columns = (Column("arm"), Column("trainable", "parameters"), Column("of all", "parameters"),
               Column("stored", "per adapted task", "what must be kept on disk for each task that was learned"),
               Column("optimizer", "memory", "the optimizer's state"),
               Column("speed", "training tokens/s"), Column("one run", "at the chosen rate"),
               Column("tuning", "all rates and seeds"), Column("prediction", "test items"),
               Column("swap", "in memory", "one task's adapter, layer or weights out of the model, another's in"),
               Column("peak memory", _memory_kind(rows), "host: above what the process held before the model"))
    where = numbers.listed(sorted({f"{cost.device}, {cost.precision}" for _, cost in rows if cost.device}))
    name = facts.path_label(path)
    caption = f"Cost of each arm{f' ({name})' if name else ''}. Parameters and bytes are exact; speed and memory " \
              f"come from a separate profile run{f' on {where}' if where else ''}."
    if path.last_phase > 1:
        caption += (" Of parameters and bytes the most in a phase, of training and tuning the sum of the phases; prediction and "
                    "swap are those of the last.")
    return Table(caption, columns, tuple(TableRow(_cost_cells(arm, cost, _trained_share(facts, path, arm.name)), arm)
                                         for arm, cost in rows))


def storage_table(facts: Facts, path: Path) -> Table | None:
    """What must be kept for each task, and beside the base for all of them; None for a single task."""
    arms = [arm for arm in facts.along(path) if arm.role == ARM and facts.cost(path, arm.name)]
    if len(path.learned) < 2 or not arms:
        return None
    rows = []
    for arm in arms:
        kept = [cost.stored_bytes if (cost := facts.cost(path, arm.name, task)) else None for task in path.learned]
        known = [number for number in kept if number is not None]
        total = sum(known) if len(known) == len(kept) else None
        cells = (known_or_not(numbers.bytes_text(number)) for number in (*kept, total))
        rows.append(TableRow((Cell(arm.label), *cells), arm))
    columns = (Column("arm"), *(Column(task, "first task" if place == 0 else "one more task")
                                for place, task in enumerate(path.learned)), Column("all tasks", "beside the base"))
    name = facts.path_label(path)
    return Table(f"Storage per additional task{f' ({name})' if name else ''}: what must be kept so that each task can "
                 "be answered by the weights that learned it.", columns, tuple(rows))


def claims_table(facts: Facts) -> Table | None:
    """Published claims and what became of them; None without any."""
    if not facts.results.claims:
        return None
    columns = (Column("claim"), Column("published"), Column("ours", "as published, flaw and all"),
               Column("ours", "mended", "without the flaw named in the claim's row"),
               Column("worth of the flaw", "as published minus mended"), Column("standing", "without the flaw"))
    rows = [TableRow((Cell(row.claim, f"flaw: {row.flaw}" if row.flaw else "", row.note), Cell(row.published),
                      _quote_cell(row.as_published), _quote_cell(row.mended), _worth_cell(row), _standing_cell(row)))
            for row in facts.results.claims]
    return Table("Published claims, repeated here as they were published (one seed) and with one flaw mended at a time. "
                 "Ours are differences, left minus right: of scores above 0 where left is better, of forgetting and costs "
                 "below 0. A claim is judged by its mended interval, alone.", columns, tuple(rows))


def peak_bytes(cost: Cost) -> int | None:
    """Peak memory where the model lives: the device's if there is one, else the host's."""
    return cost.peak_host_bytes if cost.peak_device_allocated_bytes is None else cost.peak_device_allocated_bytes


def tuning_table(facts: Facts) -> Table | None:
    """For every arm that has a grid: the rates, what validation chose for each seed, and edges."""
    by_outputs = any(row.metric != NATS_PER_TOKEN for row in facts.results.tuning)
    rows = [row for path in facts.paths for phase in range(1, path.last_phase + 1) for arm in facts.arms
            if (row := _tuning_row(facts, path, arm, phase, by_outputs))]
    if not rows:
        return None
    other, how = ("loss", "; by the primary metric where that reads outputs, else by the loss") if by_outputs else ("primary metric", "")
    columns = (Column("arm"), Column("grid", "learning rates"),
               Column("chosen", "rate: seeds", "for each seed, the rate with the best validation score over the other seeds"),
               Column(f"by the {other}", "rate: seeds", f"the rate that the {other} would have chosen"),
               Column("edge", "", "the best rate is the first or last of the grid: the true best may lie outside"))
    return Table(f"Learning rates tried and chosen, by validation on the new task{how}.", columns, tuple(rows))


def audit_table(facts: Facts) -> Table | None:
    """What the audit of the plan found, the worst first. None where it found nothing."""
    order = {"threat": 0, "warning": 1, "note": 2}
    found = sorted(facts.results.audit, key=lambda row: order[row.severity])
    if not found:
        return None
    rows = [TableRow((Cell(row.severity + (", accepted" if row.accepted else ""), kind=row.severity), Cell(row.rule),
                      Cell(row.message, row.where))) for row in found]
    return Table("Audit of the plan.", (Column("severity"), Column("rule"), Column("finding")), tuple(rows))


def _trained_share(facts: Facts, path: Path, arm: str) -> float | None:
    """The largest share of its parameters that an arm trains in a phase."""
    shares = [cost.params_trainable / cost.params_total for phase in path.tasks for task in joined_tasks(phase)
              if (cost := facts.cost(path, arm, task)) and cost.params_trainable is not None and cost.params_total]
    return max(shares, default=None)


def _cost_cells(arm: ArmMark, cost: Cost, trained: float | None) -> tuple[Cell, ...]:
    share = numbers.UNKNOWN if trained is None else f"{numbers.plain(100 * trained)} %"
    exact = "" if cost.params_trainable is None else f"{cost.params_trainable:,}"
    texts = (share, numbers.bytes_text(cost.stored_bytes), numbers.bytes_text(cost.optimizer_bytes),
             numbers.short_count(cost.tokens_per_second), numbers.seconds_text(cost.train_seconds),
             numbers.seconds_text(cost.tuning_seconds), numbers.seconds_text(cost.predict_seconds),
             numbers.seconds_text(cost.swap_seconds), numbers.bytes_text(peak_bytes(cost)))
    return (Cell(arm.label), replace(known_or_not(numbers.short_count(cost.params_trainable)), help=exact),
            *(known_or_not(text) for text in texts))


def _memory_kind(rows: list[tuple[ArmMark, Cost]]) -> str:
    return "device" if any(cost.peak_device_allocated_bytes is not None for _, cost in rows) else "host"


def _tuning_row(facts: Facts, path: Path, arm: ArmMark, phase: int, by_outputs: bool) -> TableRow | None:
    chosen = facts.selections(path, arm.name, phase)
    if not chosen:
        return None
    note = ", ".join(filter(None, (facts.path_label(path), f"phase {phase}" if path.last_phase > 1 else "")))
    edge, other = sum(row.at_edge for row in chosen), [row.chosen_by_loss if by_outputs else row.chosen_by_primary for row in chosen]
    grid = " ".join(numbers.rate(rate) for rate in chosen[0].learning_rates)
    return TableRow((Cell(arm.label, note), Cell(grid), Cell(_votes([row.chosen for row in chosen])),
                     Cell(_votes(other, numbers.UNKNOWN)) if any(other) else known_or_not(numbers.UNKNOWN),
                     Cell(f"at the edge for {edge} of {numbers.counted(len(chosen), 'seed')}", kind="warning")
                     if edge else Cell("inside the grid" if len(chosen[0].learning_rates) > 1 else "one rate")), arm)


def _votes(rates: list[float | None], otherwise: str = "none") -> str:
    """`1e-3: 4, none: 1`: each rate and for how many seeds; `otherwise` stands for none."""
    known = sorted({rate for rate in rates if rate is not None})
    words = [f"{numbers.rate(rate)}: {rates.count(rate)}" for rate in known]
    return ", ".join(words + ([f"{otherwise}: {rates.count(None)}"] if None in rates else []))


def _over_sequence(facts: Facts, path: Path, measure: str, task: str) -> dict[tuple[str, str], Measure]:
    """(arm, routing) -> the measure after the last phase: in the metric its tasks share, else in nats per token."""
    found: dict[tuple[str, str], Measure] = {}
    for row in facts.results.measures:
        place = (row.measure, row.base, row.sequence, row.phase, row.task)
        if place == (measure, path.base, path.sequence, path.last_phase, task):
            key = row.arm, row.routing
            if key not in found or row.metric != NATS_PER_TOKEN:
                found[key] = row
    return found


def _unit_note(rows: dict[tuple[str, str], Measure]) -> str:
    """What the numbers are, and which is better: of levels the higher or the lower, of changes the sign that means so."""
    row = next(iter(rows.values()))
    if row.unit == "share":
        return "share, higher is better"
    is_level = row.measure == "average-score"
    better = {True: ("positive is better", "higher is better"), False: ("positive is worse", "lower is better"),
              None: ("", "")}[row.higher_is_better][is_level]
    return ", ".join(filter(None, (*metric_words(row.metric, row.unit), better)))


def _differs(rows: dict[tuple[str, str], Measure], arm: str, routing: str) -> bool:
    """Whether there is a value that LATEST does not say already."""
    row, latest = rows.get((arm, routing)), rows.get((arm, LATEST))
    return row is not None and (routing == LATEST or latest is None or row.value != latest.value)


def _measure_cell(row: Measure | None, decimals: int | None) -> Cell:
    if row is None or row.value is None:
        return Cell("missing", row.note if row else "", kind="missing")
    if row.by_construction:
        return Cell(f"{row.value:g}", "by construction", kind="number", help=row.note)
    value, interval = numbers.with_interval(row.value, row.low, row.high, decimals)
    seeds = numbers.counted(row.n_seeds, "seed") if row.n_seeds else ""
    return Cell(value, interval or "no interval", seeds, "number", row.note)


def _quote_cell(quote: Quote | None) -> Cell:
    if quote is None or quote.value is None:
        return Cell("not run" if quote is None else "missing", quote.note if quote else "", kind="missing")
    value, interval = numbers.with_interval(quote.value, quote.low, quote.high)
    if interval and quote.confidence is not None:
        interval = f"{numbers.percent(quote.confidence)} interval {interval}"
    seeds = numbers.counted(quote.n_seeds, "seed") if quote.n_seeds else ""
    return Cell(f"{value} {unit_name(quote.unit)}".strip(), ", ".join(filter(None, (interval, seeds))), quote.note,
                "number")


def _worth_cell(row: Claim) -> Cell:
    if row.worth is None or row.mended is None:
        return Cell("not told", "", "there are not both figures, in one unit", kind="missing")
    return Cell(f"{numbers.plain(row.worth)} {unit_name(row.mended.unit)}".strip(), kind="number")


def _standing_cell(row: Claim) -> Cell:
    return Cell(row.standing, kind=STANDINGS.get(row.standing, "missing"))
