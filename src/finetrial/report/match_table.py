"""On what arms were matched, and what the match left over: as planned, and as measured."""

from __future__ import annotations

from finetrial.analysis import numbers
from finetrial.records.results import Cost
from finetrial.report.arms import ArmMark
from finetrial.report.facts import Facts, Path
from finetrial.report.tabular import Cell, Column, Table, TableRow, known_or_not
from finetrial.spec.arm import Arm
from finetrial.spec.match import UNITS, Match

MEASURED = {"parameters": "params_trainable", "tokens": "train_tokens", "train_time": "train_seconds"}  # of a cost
WORDS = {"flops": "operations", "train_time": "training time"}


def match_table(facts: Facts, path: Path) -> Table | None:
    """One row for each arm that was matched to another; None where none was."""
    marks = {mark.name: mark for mark in facts.along(path)}
    rows = [_row(facts, path, marks[arm.name], arm, arm.match) for arm in facts.study.arms
            if arm.match is not None and arm.match.solved is not None and arm.name in marks]
    if not rows:
        return None
    columns = (Column("arm"), Column("matched to"), Column("on"), Column("solved"), Column("this arm", "as planned"),
               Column("the other", "as planned"), Column("left over", "as planned"),
               Column("left over", "as recorded", "parameters, tokens or seconds of the runs themselves"))
    name = facts.path_label(path)
    return Table(f"Matched budgets{f' ({name})' if name else ''}: what was made equal, and by how much this arm has more "
                 "(+) or less than the other.", columns, tuple(rows))


def _row(facts: Facts, path: Path, mark: ArmMark, arm: Arm, match: Match) -> TableRow:
    assert match.solved is not None
    own, other = (amounts[path.base] for amounts in (match.solved.own, match.solved.other))
    unit = "" if match.quantity == "parameters" else f" {UNITS[match.quantity]}"
    value = f"{match.option} {match.solved.value:,}" if match.option else f"budget {facts.study.training_of(arm).budget}"
    return TableRow((Cell(mark.label), Cell(facts.label(match.arm)), Cell(WORDS.get(match.quantity, match.quantity)), Cell(value),
                     Cell(f"{_amount(own)}{unit}", kind="number"), Cell(f"{_amount(other)}{unit}", kind="number"),
                     Cell(_share(match.solved.off(path.base)), kind="number"),
                     known_or_not(_recorded(facts, path, arm.name, match))), mark)


def _recorded(facts: Facts, path: Path, arm: str, match: Match) -> str:
    """From the costs of the task that was learned last; operations are not recorded."""
    own, other = (_value(facts.cost(path, name, path.last_task), match.quantity) for name in (arm, match.arm))
    return numbers.UNKNOWN if not own or not other else _share(own / other - 1)


def _value(cost: Cost | None, on: str) -> float | None:
    found: float | None = getattr(cost, MEASURED[on]) if cost is not None and on in MEASURED else None
    return found


def _amount(amount: float) -> str:
    return f"{amount:,.0f}" if 1000 <= amount < 1e9 else f"{amount:.4g}"


def _share(share: float) -> str:
    """With one decimal; what rounds to nothing is equal."""
    return "equal" if share == 0 else f"{100 * share:+.1f} %"
